"""Intercept and slope of a bundle's hazards at a site, so that what it reports fits there.

logit(hazard) = slope * logit(hazard as it was) + intercept, for every member and interval: with it the bundle keeps its
ranking, and its risk stays monotone in time. Both numbers are found by the likelihood of discrete hazards with
censoring (`training.data.outcomes`) of what a node reports, the mean of the members. Two numbers from hundreds of
patients remember next to nothing of any; still, what is judged is cross-fitted: a patient's risk comes from numbers
that were found on the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from dicomnode.analysis.risk.ensemble import hazard_logits
from dicomnode.analysis.risk.tabular import risk_of_logits
from dicomnode.errors import UsageError
from training.data.outcomes import Outcomes, loss_of_risk

#: Patients who died: ten for each number that is found, by the usual rule.
FEWEST_DEATHS = {1: 10, 2: 20}
FOLDS = 5
#: A slope below this says that the risks hardly go with death: no recalibration mends a ranking.
_FLATTEST = 0.05
_PRECISION, _ROUNDS = 1e-10, 2000


@dataclass(frozen=True)
class SiteFit:
    """What was found."""

    intercept: float
    slope: float

    def risk(self, members: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a node would report, (scans, intervals), from cumulative risks (scans, members, intervals)."""
        moved = risk_of_logits(self.slope * hazard_logits(members) + self.intercept)
        return np.asarray(moved.mean(axis=1))

    def undone(self, members: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the cumulative risks as they were, of recalibrated ones; both (scans, members, intervals)."""
        return risk_of_logits((hazard_logits(members) - self.intercept) / self.slope)


def fit(members: NDArray[np.float64], outcomes: Outcomes, *, slope: bool = True) -> SiteFit:
    """Find intercept and slope.

    Args:
        members: cumulative risks, (scans, members, intervals).
        outcomes: of the scans, in the same intervals.
        slope: whether to find the slope, too; otherwise it is 1.

    Raises:
        UsageError: the risks do not go with death.
    """
    logits = hazard_logits(members)

    def loss(at: NDArray[np.float64]) -> float:
        moved = risk_of_logits((at[1] if slope else 1.0) * logits + at[0])
        return loss_of_risk(np.asarray(moved.mean(axis=1)), outcomes)

    start = np.array([0.0, 1.0] if slope else [0.0])
    how = {"xatol": _PRECISION, "fatol": _PRECISION, "maxiter": _ROUNDS, "maxfev": _ROUNDS}
    # No gradient and no line search: two numbers, and a mean of members that no regression knows.
    found = minimize(loss, start, method="Nelder-Mead", options=how).x
    made = SiteFit(float(found[0]), float(found[1]) if slope else 1.0)
    if made.slope < _FLATTEST:
        raise UsageError(
            f"the slope at this site is {made.slope:.2f}: the risks do not go with death here, and no recalibration "
            "mends a ranking; train a model on the site's patients"
        )
    return made


def cross_fitted(
    members: NDArray[np.float64], outcomes: Outcomes, folds: NDArray[np.int64], *, slope: bool = True
) -> NDArray[np.float64]:
    """Return each scan's risk, (scans, intervals), by numbers that were found on the other folds.

    Args:
        members: as `fit` takes them.
        outcomes: of the scans.
        folds: of the scans, by patient.
        slope: as `fit` takes it.

    Raises:
        UsageError: as `fit`.
    """
    risks = np.empty((len(members), members.shape[2]))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        found = fit(members[outside], outcomes[outside], slope=slope)
        risks[inside] = found.risk(members[inside])
    return risks
