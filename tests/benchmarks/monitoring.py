"""Model monitoring over simulated years: `python -m tests.benchmarks.monitoring` (some minutes on one core).

Fifty quiet years of a clinic with five scanners (every alarm is a false one), then planted drift: how many of ten
clinics are told by week 10 of what changed in week 8.
"""

from dicomnode.registry.monitor import ModelMonitor, ServedBundle, look
from tests.helpers import populations
from tests.helpers.populations import BUNDLE, MONDAY, WEEK_S, Change, Population

_YEARS, _A_WEEK, _CLINICS = 50, 8, 10
_CHANGES: dict[str, Change] = {
    "kernel": populations.another_kernel,
    "spacing": populations.thicker,
    "sicker patients": populations.sicker,
}


def main() -> None:
    """Print what was found."""
    served = ServedBundle("bundle", BUNDLE, populations.population(300, 1).reference())
    clinic = populations.population(1500, 2)
    quiet = _seen(served, clinic, 52 * _YEARS, _A_WEEK, 7)
    alarms = [(row.name, row.scanner, row.alarms) for row in quiet.drift if row.alarms]
    print(f"{_YEARS} quiet years, {quiet.scans} scans: {len(alarms)} false alarms {alarms or ''}")
    for a_week in (25, 12):
        for name, change in _CHANGES.items():
            found = [_seen(served, clinic, 10, a_week, seed, change) for seed in range(_CLINICS)]
            told = sum(bool(one.raised) for one in found)
            print(f"{name}, {a_week} scans a week: told by week 10 in {told} of {_CLINICS}")


def _seen(
    served: ServedBundle, clinic: Population, weeks: int, a_week: float, seed: int, change: Change | None = None
) -> ModelMonitor:
    stream = clinic.stream(weeks, a_week, seed, change, first=8)
    return look(served, stream, list(populations.risks_of(stream)), [], "2099-01", MONDAY + weeks * WEEK_S)


if __name__ == "__main__":
    main()
