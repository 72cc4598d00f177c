"""What several people look at, looked up once for all of them."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLook(Generic[T]):
    """Remembers what was found for a while: a wall of screens costs no more than one. For several threads."""

    def __init__(self, look: Callable[[], T], fresh_s: float) -> None:
        self._look, self._fresh_s = look, fresh_s
        self._lock, self._at = threading.Lock(), 0.0
        self._found: T | None = None

    def found(self) -> T:
        """Return what `look` returns, or returned within the last `fresh_s` seconds. Raises what it raises."""
        with self._lock:
            now = time.monotonic()
            if self._found is None or now - self._at > self._fresh_s:
                self._found, self._at = self._look(), now
            return self._found
