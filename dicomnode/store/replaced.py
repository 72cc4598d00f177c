"""What a decision has put out of use: kept in the spool's `replaced/` for `storage.replaced_days`, then deleted.

A file's name is its content's hash, as in the quarantine; a `.json` beside it says of which study it was, and since
when it lies there. The catalogue decides first, then the file moves: a file that a crash left in its study's folder
is brought here by `reconcile`.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dicomnode import files
from dicomnode.errors import SpoolError
from dicomnode.store.spool import Spool

log = logging.getLogger(__name__)

_FOLDER, _QUARANTINE = "replaced", "quarantine"


class Replaced:
    """The area of one spool, and the way out of the quarantine, with files of the same file system.

    Every method raises SpoolError: disk full, no permission.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._folder = spool.root / _FOLDER
        try:
            files.make_folder(self._folder)
        except OSError as error:
            raise _error("make", self._folder, error) from error

    def put(self, path: Path, study_uid: str, sha256: str, now: float) -> Path | None:
        """Move a file here from the spool; None where it has gone already."""
        target = self._folder / f"{sha256}.dcm"
        note = json.dumps({"study_uid": study_uid, "sha256": sha256, "at": now}, indent=1)
        try:
            source = files.within(self._spool.root, path)
            if not source.exists():
                return None
            files.write_whole(target.with_suffix(".json"), note)
            source.rename(target)
            with suppress(FileNotFoundError):
                if source.samefile(target):  # two names of one file (`bring_in`): the renaming did nothing
                    source.unlink()
            files.sync_folder(self._folder)
        except FileNotFoundError:  # the quarantine has just made room
            if not target.exists():
                target.with_suffix(".json").unlink(missing_ok=True)
            return None
        except OSError as error:
            raise _error("move", path, error) from error
        return target

    def find(self, sha256: str) -> Path | None:
        """Return the file with this content, here or in quarantine; None where it has gone."""
        for folder in (_FOLDER, _QUARANTINE):
            path = self._spool.root / folder / f"{sha256}.dcm"
            if path.is_file():
                return path
        return None

    def quarantined(self, sha256: str) -> Path | None:
        """Return the quarantined file with this content; None where it has gone."""
        path = self._spool.root / _QUARANTINE / f"{sha256}.dcm"
        return path if path.is_file() else None

    def bring_in(self, quarantined: Path, place: Path) -> None:
        """Give a quarantined file its place in a study as well; it stays in quarantine until `forget`."""
        try:
            files.make_folder(place.parent)
            if not place.exists():
                os.link(files.within(self._spool.root, quarantined), place)
            os.utime(place)  # as if it had come now: `reconcile` leaves it alone until it is recorded
            files.sync_folder(place.parent)
        except OSError as error:
            raise _error("bring in", quarantined, error) from error

    def has_brought_in(self, path: Path, sha256: str) -> bool:
        """Whether this place in a study is a second name of the quarantined file with this content."""
        quarantined = self.quarantined(sha256)
        try:
            return quarantined is not None and quarantined.samefile(path)
        except FileNotFoundError:  # the quarantine has just made room
            return False
        except OSError as error:
            raise _error("look at", path, error) from error

    def forget(self, sha256: str) -> None:
        """Remove from quarantine what has found its place."""
        path = self._spool.root / _QUARANTINE / f"{sha256}.dcm"
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
        except OSError as error:
            raise _error("remove", path, error) from error

    def tidy(self, before: float) -> int:
        """Delete what came here before this time. Returns how many objects."""
        gone = 0
        for path, at in list(self._dated()):
            if at < before:
                try:
                    path.unlink(missing_ok=True)
                    path.with_suffix(".json").unlink(missing_ok=True)
                except OSError as error:
                    raise _error("remove", path, error) from error
                gone += 1
        return gone

    def _dated(self) -> Iterator[tuple[Path, float]]:
        for path in self._folder.glob("*.dcm"):
            try:
                yield path, float(json.loads(path.with_suffix(".json").read_bytes())["at"])
            except (OSError, ValueError, KeyError, TypeError):
                try:
                    yield path, path.stat().st_ctime
                except FileNotFoundError:
                    continue


def _error(what: str, path: Path, error: OSError) -> SpoolError:
    return SpoolError(f"cannot {what} {path}: {error.strerror or error}; check the spool's disk and permissions")
