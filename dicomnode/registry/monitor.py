"""What the served model is fed, and what it says, from the registry's rows: by week and scanner, until a given time.

Nothing is kept between two looks: the same rows give the same answer. Rows whose lungs are in doubt are left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import numpy as np

from dicomnode.analysis.risk import reference
from dicomnode.analysis.risk.reference import NO_REFERENCE, ReferenceDistribution
from dicomnode.analysis.risk.scan_inputs import NUMBERS, WORDS, ScanInputs, scan_inputs, words_of
from dicomnode.registry import drift, observed
from dicomnode.registry.drift import Drift, ScanValue, week_of
from dicomnode.registry.observed import ObservedExpected
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryRisk, RegistryScan

#: What is looked at beside the model's numbers and words.
_MORE: Final = ("kernel", "scanner", "risk", "outside")
INPUTS: Final = (*NUMBERS, "kernel_family", "sex", *_MORE)
ALL: Final = ""
#: A week of fewer scans shows no medians.
FEWEST: Final = 5
#: By habit, a stability index above this is a change.
CHANGED: Final = 0.25


@dataclass(frozen=True)
class ServedBundle:
    """The bundle that is watched. `sha256` "": none is served, and `reference` None: it has none."""

    name: str
    sha256: str
    reference: ReferenceDistribution | None


@dataclass(frozen=True)
class WeekRow:
    """One week of one scanner ("" for all): how many scans, how many outside, medians of the numbers and the risk."""

    week: str
    scanner: str
    scans: int
    outside: int | None
    medians: Mapping[str, float]


@dataclass(frozen=True)
class Stability:
    """How far a month's values of one input lie from the training population's; `changed`: by more than by chance."""

    name: str
    scanner: str
    scans: int
    index: float
    changed: bool


@dataclass(frozen=True)
class DriftRow:
    """One input of one scanner as `drift.Drift` has it, with weeks as people name them.

    `title` is its name for people, `raised`: it is news now, `since` a week, "" where there was no alarm.
    """

    name: str
    title: str
    scanner: str
    evidence: float | None
    limit: float
    alarms: tuple[str, ...]
    since: str
    raised: bool
    scans: int


@dataclass(frozen=True)
class ModelMonitor:
    """All that the page and the JSON show.

    Attributes:
        format: of the JSON.
        month: that the page is of, "2026-11".
        until: the first day (UTC) that is not looked at.
        bundle: name of the served bundle, "" for none.
        note: what cannot be told, and why; "" for nothing.
        scans: looked at since the first.
        month_scans, month_outside: of the month; None: not known.
        weeks: of the thirteen up to `until`.
        drift: every input of all scanners, then by scanner.
        stability: of the month.
        outcomes: by horizon.
    """

    format: int
    month: str
    until: str
    bundle: str
    note: str
    scans: int
    month_scans: int
    month_outside: int | None
    weeks: tuple[WeekRow, ...]
    drift: tuple[DriftRow, ...]
    stability: tuple[Stability, ...]
    outcomes: tuple[ObservedExpected, ...]

    @property
    def raised(self) -> tuple[DriftRow, ...]:
        """What has changed, and is news."""
        return tuple(row for row in self.drift if row.raised)


@dataclass(frozen=True)
class _Row:
    scan: RegistryScan
    inputs: ScanInputs
    outside: bool | None
    risk: float | None
    scanner: str

    def value(self, name: str) -> float | str | None:
        """Return the value of an input; that a word is not stated any more is news, too."""
        if name in ("scanner", "kernel", "kernel_family", *WORDS):
            stated = {"scanner": self.scanner, "kernel": self.scan.kernel, "kernel_family": self.scan.kernel_family}
            return {**self.inputs.words, **stated}.get(name) or "not stated"
        if name == "outside":
            return None if self.outside is None else float(self.outside)
        number = self.risk if name == "risk" else self.inputs.numbers.get(name)
        return number if number is not None and math.isfinite(number) else None


def look(
    bundle: ServedBundle,
    scans: Sequence[RegistryScan],
    risks: Iterable[RegistryRisk],
    outcomes: Sequence[RegistryOutcome],
    month: str,
    now: float,
) -> ModelMonitor:
    """Look at the registry up to the end of a month, or up to now.

    Args:
        bundle: the served one; risks of others are left out.
        scans: every row.
        risks: every row.
        outcomes: every row.
        month: "2026-11".
        now: UTC seconds since 1970.
    """
    first, last = month_of(month)
    until = min(last, now)
    served = [r for r in risks if r.served and r.bundle_sha256 == bundle.sha256 and r.recorded_at < until]
    of_scan = {r.scan: r for r in served}
    kept = [s for s in scans if not s.doubts and s.recorded_at < until]
    kept.sort(key=lambda s: (s.recorded_at, s.scan))
    rows = [_row(scan, of_scan.get(scan.scan), bundle.reference) for scan in kept]
    of_month = [row for row in rows if row.scan.recorded_at >= first]
    outside = None if bundle.reference is None else sum(bool(row.outside) for row in of_month)
    note = ""
    if not bundle.sha256:
        note = "no bundle is served"
    elif bundle.reference is None:
        note = f"the bundle has {NO_REFERENCE}: scans are compared with earlier ones alone"
    return ModelMonitor(
        format=1,
        month=month,
        until=datetime.fromtimestamp(until, UTC).date().isoformat(),
        bundle=bundle.name,
        note=note,
        scans=len(rows),
        month_scans=len(of_month),
        month_outside=outside,
        weeks=tuple(_weeks(rows, until)),
        drift=tuple(_drift(rows, until)),
        stability=() if bundle.reference is None else tuple(_stability(of_month, bundle.reference)),
        outcomes=tuple(observed.compare(kept, served, outcomes)),
    )


def month_of(month: str) -> tuple[float, float]:
    """Return begin and end of a month in UTC seconds. Raises ValueError: it is none."""
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.timestamp(), after.timestamp()


def inputs_of(scan: RegistryScan) -> ScanInputs:
    """Return a scan's inputs as the node had them when it was analysed."""
    age = {} if scan.age_years is None else {"covariates.age_years": scan.age_years}
    return scan_inputs(
        {**scan.features, **age},
        spacing_z_mm=scan.spacing_z_mm,
        slice_thickness_mm=scan.slice_thickness_mm,
        manufacturer=scan.manufacturer,
        kernel_family=scan.kernel_family,
        sex=scan.sex,
    )


def _row(scan: RegistryScan, risk: RegistryRisk | None, known: ReferenceDistribution | None) -> _Row:
    inputs = inputs_of(scan)
    distance = None if known is None else known.distance(inputs)
    # In per cent, at the longest horizon.
    said = None if risk is None or not risk.risk else 100 * risk.risk[max(risk.risk)]
    scanner = " ".join(f"{scan.manufacturer} {scan.model}".split()) or "not stated"
    return _Row(scan, inputs, None if distance is None else distance.outside, said, scanner)


def _scanners(rows: Sequence[_Row]) -> list[str]:
    """Return the scanners in the order of their first scan."""
    return list(dict.fromkeys(row.scanner for row in rows))


def _drift(rows: Sequence[_Row], until: float) -> Iterable[DriftRow]:
    week = week_of(until)
    for number, scanner in enumerate([ALL, *_scanners(rows)]):
        own = [row for row in rows if scanner in (ALL, row.scanner)]
        limit = drift.limit_of(len(INPUTS), number)
        for name in INPUTS:
            values = ((row, row.value(name)) for row in own)
            seen = [ScanValue(r.scan.scan, week_of(r.scan.recorded_at), v) for r, v in values if v is not None]
            if seen and not (scanner and name == "scanner"):
                yield _told(drift.watch(name, scanner, seen, week, limit), week)


def _told(found: Drift, week: int) -> DriftRow:
    return DriftRow(
        name=found.name,
        title=words_of(found.name),
        scanner=found.scanner,
        evidence=found.evidence if math.isfinite(found.evidence) else None,
        limit=found.limit,
        alarms=tuple(map(named, found.alarms)),
        since="" if found.since is None else named(found.since),
        raised=found.is_raised(week),
        scans=found.scans,
    )


def named(week: int) -> str:
    """Return a week by its ISO name, "2026-W48"."""
    year, number, _ = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=7 * week)).isocalendar()
    return f"{year}-W{number:02d}"


def _weeks(rows: Sequence[_Row], until: float) -> Iterable[WeekRow]:
    for week in range(week_of(until) - 12, week_of(until) + 1):
        of_week = [row for row in rows if week_of(row.scan.recorded_at) == week]
        for scanner in [ALL, *_scanners(of_week)] if of_week else ():
            own = [row for row in of_week if scanner in (ALL, row.scanner)]
            known = [row.outside for row in own if row.outside is not None]
            # Of one or two scans a median is a patient's own value.
            values = {n: _numbers(own, n) for n in (*NUMBERS, "risk")} if len(own) >= FEWEST else {}
            yield WeekRow(
                week=named(week),
                scanner=scanner,
                scans=len(own),
                outside=sum(known) if known else None,
                medians={name: round(median(found), 3) for name, found in values.items() if found},
            )


def _numbers(rows: Sequence[_Row], name: str) -> list[float]:
    return [value for row in rows if isinstance(value := row.value(name), float | int)]


def _stability(rows: Sequence[_Row], known: ReferenceDistribution) -> Iterable[Stability]:
    for scanner in [ALL, *_scanners(rows)]:
        own = [row for row in rows if scanner in (ALL, row.scanner)]
        for number in known.numbers:
            values = [v for row in own if (v := row.inputs.numbers.get(number.name)) is not None and math.isfinite(v)]
            if values:
                expected, found = reference.shares_in_bins(number, values)
                yield _index(number.name, scanner, len(values), expected, found)
        for word in known.words:
            said = [stated for row in own if (stated := row.inputs.words.get(word.name))]
            if said and word.shares and not (scanner and word.name == "manufacturer"):
                expected = np.array([*word.shares.values(), max(0.0, 1 - sum(word.shares.values()))])
                counts = [said.count(value) for value in word.shares]
                found = np.array([*counts, len(said) - sum(counts)]) / len(said)
                yield _index(word.name, scanner, len(said), expected, found)


def _index(name: str, scanner: str, scans: int, expected: drift.Floats, found: drift.Floats) -> Stability:
    index = drift.stability_index(expected, found, scans)
    # Few scans alone make an index of (bins - 1) / scans; three times that is no accident.
    return Stability(name, scanner, scans, round(index, 3), index > max(CHANGED, 3 * (len(found) - 1) / scans))
