"""Weights, slope and intercepts of a stack, shrunk towards doing nothing: equal weights, slope 1, intercepts 0.

Each of the three has a normal prior of its own. A small registry says little about calibration, and what it says
wanders from fold to fold, which costs pooled discrimination and gains nothing: so the priors are narrow until the data
say otherwise (`Shrinkage`). Slope and weights turn the arms' logits about their mean, so that a slope that is found a
little differently in another fold does not move the level of risk there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from dicomnode.analysis.risk.tabular import Floats, risk_of_logits

_STEPS, _CONVERGED, _SHORTEST = 50, 1e-9, 1e-4


@dataclass(frozen=True)
class Shrinkage:
    """Standard deviations of the priors.

    Attributes:
        intercepts: of each interval's intercept about 0, on the logit.
        slope: about 1.
        weights: of each arm's weight about the mean of all.
    """

    intercepts: float
    slope: float
    weights: float


#: To choose from, the narrowest of each first: it leaves the arms as they are.
INTERCEPTS, SLOPES, WEIGHTS = (0.01, 0.1, 0.4, 2.0), (0.02, 0.15, 0.5), (0.05, 0.3)
NARROWEST = Shrinkage(INTERCEPTS[0], SLOPES[0], WEIGHTS[0])
WIDEST = Shrinkage(INTERCEPTS[-1], SLOPES[-1], WEIGHTS[-1])


def grid(arms: int) -> tuple[Shrinkage, ...]:
    """Return what there is to choose from for a number of arms; one arm has no weights to shrink."""
    return tuple(Shrinkage(*one) for one in product(INTERCEPTS, SLOPES, WEIGHTS if arms > 1 else WEIGHTS[:1]))


@dataclass(frozen=True)
class Recalibration:
    """logit(hazard in interval k) = sum over arms of `mix` * logit(arm's hazard in k) + `intercepts`[k]."""

    mix: Floats
    intercepts: Floats

    def risk(self, logits: Floats) -> Floats:
        """Return the cumulative risk (scans, intervals) from hazard logits (arms, scans, intervals)."""
        return risk_of_logits(self.logits(logits))

    def logits(self, logits: Floats) -> Floats:
        """Return the hazard's logits, (scans, intervals)."""
        return np.tensordot(self.mix, logits, axes=1) + self.intercepts


@dataclass(frozen=True)
class Evidence:
    """Out-of-fold predictions and outcomes to recalibrate by.

    Attributes:
        logits: hazard logits, (arms, scans, intervals).
        targets: of each interval (`training.data.outcomes.interval_targets`), (scans, intervals).
        weights: of each interval, (scans, intervals).
        patients: the number of each scan's patient, 0, 1, 2, …: scans of one patient share one outcome, so that all
            together count as much as there are patients.
    """

    logits: Floats
    targets: Floats
    weights: Floats
    patients: "np.ndarray[tuple[int], np.dtype[np.intp]]"

    def of(self, rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]", arms: Sequence[int]) -> "Evidence":
        """Return that of some scans and arms."""
        numbers = np.unique(self.patients[rows], return_inverse=True)[1]
        return Evidence(self.logits[list(arms)][:, rows], self.targets[rows], self.weights[rows], numbers)

    @property
    def share(self) -> float:
        """What a scan counts: patients over scans."""
        return float(len(np.unique(self.patients)) / len(self.patients))

    def losses(self, logits: Floats) -> Floats:
        """Return the negative log-likelihood of hazard logits by patient, each the mean of the patient's scans."""
        by_scan = (self.weights * (np.logaddexp(0, logits) - self.targets * logits)).sum(axis=1)
        return np.bincount(self.patients, by_scan) / np.bincount(self.patients)


def fit(evidence: Evidence, shrinkage: Shrinkage) -> Recalibration:
    """Find the mode of the posterior by Newton's method; no arm's weight is negative."""
    arms, _, intervals = evidence.logits.shape
    centre = evidence.logits.mean(axis=1)
    turned, base = evidence.logits - centre[:, None], centre.mean(axis=0)
    prior, pull = _prior(arms, intervals, shrinkage)
    share, targets, weights = evidence.share, evidence.targets, evidence.weights

    def value(at: Floats) -> tuple[float, Floats]:
        logits = np.tensordot(at[:arms], turned, axes=1) + base + at[arms:]
        entropy = weights * (np.logaddexp(0, logits) - targets * logits)
        return float(entropy.sum() * share + at @ prior @ at / 2 - pull @ at), logits

    at = np.concatenate([np.full(arms, 1 / arms), np.zeros(intervals)])
    now, logits = value(at)
    for _ in range(_STEPS):
        hazard = 1 / (1 + np.exp(-logits))
        residual, bend = weights * (hazard - targets) * share, weights * hazard * (1 - hazard) * share
        slopes = np.tensordot(turned, residual, axes=((1, 2), (0, 1)))
        gradient = np.concatenate([slopes, residual.sum(axis=0)]) + prior @ at - pull
        step = np.zeros_like(at)
        free = np.concatenate([(at[:arms] > 0) | (gradient[:arms] < 0), np.ones(intervals, bool)])
        curvature = prior + _curvature(turned, bend)
        step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        length = 1.0
        while True:
            tried = at + length * step
            tried[:arms] = np.maximum(tried[:arms], 0)
            after, logits = value(tried)
            if after <= now or length < _SHORTEST:
                break
            length /= 2
        gained, at, now = now - after, tried, after
        if abs(gained) < _CONVERGED * (1 + abs(now)):
            break
    return Recalibration(at[:arms], base + at[arms:] - at[:arms] @ centre)


def _prior(arms: int, intervals: int, shrinkage: Shrinkage) -> tuple[Floats, Floats]:
    """Precision and pull: -log prior is x' precision x / 2 - pull' x, of weights times slope, and intercepts."""
    precision, pull = np.zeros((arms + intervals,) * 2), np.zeros(arms + intervals)
    precision[:arms, :arms] = 1 / shrinkage.slope**2 + (np.eye(arms) - 1 / arms) / shrinkage.weights**2
    precision[arms:, arms:] = np.eye(intervals) / shrinkage.intercepts**2
    pull[:arms] = 1 / shrinkage.slope**2
    return precision, pull


def _curvature(turned: Floats, bend: Floats) -> Floats:
    """Return the second derivatives of the negative log-likelihood."""
    bent = turned * bend
    across = bent.sum(axis=1)
    own = np.tensordot(bent, turned, axes=((1, 2), (1, 2)))
    return np.block([[own, across], [across.T, np.diag(bend.sum(axis=0))]])
