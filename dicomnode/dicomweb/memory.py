"""How much memory the objects of all requests may take together: whoever would take more waits, and is then refused."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dicomnode.dicomweb.problems import busy

_MOST: Final = 4_000_000_000
_WAIT_S: Final = 20.0


class SharedMemory:
    """Bytes that are spoken for. For several threads."""

    def __init__(self, most: int = _MOST, wait_s: float = _WAIT_S) -> None:
        self._most, self._wait_s, self._taken = most, wait_s, 0
        # Reentrant: the collector may give back in the middle of a call of the same thread.
        self._changed = threading.Condition(threading.RLock())

    @property
    def taken(self) -> int:
        """How many bytes are spoken for."""
        return self._taken

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Speak for so many bytes for a while. Raises WebError: 503: there is no room."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)

    def leave_to(self, owner: object, size: int) -> None:
        """Leave bytes that were taken to an object: they are given back when it has gone."""
        weakref.finalize(owner, self.give, size).atexit = False

    def take(self, size: int) -> None:
        """Speak for so many bytes. Raises WebError: 503: there is no room."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken + size <= self._most, self._wait_s):
                raise busy()
            self._taken += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
