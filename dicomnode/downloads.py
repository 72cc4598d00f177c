"""Files that others publish: download, and the digest that tells whether what came is what was published.

A file gets its final name only when its digest is right, so what is installed is whole. `installed.json` beside the
files keeps the full SHA-256 of each as it was at installation.
"""

import json
import os
import threading
import time
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
#: Within this a download must end, whatever the server does: a network of 500 MB at 80 kB/s.
TOTAL_S = 2 * 3600.0
#: No published network comes near.
MOST_BYTES = 1 << 30
#: Nobody resumes a download after so long.
_STALE_S = 7 * 86_400
_LONGEST_REASON = 80


class _BadAnswerError(Exception):
    """What came is not part of the file: nothing of it is kept."""


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
        most_bytes: it is not larger; no more is read.
    """

    name: str
    file: str
    what: str
    source: str
    by_hand: str
    most_bytes: int = MOST_BYTES

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
        PeerError: the server did not answer, the connection was cut, or the whole took too long; the part that came is
            kept for a week.
        PeerRejectedError: the server does not have the file, or answered what cannot be it; nothing is kept.
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
    _sweep(folder)
    try:
        _in_time(lambda stop: _download(url, part, known.most_bytes, progress, stop))
    except urllib.error.HTTPError as e:
        e.close()
        said = f"{e.code} {_short(e.reason)}"
        if e.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise PeerError(f"{url}: the server answered {said}; try again later") from e
        raise PeerRejectedError(f"{url}: the server answered {said}; check the mirror's address") from e
    except _BadAnswerError as e:
        part.unlink(missing_ok=True)
        raise PeerRejectedError(f"{url}: {e}; nothing of it was kept. Check the mirror's address") from e
    except (OSError, HTTPException, ValueError) as e:
        why = _short(e.reason if isinstance(e, urllib.error.URLError) else e)
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
    (folder / f"{known.file}.part").unlink(missing_ok=True)
    write_whole(folder / _RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return Installed(folder / known.file, found)


def _sweep(folder: Path) -> None:
    """Remove what downloads of long ago have left."""
    for part in folder.glob("*.part"):
        if part.is_file() and part.stat().st_mtime < time.time() - _STALE_S:
            part.unlink(missing_ok=True)


def _in_time(work: Callable[[threading.Event], None]) -> None:
    """Run `work` for at most `TOTAL_S`; then it is told to stop, and left alone.

    In a thread, because a socket's time-out bounds the silence between two bytes only: a server could take for ever by
    its greeting alone, within urllib and TLS.

    Raises:
        TimeoutError: it did not end; else what `work` raises.
    """
    stop, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001  (raised by the caller)
            failed.append(error)

    thread = threading.Thread(target=run, name="download", daemon=True)
    thread.start()
    try:
        thread.join(TOTAL_S)
    finally:
        stop.set()
    if thread.is_alive():
        raise TimeoutError(f"it took longer than {TOTAL_S:.0f} s")
    if failed:
        raise failed[0]


def _download(url: str, part: Path, most: int, progress: Progress | None, stop: threading.Event) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310  (checked)
    try:
        response = urllib.request.urlopen(request, timeout=_SILENCE_S)  # noqa: S310
    except urllib.error.HTTPError as e:
        if e.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            e.close()
            return  # all of it is here already: the digest decides
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # a server without range requests sends all of it again
        elif not response.headers.get("Content-Range", "").strip().startswith(f"bytes {have}-"):
            raise _BadAnswerError("the server answered with another part of the file than was asked for")
        total = _total(response.headers.get("Content-Length"), have, most)
        with part.open("ab" if have else "wb") as file:
            # read1: what has come, not a whole piece, for which a slow server could take its time.
            while (piece := response.read1(_CHUNK)) and not stop.is_set():
                have += len(piece)
                if have > most:
                    raise _BadAnswerError(f"the server sent more than {most} bytes, so it is not this file")
                file.write(piece)
                if progress:
                    progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"only {have} of {total} bytes received")


def _total(length: str | None, have: int, most: int) -> int | None:
    """Return the size that the file will have; None where the server does not tell."""
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise _BadAnswerError(f"the server told a length that is none ({_short(length)})")
    total = have + int(length)
    if total > most:
        raise _BadAnswerError(f"the server wants to send {total} bytes, the file has at most {most}")
    return total


def _short(text: object) -> str:
    """Return a server's words as they may stand in a message."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:_LONGEST_REASON]
