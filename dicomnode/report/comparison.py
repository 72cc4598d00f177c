"""The change since the prior scan in words: points and per cent told apart, beside how far repeated scans differ."""

from collections.abc import Iterator
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
    rate = "" if delta.per_year is None else f"{_amount(name, delta.per_year)} a year"
    limit = REPEATABILITY.get(name)
    if limit is None:
        repeatability = "repeatability not published"
    else:
        where = "within" if abs(delta.absolute) <= limit else "beyond"
        repeatability = f"{where} the repeatability of {_amount(name, limit).lstrip('+')}"
    # Per cent of per cent would be taken for points.
    relative = delta.relative_percent if name == "volume_ml" else None
    changed = _amount(name, delta.absolute) + ("" if relative is None else f" ({signed(relative, 0)} %)")
    return Comparison(name, measure, changed, _levels(name, delta), rate, repeatability)


def _is_share(name: str) -> bool:
    return name.endswith("_percent")


def _unit(name: str) -> str:
    return "%" if _is_share(name) else _UNITS[name.rpartition("_")[2]]


def _amount(name: str, value: float) -> str:
    return f"{signed(value, 1)} points" if _is_share(name) else f"{signed(value, 0)} {_unit(name)}"


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
        return f"{words} is the same ({now} {_unit(name)})"
    went = "rose" if delta.absolute > 0 else "fell"
    by = _amount(name, abs(delta.absolute)).lstrip("+")
    rate = "" if delta.per_year is None else f", {_amount(name, abs(delta.per_year)).lstrip('+')} a year"
    limit = REPEATABILITY.get(name)
    scatter = ""
    if limit is not None:
        where = "within" if abs(delta.absolute) <= limit else "beyond"
        scatter = f", {where} the {whole(limit)} {_unit(name)} that repeated scans differ by"
    return f"{words} {went} by {by} from {prior} to {now} {_unit(name)}{rate}{scatter}"


def interval(days: float) -> str:
    """Return the time between two scans: days, or years with one decimal."""
    return plural(round(days), "day") if days < DAYS_A_YEAR else f"{days / DAYS_A_YEAR:.1f} years"


def day(written: str) -> str:
    """Return a DICOM date (DA) as 2026-01-31; what is no date, as it is."""
    digits = written.replace(".", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdecimal() else written
