"""Files that others publish: download, and the digest that tells whether what came is what was published.

A file gets its final name only when its digest is right, so what is installed is whole. `installed.json` beside the
files keeps the full SHA-256 of each as it was at installation.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from dicomnode.errors import PeerError, PeerRejectedError, UsageError, WeightsError
from dicomnode.files import sha256_of, write_whole

#: (bytes so far, bytes in all or None)
Progress = Callable[[int, int | None], None]
_RECORD = "installed.json"
_CHUNK = 1 << 20
_SILENCE_S = 60


@dataclass(frozen=True)
class PublishedFile:
    """A published weights file.

    torch's publishers put the first 8 hexadecimal digits of the SHA-256 into the file's name
    (`torch.hub.load_state_dict_from_url`): that is all that is known of it before it is here. 32 bits tell a damaged
    file, not a forged one: where that matters, compare the full digest that is told with another source.

    Attributes:
        name: what it is called here.
        file: its name, with the digits.
        what: what it is for, in words.
        source: the URL of the publisher's folder.
        by_hand: what to do with a file that was carried here, where there is no internet.
    """

    name: str
    file: str
    what: str
    source: str
    by_hand: str

    @property
    def prefix(self) -> str:
        """The first digits of the SHA-256."""
        return self.file.removesuffix(".pth").rsplit("-", 1)[1]


@dataclass(frozen=True)
class Installed:
    """A file in the weights folder with the digest of its installation."""

    path: Path
    sha256: str


def installed(folder: Path) -> dict[str, Installed]:
    """Return what was installed in the folder, by file name."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return {name: Installed(folder / name, str(sha256)) for name, sha256 in record.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as e:
        raise WeightsError(f"{folder / _RECORD} cannot be read ({e}): install the weights again") from e


def fetch(known: PublishedFile, folder: Path, mirror: str = "", progress: Progress | None = None) -> Installed:
    """Download and install. An interrupted download is resumed; an installed file is left alone.

    Args:
        known: what to fetch.
        folder: where to; made if it is missing.
        mirror: a URL (http or https) of a folder with the same file names; "": the publisher's.
        progress: called after each piece.

    Raises:
        PeerError: the server did not answer or the connection was cut; the part that came is kept.
        PeerRejectedError: the server does not have the file.
        WeightsError: what came has another digest; it was removed.
    """
    url = (mirror or known.source).rstrip("/") + "/" + known.file
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{mirror}: the mirror must be a URL that starts with https:// or http://")
    here = installed(folder).get(known.file)
    if here and here.path.is_file() and sha256_of(here.path) == here.sha256:
        return here
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{known.file}.part"
    try:
        _download(url, part, progress)
    except urllib.error.HTTPError as e:
        if e.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise PeerError(f"{url}: the server answered {e.code} {e.reason}; try again later") from e
        raise PeerRejectedError(f"{url}: the server answered {e.code} {e.reason}; check the mirror's address") from e
    except (OSError, HTTPException) as e:
        why = e.reason if isinstance(e, urllib.error.URLError) else e
        raise PeerError(
            f"{url}: no connection, or it was interrupted ({why}). Run the same command again to resume. "
            f"Without internet, copy the file to this machine and {known.by_hand}."
        ) from e
    return keep(known, part, folder, f"the file from {url}")


def keep(known: PublishedFile, part: Path, folder: Path, source: str) -> Installed:
    """Give a file that has come its name, and note its digest.

    Args:
        known: what it should be.
        part: where it lies, in `folder`; it is moved or, where its digest is wrong, removed.
        folder: where to.
        source: where it came from, for the message.

    Raises:
        WeightsError: its digest is another.
    """
    found = sha256_of(part)
    if not found.startswith(known.prefix):
        part.unlink()
        raise WeightsError(
            f"{source} has sha256 {found}, but {known.name} has one that begins with {known.prefix}: it is "
            "damaged or the wrong file"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    record = {name: one.sha256 for name, one in installed(folder).items()} | {known.file: found}
    part.replace(folder / known.file)
    write_whole(folder / _RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return Installed(folder / known.file, found)


def _download(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310  (checked)
    try:
        response = urllib.request.urlopen(request, timeout=_SILENCE_S)  # noqa: S310
    except urllib.error.HTTPError as e:
        if e.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is here already: the digest decides
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # a server without range requests sends all of it again
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with part.open("ab" if have else "wb") as file:
            while piece := response.read(_CHUNK):
                file.write(piece)
                have += len(piece)
                if progress:
                    progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"only {have} of {total} bytes received")
