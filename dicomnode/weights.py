"""Weights of other people's networks: where they come from, and whether what lies here is what it should be.

A file gets its final name only when its digest is right, so what is installed is whole. `installed.json` beside the
files keeps the full SHA-256 of each as it was at installation: `verify` finds what changed since.
"""

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from dicomnode.errors import BundleError, PeerError, PeerRejectedError, UsageError, WeightsError

#: (bytes so far, bytes in all or None)
Progress = Callable[[int, int | None], None]
_OFFICIAL = "https://github.com/JoHof/lungmask/releases/download/v0.0/"
_RECORD = "installed.json"
_CHUNK = 1 << 20
_SILENCE_S = 60


@dataclass(frozen=True)
class Known:
    """A published weights file.

    torch's publishers put the first 8 hexadecimal digits of the SHA-256 into the file's name
    (`torch.hub.load_state_dict_from_url`): that is all that is known of it before it is here. 32 bits tell a damaged
    file, not a forged one: where that matters, compare the full digest that `list` shows with another source.
    """

    name: str
    file: str
    what: str

    @property
    def prefix(self) -> str:
        """The first digits of the SHA-256."""
        return self.file.removesuffix(".pth").rsplit("-", 1)[1]


KNOWN = (
    Known("R231", "unet_r231-d5d2fc3d.pth", "right and left lung"),
    Known("LTRCLobes", "unet_ltrclobes-3a07043d.pth", "the five lobes"),
    Known("R231CovidWeb", "unet_r231covid-0de78a7e.pth", "right and left lung, trained with pictures from the web"),
)


@dataclass(frozen=True)
class Installed:
    """A file in the weights folder with the digest of its installation."""

    path: Path
    sha256: str


def find(name: str) -> Known:
    """The published file of this name (or file name). Raises UsageError."""
    for known in KNOWN:
        if name.lower() in (known.name.lower(), known.file.lower()):
            return known
    raise UsageError(f"{name}: no such weights; known are {', '.join(k.name for k in KNOWN)}")


def installed(folder: Path) -> dict[str, Installed]:
    """What was installed in the folder, by file name."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return {name: Installed(folder / name, str(digest)) for name, digest in record.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as e:
        raise WeightsError(f"{folder / _RECORD} cannot be read ({e}): install the weights again") from e


def fetch(known: Known, folder: Path, mirror: str = "", progress: Progress | None = None) -> Installed:
    """Download and install. A download that was cut off goes on where it ended.

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
    url = (mirror or _OFFICIAL).rstrip("/") + "/" + known.file
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{mirror}: the mirror must be a URL that starts with https:// or http://")
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
            f"{url}: no connection, or it was cut off ({why}). Run the same command again: it goes on where it ended. "
            "Without internet, carry the file here and use `dicomnode weights install`."
        ) from e
    return _keep(known, part, folder, f"what {url} sent")


def install(file: Path, folder: Path) -> Installed:
    """Copy a file that was carried here. Its name tells which it is.

    Raises:
        UsageError: it cannot be read, or its name is none of the known ones.
        WeightsError: its digest is another.
    """
    known = find(file.name)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{known.file}.copy"
    try:
        shutil.copyfile(file, part)
    except OSError as e:
        raise UsageError(f"{file}: cannot be copied to {folder} ({e.strerror})") from e
    return _keep(known, part, folder, str(file))


@dataclass(frozen=True)
class Verdict:
    """Whether a file or a bundle is what was installed, and what to do if not."""

    name: str
    ok: bool
    text: str


def verify(folder: Path) -> Iterator[Verdict]:
    """Compare all that is installed with its digests; recompute each bundle's golden case."""
    for name, here in sorted(installed(folder).items()):
        found = _digest(here.path) if here.path.is_file() else None
        if found == here.sha256:
            yield Verdict(name, True, f"sha256 {found}")
        else:
            what = "is missing" if found is None else f"has sha256 {found}, installed was {here.sha256}"
            yield Verdict(name, False, f"{what}: fetch or install it again")
    from dicomnode.analysis import bundle  # noqa: PLC0415  (imports torch)

    for path in sorted(folder.glob("*/model.toml")):
        try:
            loaded = bundle.load(path.parent, allow_demo=True)
        except BundleError as e:
            yield Verdict(path.parent.name, False, str(e))
        else:
            yield Verdict(path.parent.name, True, f"{loaded.version}: hashes and golden case hold")


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
            have = 0  # a server that knows no ranges sends all of it again
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with part.open("ab" if have else "wb") as file:
            while piece := response.read(_CHUNK):
                file.write(piece)
                have += len(piece)
                if progress:
                    progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"{have} of {total} bytes came")


def _keep(known: Known, part: Path, folder: Path, source: str) -> Installed:
    digest = _digest(part)
    if not digest.startswith(known.prefix):
        part.unlink()
        raise WeightsError(
            f"{source} has sha256 {digest}, but that of {known.name} begins with {known.prefix}: it is damaged or "
            "another file"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    record = {name: one.sha256 for name, one in installed(folder).items()} | {known.file: digest}
    part.replace(folder / known.file)
    fresh = folder / f"{_RECORD}.new"
    fresh.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(folder / _RECORD)
    return Installed(folder / known.file, digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
