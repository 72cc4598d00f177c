"""The quarantine has an end: what was refused, its sender still has, and the oldest of it goes first.

What came to the quarantine otherwise (`reconcile`) may have been acknowledged: it stays until a person removes it.
"""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from dicomnode.errors import SpoolError
from dicomnode.store.spool import Incoming, Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: However small they are.
MOST_OBJECTS = 20_000
#: Beside its content each object takes its reason and the disk's blocks, bytes.
_OVERHEAD = 8192
#: An object that would take more than this part of the room is not kept.
_LARGEST_PART = 4
#: When it is full, so much of it stays.
_STAYS = 0.9
#: Objects of this process after which the folder is counted again: other receivers fill it too.
_COUNT_AFTER = 500


class Quarantine:
    """Keeps refused objects within `most_bytes`, over all receivers of a spool. Safe to use from many threads."""

    def __init__(self, spool: Spool, most_bytes: int) -> None:
        self._spool, self._most = spool, most_bytes
        self._bytes = self._objects = 0
        self._since_count = _COUNT_AFTER
        self._lock = threading.Lock()

    def set_aside(self, incoming: Incoming, code: str, text: str, now: float) -> Path | None:
        """As `Spool.set_aside`; None, and the object is gone, where there is no room for it.

        Raises:
            SpoolError: disk full, no permission.
        """
        size = incoming.size + _OVERHEAD
        with self._lock:
            if size * _LARGEST_PART > self._most or not self._has_room(size):
                incoming.discard()
                return None
            path = self._spool.set_aside(incoming, code, text, now)
            self._bytes += size
            self._objects += 1
            self._since_count += 1
        return path

    def _has_room(self, size: int) -> bool:
        if self._since_count < _COUNT_AFTER and self._fits(size):
            return True
        found = sorted(self._found())
        self._bytes, self._objects, self._since_count = sum(one[1] for one in found), len(found), 0
        if self._fits(size):
            return True
        gone = 0
        for _, taken, path in found:
            if self._bytes + size <= self._most * _STAYS and self._objects < MOST_OBJECTS * _STAYS:
                break
            if _may_go(path):
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                self._bytes -= taken
                self._objects -= 1
                gone += 1
        log.warning("the quarantine is full: removed the oldest %d of %s", gone, plural(len(found), "refused object"))
        return self._fits(size)

    def _fits(self, size: int) -> bool:
        return self._bytes + size <= self._most and self._objects < MOST_OBJECTS

    def _found(self) -> Iterator[tuple[float, int, Path]]:
        """Yield (time, bytes, path) of each object."""
        try:
            for path in (self._spool.root / "quarantine").glob("*.dcm"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # another receiver has removed it
                yield status.st_mtime, status.st_size + _OVERHEAD, path
        except OSError as error:
            raise SpoolError(f"cannot count the quarantine: {error.strerror}; check its permissions") from error


def _may_go(path: Path) -> bool:
    """Whether its sender was refused; without a reason beside it, it was not answered yet."""
    try:
        reason = json.loads(path.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return isinstance(reason, dict) and reason.get("was_refused") is True
