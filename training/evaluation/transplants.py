"""How much hangs on what a lung transplant is: the same predictions judged with it as event, censored, and competing.

A transplanted patient can no longer die without one. Censored there, 1 - Kaplan-Meier is the risk of a world without
transplants, if those who get one are like those who do not. As a competing risk (Aalen and Johansen 1978), the
cumulative incidence is the risk of dying untransplanted in this world. Counted as a death, it is the risk of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.outcomes import HORIZONS_YEARS, Outcomes
from training.evaluation import metrics
from training.evaluation.censoring import Floats, cumulative_incidence, kaplan_meier_risk
from training.evaluation.differences import estimate
from training.evaluation.metrics import AtHorizon, at_horizon
from training.evaluation.records import Estimate, TransplantsAt, TransplantTreatment

_NEVER = 1e6


@dataclass(frozen=True)
class Courses:
    """What became of the scans' patients, all (scans,): first of transplant, death, last contact.

    Attributes:
        years: from the scan on.
        died: untransplanted.
        transplanted: before anything else.
    """

    years: Floats
    died: NDArray[np.bool_]
    transplanted: NDArray[np.bool_]


def sensitivity(
    cohort: pd.DataFrame,
    risks: Floats,
    courses: pd.DataFrame,
    bootstrap: int,
    horizons: Sequence[int] = HORIZONS_YEARS,
) -> tuple[TransplantsAt, ...]:
    """Judge one arm's predictions with transplants as event, censored and competing; nothing where there is none.

    Args:
        cohort: scan, patient.
        risks: by the end of each year, (scans, years).
        courses: `training.data.cohort.courses` of these scans; those from after a transplant are left out.
        bootstrap: draws of patients.
        horizons: years.
    """
    of = courses.loc[cohort["scan"]]
    rows = np.flatnonzero(~of["transplanted"].to_numpy(np.bool_) | (of["years"].to_numpy(np.float64) > 0))
    found = Courses(
        of["years"].to_numpy(np.float64)[rows],
        of["died"].to_numpy(np.bool_)[rows],
        of["transplanted"].to_numpy(np.bool_)[rows],
    )
    if not found.transplanted.any():
        return ()
    patients = cohort["patient"].to_numpy()[rows]
    counts = metrics.bootstrap_counts(patients.tolist(), bootstrap, metrics.SEED)
    return tuple(_at(found, patients, risks[rows, years - 1], years, counts) for years in horizons)


def _at(courses: Courses, patients: NDArray[np.object_], risk: Floats, years: int, counts: Floats) -> TransplantsAt:
    by_then = courses.transplanted & (courses.years <= years)
    return TransplantsAt(
        years=years,
        transplanted=int(by_then.sum()),
        patients_transplanted=len(set(patients[by_then])),
        treatments=tuple(_judged(name, courses, risk, years, counts) for name in ("event", "censor", "compete")),
    )


def _judged(treatment: str, courses: Courses, risk: Floats, years: int, counts: Floats) -> TransplantTreatment:
    found: dict[str, list[Floats]] = {name: [] for name in ("observed", "auc", "ratio", "slope", "intercept")}
    for piece in (None, *metrics.in_parts(counts)):
        at, observed = taken(treatment, courses, years, piece)
        expected = (at.counts * risk).sum(axis=-1) / at.counts.sum(axis=-1)
        known = np.isfinite(observed)
        values = (
            observed,
            np.where(known, metrics.auc(at, risk), np.nan),
            observed / expected,
            np.where(known, metrics.calibration_slope(at, risk), np.nan),
            np.where(known, metrics.calibration_intercept(at, risk), np.nan),
        )
        for name, value in zip(found, values, strict=True):
            found[name].append(np.asarray(value))
    return TransplantTreatment(treatment, *map(_estimate, found.values()))


def _estimate(values: list[Floats]) -> Estimate:
    return estimate(float(values[0]), np.concatenate(values[1:] or [np.empty(0)]))


def taken(treatment: str, courses: Courses, years: int, counts: Floats | None = None) -> tuple[AtHorizon, Floats]:
    """Return the scans at a horizon by one treatment, and the observed risk.

    As a competing risk, a transplant is known not to be a death: its scans are controls and weigh as the dead do, by
    the censoring up to the transplant (Blanche et al. 2013, doi:10.1002/sim.5958, definition 2 of the controls).

    Args:
        treatment: "event", "censor" or "compete".
        courses: of the scans.
        years: the horizon.
        counts: of the bootstrap, (..., scans).
    """
    either = Outcomes(courses.years, courses.died | courses.transplanted)
    if treatment == "compete":
        observed = cumulative_incidence(either, courses.died, years, counts)
        known = at_horizon(either, years, counts)
        lived = np.where(courses.transplanted, _NEVER, courses.years)
        return replace(known, outcomes=Outcomes(lived, courses.died), dead=known.dead & courses.died), observed
    outcomes = either if treatment == "event" else Outcomes(courses.years, courses.died)
    return at_horizon(outcomes, years, counts), kaplan_meier_risk(outcomes, years, counts)
