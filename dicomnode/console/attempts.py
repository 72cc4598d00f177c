"""How often somebody may try to log in: by name and by address, in bounded memory."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 900.0
MOST_BY_NAME: Final = 10
MOST_BY_ADDRESS: Final = 30
#: Of all together: who calls from many addresses is slowed down too.
MOST: Final = 300
#: Names and addresses that are remembered; the one that was quiet longest is forgotten.
_MOST_KEYS = 10_000


class LoginAttempts:
    """Counts attempts that have not succeeded, in windows of `WINDOW_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._counts: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def begin(self, name: str, address: str) -> float:
        """Count an attempt before it is judged, so that many at once are counted too.

        Returns 0; or, where there were too many, the seconds until the next may be made, and counts nothing.
        """
        now = self._clock()
        with self._lock:
            waits = [self._wait(key, most, now) for key, most in _keys(name, address)]
            if max(waits) > 0:
                return max(waits)
            for key, _ in _keys(name, address):
                since, count = self._counts.pop(key, (now, 0))
                self._counts[key] = (since, count + 1)
            while len(self._counts) > _MOST_KEYS:
                self._counts.popitem(last=False)
        return 0.0

    def succeeded(self, name: str, address: str) -> None:
        """Take the last attempt back: it was the user's own."""
        with self._lock:
            for key, _ in _keys(name, address):
                if key in self._counts:
                    since, count = self._counts[key]
                    self._counts[key] = (since, max(0, count - 1))

    def _wait(self, key: tuple[str, str], most: int, now: float) -> float:
        since, count = self._counts.get(key, (now, 0))
        if now - since >= WINDOW_S:
            self._counts.pop(key, None)
            return 0.0
        return since + WINDOW_S - now if count >= most else 0.0


def _keys(name: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return ((("name", name), MOST_BY_NAME), (("address", address), MOST_BY_ADDRESS), (("all", ""), MOST))
