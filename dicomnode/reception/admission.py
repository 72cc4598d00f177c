"""How many associations one caller, one address and all together may have, and how many new ones in a minute.

A caller is an AE title at an address. An AE title is easily made up, so the address has a limit of its own. Rates are
token buckets: one minute's number may come at once, then they come as fast as the rate.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from dicomnode.words.numerals import plural

#: Buckets that are remembered; the one that was used longest ago is full again anyway.
_MOST_BUCKETS = 4096


@dataclass(frozen=True)
class CallerLimits:
    """`at_once`: associations at a time; `per_minute`: new ones."""

    at_once: int
    per_minute: int


@dataclass(frozen=True)
class NotAdmitted:
    """Why not, in words for a log; `is_rate`: it is the rate that is too high."""

    text: str
    is_rate: bool


class Admission:
    """Who has a place. Safe to use from many threads."""

    def __init__(self, most: int, per_address: CallerLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._per_address = most, per_address
        self._places: dict[Hashable, tuple[tuple[str, str], str]] = {}
        self._taken: Counter[tuple[str, str] | str] = Counter()
        self._rates = _Rates(clock)
        self._lock = threading.Lock()

    def admit(self, who: Hashable, ae_title: str, address: str, limits: CallerLimits) -> NotAdmitted | None:
        """Give `who` a place until `leave`; `limits` are those of its AE title at its address."""
        caller = (ae_title, address)
        with self._lock:
            if len(self._places) >= self._most:
                return NotAdmitted(f"{plural(self._most, 'association')} open, the limit", is_rate=False)
            for whose, most in ((caller, limits.at_once), (address, self._per_address.at_once)):
                if self._taken[whose] >= most:
                    return NotAdmitted(f"it has {plural(most, 'association')} open, its limit", is_rate=False)
            slow = self._rates.take({caller: limits.per_minute, address: self._per_address.per_minute})
            if slow is not None:
                return NotAdmitted(f"more than {plural(slow, 'association')} in a minute", is_rate=True)
            self._places[who] = (caller, address)
            self._taken.update((caller, address))
        return None

    def leave(self, who: Hashable) -> bool:
        """Give the place back; say whether there was one."""
        with self._lock:
            place = self._places.pop(who, None)
            for whose in place or ():
                self._taken[whose] -= 1
                if not self._taken[whose]:
                    del self._taken[whose]
        return place is not None


class _Rates:
    """Token buckets by name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens, and when

    def take(self, wanted: Mapping[tuple[str, str] | str, int]) -> int | None:
        """Take one token from each, or none: then the rate that is exceeded."""
        now = self._clock()
        left = {}
        for name, per_minute in wanted.items():
            tokens, then = self._buckets.get(name, (float(per_minute), now))
            left[name] = min(tokens + (now - then) * per_minute / 60, per_minute) - 1
            if left[name] < 0:
                return per_minute
        for name, tokens in left.items():
            self._buckets[name] = (tokens, now)
            self._buckets.move_to_end(name)
        while len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return None
