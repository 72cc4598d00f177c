"""The change since the prior scan in words: points and per cent told apart, beside how far repeated scans differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dicomnode.analysis.findings import Change, Delta
from dicomnode.analysis.measures.change import DAYS_A_YEAR
from dicomnode.report.numbers import share, signed, whole
from dicomnode.report.published import REPEATABILITY
from dicomnode.words.numerals import plural


@dataclass(frozen=True)
class Comparison:
    """One measure of a change. `change`, `levels`, `rate` and `repeatability` are words, with units; "": none."""

    name: str
    measure: str
    change: str
    levels: str
    rate: str
    repeatability: str

    @property
    def line(self) -> str:
        """All of it: «High attenuation: +9.8 points, 11.9 → 21.7 % (+4.9 points a year); …»."""
        rate = f" ({self.rate})" if self.rate else ""
        return f"{self.measure}: {self.change}, {self.levels}{rate}; {self.repeatability}"


#: By the name in a change; the measures that readers of interstitial disease follow stand first.
MEASURES: Final = {
    "haa_percent": "High attenuation (-600 to -250 HU)",
    "lower_third_rim.haa_percent": "High attenuation, basal rim",
    "dense_percent": "Dense (> -250 HU)",
    "volume_ml": "Lung volume",
    "laa950_percent": "Low attenuation (< -950 HU)",
    "mean_hu": "Mean attenuation",
}
_UNITS: Final = {"ml": "ml", "hu": "HU"}


def comparisons(change: Change) -> Iterator[Comparison]:
    """Yield what changed, in the order of `MEASURES`."""
    for name, measure in MEASURES.items():
        delta = change.measures.get(name)
        if delta is not None:
            yield _compared(name, measure, delta)


def _compared(name: str, measure: str, delta: Delta) -> Comparison:
    levels = _levels(name, delta)
    limit = REPEATABILITY.get(name)
    if limit is None:
        repeatability = "repeatability not published"
    else:
        repeatability = f"{_beside(name, delta, limit)} the repeatability of {_amount(name, limit)}"
    if _is_unseen(name, delta):
        same = _level(name, delta.prior) == _level(name, delta.now)
        return Comparison(name, measure, "unchanged" if same else _least(name), levels, "", repeatability)
    changed = _signed(name, delta.absolute)
    # Per cent of per cent would be taken for points.
    if name == "volume_ml" and delta.relative_percent is not None:
        changed += f" ({signed(delta.relative_percent, 0) if round(delta.relative_percent) else '<1'} %)"
    return Comparison(name, measure, changed, levels, _rate(name, delta, _signed), repeatability)


def _is_share(name: str) -> bool:
    return name.endswith("_percent")


def _decimals(name: str) -> int:
    return 1 if _is_share(name) else 0


def _is_unseen(name: str, delta: Delta) -> bool:
    """Whether a reader sees no difference: in the change, or between the two numbers, as they are written."""
    return not round(delta.absolute, _decimals(name)) or _level(name, delta.prior) == _level(name, delta.now)


def _beside(name: str, delta: Delta, limit: float) -> str:
    """Return where the change lies. It is compared as it is written: 415.2 ml are not «beyond 415 ml»."""
    return "within" if round(abs(delta.absolute), _decimals(name)) <= limit else "beyond"


def _unit(name: str) -> str:
    return "%" if _is_share(name) else _UNITS[name.rpartition("_")[2]]


def _change_unit(name: str) -> str:
    return "points" if _is_share(name) else _unit(name)


def _signed(name: str, value: float) -> str:
    return f"{signed(value, _decimals(name))} {_change_unit(name)}"


def _amount(name: str, value: float) -> str:
    return _signed(name, abs(value)).lstrip("+")


def _rate(name: str, delta: Delta, written: Callable[[str, float], str]) -> str:
    """Return the change a year, "" where there is none; a slow one does not read as none."""
    if delta.per_year is None:
        return ""
    if not round(delta.per_year, _decimals(name)):
        return f"{_least(name)} a year"
    return f"{written(name, delta.per_year)} a year"


def _least(name: str) -> str:
    return f"<{'0.1' if _is_share(name) else '1'} {_change_unit(name)}"


def _level(name: str, value: float) -> str:
    return share(value) if _is_share(name) else whole(value)


def _levels(name: str, delta: Delta) -> str:
    arrow = "\N{RIGHTWARDS ARROW}"
    return f"{_level(name, delta.prior)} {arrow} {_level(name, delta.now)} {_unit(name)}"


def sentence(change: Change) -> str:
    """Return the comparison in one sentence, and in a second one why the scans are not fully comparable."""
    parts = [_clause(name, words, change.measures[name]) for name, words in _SPOKEN if name in change.measures]
    since = f"Compared with the study of {day(change.prior_study_date)} ({interval(change.interval_days)} before)"
    told = f"{since}, {'; '.join(parts)}." if parts else f"{since}, nothing that was measured can be compared."
    doubts = [flag for flag in change.flags if flag.severity != "info"]
    if doubts:
        told += f" NOT FULLY COMPARABLE: {' '.join(flag.text for flag in doubts)}"
    return told


_SPOKEN: Final = (("haa_percent", "high attenuation"), ("volume_ml", "lung volume"))


def _clause(name: str, words: str, delta: Delta) -> str:
    now, prior = _level(name, delta.now), _level(name, delta.prior)
    if now == prior:
        return f"{words} is unchanged ({now} {_unit(name)})"
    if _is_unseen(name, delta):
        return f"{words} differs by {_least(name)} ({prior}, now {now} {_unit(name)})"
    went = "rose" if delta.absolute > 0 else "fell"
    rate = _rate(name, delta, _amount)
    limit = REPEATABILITY.get(name)
    scatter = ""
    if limit is not None:
        scatter = f", {_beside(name, delta, limit)} the {_amount(name, limit)} that repeated scans differ by"
    by = f"{words} {went} by {_amount(name, delta.absolute)} from {prior} to {now} {_unit(name)}"
    return f"{by}{f', {rate}' if rate else ''}{scatter}"


def interval(days: float) -> str:
    """Return the time between two scans: days, or years with one decimal."""
    if days >= DAYS_A_YEAR:
        return f"{days / DAYS_A_YEAR:.1f} years"
    return plural(round(days), "day") if round(days) else "less than a day"


def day(written: str) -> str:
    """Return a DICOM date (DA) as 2026-01-31; what is no date, as it is."""
    digits = written.replace(".", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdecimal() else written
