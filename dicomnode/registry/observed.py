"""What became of the patients beside what was predicted: observed over expected deaths, and the AUC, by horizon.

One scan a patient, the first that the served bundle read. Outcomes are read as by export and training: a survivor's
later scan is a contact, a lung transplant ends the follow-up (training's default), and scans on its day or later do not
count. Who is lost to follow-up counts as long as seen: deaths by
Kaplan and Meier, the AUC with inverse probability of censoring weights (Uno 2007, JASA 102:527; cumulative cases,
dynamic controls).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.measures.change import DAYS_A_YEAR
from dicomnode.registry.export import known_alive
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryRisk, RegistryScan

Floats = NDArray[np.float64]
_Z: Final = 1.96
#: Fewer deaths or survivors tell nothing, and might tell whose.
_FEWEST: Final = 5


@dataclass(frozen=True)
class ObservedExpected:
    """How a horizon's predictions hold so far; None: too few deaths or survivors.

    Attributes:
        years: the horizon.
        patients: with a prediction and an outcome.
        deaths: of them within the horizon, as observed.
        expected, observed: probability of death by then: the mean prediction; Kaplan and Meier.
        ratio: observed over expected; `low` and `high`: 95 % interval (Greenwood, on the scale of log(-log)).
        auc: at the horizon.
    """

    years: int
    patients: int
    deaths: int
    expected: float | None = None
    observed: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None


def compare(
    scans: Sequence[RegistryScan],
    risks: Sequence[RegistryRisk],
    outcomes: Sequence[RegistryOutcome],
) -> list[ObservedExpected]:
    """Return how the predictions of one bundle hold, by horizon.

    Args:
        scans: of the registry.
        risks: what the bundle said.
        outcomes: as far as known.
    """
    latest: dict[str, str] = {}
    for scan in scans:
        latest[scan.patient] = max(scan.date, latest.get(scan.patient, ""))
    ends = {one.patient: known_alive(one, latest[one.patient]) for one in outcomes if one.patient in latest}
    said = {one.scan: one.risk for one in risks}
    first: dict[str, tuple[float, float, bool, Mapping[int, float]]] = {}
    for scan in sorted(scans, key=lambda one: (one.recorded_at, one.scan)):
        outcome = ends.get(scan.patient)
        if outcome is None or scan.scan not in said or scan.patient in first:
            continue
        transplant = outcome.transplant_date
        end = transplant or outcome.death_date or outcome.last_contact_date
        if scan.date > end or scan.date == transplant:
            continue
        years = (date.fromisoformat(end) - date.fromisoformat(scan.date)).days / DAYS_A_YEAR
        died = bool(outcome.death_date) and not transplant
        first[scan.patient] = (scan.recorded_at, years, died, said[scan.scan])
    horizons = sorted({years for *_, risk in first.values() for years in risk})
    return [_at(years, [one[1:] for one in first.values() if years in one[3]]) for years in horizons]


def _at(horizon: int, rows: Sequence[tuple[float, bool, Mapping[int, float]]]) -> ObservedExpected:
    time = np.array([row[0] for row in rows])
    died = np.array([row[1] for row in rows], bool)
    risk = np.array([row[2][horizon] for row in rows])
    deaths = int((died & (time <= horizon)).sum())
    if deaths < _FEWEST or int((time > horizon).sum()) < _FEWEST:
        return ObservedExpected(horizon, len(rows), deaths)
    alive, error = survival(time, died, horizon)
    expected = float(risk.mean())
    # log(-log S), and so its interval, rises with the probability of death.
    lower, upper = (1 - alive ** math.exp(sign * _Z * error) for sign in (-1, 1))
    return ObservedExpected(
        horizon,
        len(rows),
        deaths,
        expected,
        1 - alive,
        (1 - alive) / expected,
        lower / expected,
        upper / expected,
        auc(time, died, risk, horizon),
    )


def survival(time: Floats, died: NDArray[np.bool_], at: float) -> tuple[float, float]:
    """Return Kaplan and Meier's estimate at a time, and the standard error of its log(-log).

    Args:
        time: followed for so many years, (patients,).
        died: whether a death ended that, (patients,).
        at: years.
    """
    alive, variance = 1.0, 0.0
    for moment in np.unique(time[died & (time <= at)]):
        under, lost = int((time >= moment).sum()), int((died & (time == moment)).sum())
        alive *= 1 - lost / under
        variance += lost / (under * (under - lost)) if under > lost else 0.0
    return alive, (math.sqrt(variance) / abs(math.log(alive)) if 0 < alive < 1 else 0.0)


def auc(time: Floats, died: NDArray[np.bool_], risk: Floats, at: float) -> float:
    """Return the AUC at a time: cases died by then, weighted for censoring; controls lived longer.

    Args:
        time: followed for so many years, (patients,).
        died: whether a death ended that, (patients,).
        risk: predicted, (patients,), higher is worse.
        at: years.
    """
    cases, controls = died & (time <= at), time > at
    # The probability of being followed just before each death: who dies at a time is still followed at it.
    followed = _followed(time, died, time[cases])
    weight = 1 / followed
    above = (risk[cases][:, None] > risk[controls][None]) + 0.5 * (risk[cases][:, None] == risk[controls][None])
    return float((weight @ above).sum() / (weight.sum() * controls.sum()))


def _followed(time: Floats, died: NDArray[np.bool_], at: Floats) -> Floats:
    """Return Kaplan and Meier's estimate of the share still followed just before each time."""
    moments, ended = np.unique(time[~died], return_counts=True)
    under = len(time) - np.searchsorted(np.sort(time), moments, "right") + ended
    curve = np.concatenate([[1.0], np.cumprod(1 - ended / under)])
    return np.asarray(curve[np.searchsorted(moments, at, "left")], np.float64)
