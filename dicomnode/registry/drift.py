"""Has what comes in changed? A sequential test over weeks with a false-alarm rate that is set, and holds.

Each scan's value gets its rank among all before it, ties broken by a digest of the scan's name. As long as the order of
the scans tells nothing, whatever their distribution, these ranks are independent and uniform (Vovk, Gammerman and
Shafer 2005; for deciding whether to retrain: Vovk et al. 2021, PMLR 152, «Retrain or not retrain: conformal test
martingales for change-point detection»). A bet on ranks that lie too high, too low, too far out or too near the middle
then multiplies its stake by 1 on average. One stake is laid each week (Shiryaev and Roberts; as an «e-detector»: Shin,
Ramdas and Rinaldo 2023, New England J Stat Data Sci 2:229): after n quiet weeks all stakes are worth n on average, so
they reach a limit A with a probability of at most n / A.

Scans outside the model's population are bet on likewise: that more than 5 % are, the share which the bundle's limit
keeps.

Population stability indices, which the page shows too, have no such rate: they say how large a difference is.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: At most one false alarm in so many years, over everything that is looked at together.
YEARS_PER_FALSE_ALARM: Final = 200
_WEEKS_A_YEAR: Final = 52.18
#: How much of a stake is laid on a rank; more finds large changes sooner, less finds small ones.
_SHARES: Final = (0.5, 0.95)
#: The share of outside scans that is no news, and the stakes on more.
_OUTSIDE, _OUTSIDE_STAKES = 0.05, (2.0, 5.0, 10.0)
#: So many scans of a week are ranked at once: each among those before it takes a matrix.
_AT_ONCE: Final = 1000
#: So long after the last alarm an input counts as changed: what came after it is what it is compared with from then on.
RAISED_WEEKS: Final = 8


@dataclass(frozen=True)
class ScanValue:
    """One value of a scan in the order of their analysis. `week`: since 1970, see `week_of`."""

    scan: str
    week: int
    value: float | str


@dataclass(frozen=True)
class Drift:
    """What the test says of one input of one scanner ("" for all together).

    Attributes:
        evidence: decimal logarithm of what the stakes are worth after the last complete week.
        limit: at which there is an alarm.
        alarms: weeks at the end of which there was one; the comparison began anew after each.
        scans: how many were looked at.
    """

    name: str
    scanner: str
    evidence: float
    limit: float
    alarms: tuple[int, ...]
    scans: int

    def is_raised(self, week: int) -> bool:
        """Whether an alarm is news in a week."""
        return any(week - RAISED_WEEKS <= alarm <= week for alarm in self.alarms)

    @property
    def since(self) -> int | None:
        """Week of the first of those alarms that lead to the last one, each news when the next came; None: none."""
        first = None
        for alarm in reversed(self.alarms):
            if first is not None and first - alarm > RAISED_WEEKS:
                break
            first = alarm
        return first


def week_of(at: float) -> int:
    """Return the week (from Monday, UTC) of seconds since 1970: 0 is the one that ended on 4 January 1970."""
    return int((at // 86_400 + 3) // 7)


def limit_of(inputs: int, scanner: int) -> float:
    """Return the decimal logarithm of the limit.

    One half of all false alarms is the inputs' of all scanners together, of the other the n-th scanner to appear has
    1 / (n (n + 1)): a scanner that comes later changes nothing for those before.

    Args:
        inputs: how many are looked at.
        scanner: 0 for all together, else its number from 1.
    """
    shared = 2.0 if scanner == 0 else 2.0 * scanner * (scanner + 1)
    return math.log10(inputs * shared * YEARS_PER_FALSE_ALARM * _WEEKS_A_YEAR)


def watch(name: str, scanner: str, seen: Sequence[ScanValue], until: int, limit: float) -> Drift:
    """Test the values of one input.

    Args:
        name: of the input; "outside" has 1.0 for a scan outside the model's population.
        scanner: of the scanner, "" for all.
        seen: in the order of their analysis.
        until: the first week that is not complete.
        limit: decimal logarithm (`limit_of`).
    """
    weeks: dict[int, list[ScanValue]] = {}
    for one in seen:
        if one.week < until:
            weeks.setdefault(one.week, []).append(one)
    alarms: list[int] = []
    detector = _fresh(name, seen)
    worth = detector.worth
    for week in sorted(weeks):
        detector.add(weeks[week])
        worth = detector.worth
        if worth >= limit:
            alarms.append(week)
            detector = _fresh(name, seen)
    return Drift(name, scanner, round(worth, 2), round(limit, 2), tuple(alarms), sum(map(len, weeks.values())))


class _Stakes:
    """What bets are worth, one a row, each with a new stake every week, as natural logarithms."""

    def __init__(self, bets: int) -> None:
        self._logs = np.full(bets, -np.inf)

    @property
    def worth(self) -> float:
        """Decimal logarithm of their mean."""
        top = float(self._logs.max())
        if not math.isfinite(top):
            return -math.inf if top < 0 else top
        return (top + math.log(float(np.exp(self._logs - top).mean()))) / math.log(10)

    def multiply(self, factors: Floats) -> None:
        """Lay the week's stakes, then settle: `factors` (bets, scans)."""
        self._logs = np.logaddexp(self._logs, 0.0) + np.log(factors).sum(axis=1)


class _Ranks:
    """Of numbers: the rank of each among all before it, and the bets on that."""

    def __init__(self) -> None:
        self._stakes = _Stakes(4 * len(_SHARES))
        self._before = np.empty(0)

    @property
    def worth(self) -> float:
        return self._stakes.worth

    def add(self, week: Sequence[ScanValue]) -> None:
        parts = [self._ranked(week[first : first + _AT_ONCE]) for first in range(0, len(week), _AT_ONCE)]
        self._stakes.multiply(_bets(np.concatenate(parts)))

    def _ranked(self, week: Sequence[ScanValue]) -> Floats:
        values = np.array([float(one.value) for one in week])
        earlier = np.tril(np.ones((len(values), len(values)), bool), -1)
        lower = np.searchsorted(self._before, values, "left") + (earlier & (values[None] < values[:, None])).sum(axis=1)
        equal = (
            np.searchsorted(self._before, values, "right")
            - np.searchsorted(self._before, values, "left")
            + (earlier & (values[None] == values[:, None])).sum(axis=1)
        )
        count = len(self._before) + np.arange(1, len(values) + 1)
        self._before = np.sort(np.concatenate([self._before, values]), kind="stable")
        return np.asarray((lower + _ties(week) * (equal + 1)) / count)


class _Words(_Ranks):
    """Of words: the rank of how common each is among all so far."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def _ranked(self, week: Sequence[ScanValue]) -> Floats:
        ranks = []
        for one, tie in zip(week, _ties(week), strict=True):
            self._counts[str(one.value)] += 1
            own = self._counts[str(one.value)]
            rarer = sum(n for n in self._counts.values() if n < own)
            equal = sum(n for n in self._counts.values() if n == own)
            ranks.append((rarer + tie * equal) / self._counts.total())
        return np.array(ranks)


class _TooMany:
    """Of scans outside the model's population."""

    def __init__(self) -> None:
        self._stakes = _Stakes(len(_OUTSIDE_STAKES))

    @property
    def worth(self) -> float:
        return self._stakes.worth

    def add(self, week: Sequence[ScanValue]) -> None:
        outside = np.array([float(one.value) for one in week])
        self._stakes.multiply(1 + np.array(_OUTSIDE_STAKES)[:, None] * (outside - _OUTSIDE))


def _fresh(name: str, seen: Sequence[ScanValue]) -> _Ranks | _TooMany:
    if name == "outside":
        return _TooMany()
    return _Words() if any(isinstance(one.value, str) for one in seen) else _Ranks()


def _bets(ranks: Floats) -> Floats:
    """Return what each bet multiplies its stake by, (bets, scans): higher, lower, further out, nearer the middle."""
    high = 2 * ranks - 1
    out = 2 * np.abs(high) - 1
    return np.array([1 + share * side for share in _SHARES for side in (high, -high, out, -out)])


def _ties(week: Iterable[ScanValue]) -> Floats:
    """Return a number from 0 to 1 for each scan, the same at every look."""
    return np.array([_tie(one.scan) for one in week])


@lru_cache(maxsize=100_000)
def _tie(scan: str) -> float:
    return int.from_bytes(hashlib.sha256(f"tie {scan}".encode()).digest()[:7], "big") / 2**56


def stability_index(expected: Floats, found: Floats, scans: int) -> float:
    """Return the population stability index: the sum over bins of (found - expected) log(found / expected).

    By habit under 0.1 is called stable and above 0.25 changed; about (bins - 1) / scans is what chance makes.

    Args:
        expected: shares, (bins,), 0 to 1.
        found: of `scans`, likewise.
        scans: half of one is added to the bins together, so that an empty one does not make it infinite.
    """
    smooth = 0.5 / max(scans, 1)
    a = (found + smooth / len(found)) / (1 + smooth)
    e = (expected + smooth / len(expected)) / (1 + smooth)
    return float(((a - e) * np.log(a / e)).sum())
