"""The arms combined, on out-of-fold predictions alone, and calibrated: plain numbers that a bundle can hold.

The logit of the ensemble's hazard in an interval is `slope * sum(weight * arm's logit) + intercept of the interval`;
weights are not negative and sum to 1, so slope and intercepts are the calibration. All are found together by the
likelihood of discrete hazards with censoring (`training.data.outcomes`). With one arm it is that arm, calibrated.

What is judged is cross-fitted: the predictions of an outer fold come from numbers found on the other folds. It is not
wholly independent of the fold: the other folds' predictions come from arms that were trained with the fold's own
patients and outcomes. That is standard cross-fitted stacking; it can pass on no more than the few numbers of the stack
hold. To take it away too, the arms would have to be fitted anew for each pair of folds.

What is served is found on all folds, and each fold model answers with it: the node gives the mean of these answers,
which no out-of-fold prediction can judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from dicomnode.analysis.risk.ensemble import combined, hazard_logits
from dicomnode.analysis.risk.tabular import Floats
from dicomnode.errors import UsageError
from training.data.outcomes import EDGES_YEARS, Outcomes, interval_targets
from training.data.splits import assert_disjoint

NAME = "ensemble"


def risk_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the columns of a predictions table: the cumulative risk at the end of each interval."""
    return tuple(f"risk_{edge:g}" for edge in edges[1:])


RISKS = risk_names(EDGES_YEARS)
#: Holds numbers in place that the data say nothing about, such as the intercept of an interval without a death.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Stack:
    """How arms become one.

    Attributes:
        arms: names, in the order of `weights`.
        weights: not negative, sum 1.
        slope: of calibration, not negative.
        intercepts: of each interval, added to the logit of its hazard.
        edges: the ends of the intervals, years.
    """

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    slope: float
    intercepts: tuple[float, ...]
    edges: tuple[float, ...] = EDGES_YEARS

    def risk(self, risks: Floats) -> Floats:
        """Cumulative risk of the ensemble (scans, intervals) from that of the arms (arms, scans, intervals)."""
        return combined(risks, self.weights, self.slope, self.intercepts)

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "arms": list(self.arms),
            "weights": list(self.weights),
            "slope": self.slope,
            "intercepts": list(self.intercepts),
            "edges_years": list(self.edges),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Stack":
        """Return the stack that `to_dict` wrote."""
        rows = (tuple(stored["weights"]), float(stored["slope"]), tuple(stored["intercepts"]))
        return cls(tuple(stored["arms"]), *rows, tuple(map(float, stored.get("edges_years", EDGES_YEARS))))


def fit(arms: Sequence[str], risks: Floats, outcomes: Outcomes) -> Stack:
    """Find weights and calibration.

    Args:
        arms: names.
        risks: out-of-fold cumulative risks, (arms, scans, intervals).
        outcomes: of the scans.
    """
    logits = hazard_logits(risks)
    targets, weights = (array.astype(np.float64) for array in interval_targets(outcomes))
    count, (scans, intervals) = len(arms), targets.shape

    def loss(parameters: Floats) -> tuple[float, Floats]:
        mix, intercepts = parameters[:count], parameters[count:]
        mixed = np.tensordot(mix, logits, axes=1) + intercepts
        entropy = weights * (np.logaddexp(0, mixed) - targets * mixed)
        residual = weights * (1 / (1 + np.exp(-mixed)) - targets) / scans
        off = mix - 1 / count
        value = entropy.sum() / scans + _RIDGE * (off @ off + intercepts @ intercepts)
        by_arm = np.array([(residual * arm).sum() for arm in logits]) + 2 * _RIDGE * off
        return float(value), np.concatenate([by_arm, residual.sum(axis=0) + 2 * _RIDGE * intercepts])

    start = np.concatenate([np.full(count, 1 / count), np.zeros(intervals)])
    bounds = [(0.0, None)] * count + [(None, None)] * intervals
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000, "ftol": 1e-14})
    mix, intercepts = found.x[:count], found.x[count:]
    slope = float(mix.sum())
    shares = mix / slope if slope > 0 else np.full(count, 1 / count)
    return Stack(tuple(arms), tuple(shares.tolist()), slope, tuple(intercepts.tolist()), outcomes.edges)


@dataclass(frozen=True)
class Stacked:
    """The stack to serve, those that the ensemble is judged by (one a fold), and the predictions to judge."""

    final: Stack
    folds: Mapping[int, Stack]
    predictions: pd.DataFrame

    def to_dict(self) -> dict[str, object]:
        """`ensemble.json`."""
        folds = [{"fold": fold, **stack.to_dict()} for fold, stack in self.folds.items()]
        return {**self.final.to_dict(), "cross_fitted": folds}


def stack(predictions: Mapping[str, pd.DataFrame], outcomes: Outcomes) -> Stacked:
    """Combine the arms' out-of-fold predictions.

    Args:
        predictions: of each arm: scan, patient, fold, `risk_names`; the same scans in the same order.
        outcomes: of the scans.

    Raises:
        UsageError: the arms were not asked about the same scans and folds.
        LeakageError: a patient stands in two folds.
    """
    arms = tuple(predictions)
    first = predictions[arms[0]].reset_index(drop=True)
    for name, frame in predictions.items():
        if not frame.reset_index(drop=True)[["scan", "patient", "fold"]].equals(first[["scan", "patient", "fold"]]):
            raise UsageError(
                f"the predictions of {name} and {arms[0]} do not cover the same scans and folds: delete them"
            )
    risks = np.stack([frame[list(risk_names(outcomes.edges))].to_numpy(np.float64) for frame in predictions.values()])
    folds, patients = first["fold"].to_numpy(), first["patient"].to_list()
    combined: Floats = np.empty(risks.shape[1:])
    stacks = {}
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        assert_disjoint(patients, inside, outside)
        stacks[int(fold)] = fit(arms, risks[:, outside], outcomes[outside])
        combined[inside] = stacks[int(fold)].risk(risks[:, inside])
    return Stacked(fit(arms, risks, outcomes), stacks, table(NAME, first, combined, outcomes.edges))


def table(
    arm: str, scans: pd.DataFrame, risks: NDArray[np.float64], edges: Sequence[float] = EDGES_YEARS
) -> pd.DataFrame:
    """Return a predictions table of one arm; `scans` has scan, patient, fold, risks are (scans, intervals)."""
    named = pd.DataFrame(risks, columns=list(risk_names(edges)), index=scans.index)
    found = pd.concat([scans[["scan", "patient", "fold"]], named], axis=1)
    found.insert(0, "arm", arm)
    return found.reset_index(drop=True)
