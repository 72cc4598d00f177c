"""The arms combined, on out-of-fold predictions alone, and calibrated: plain numbers that a bundle can hold.

The logit of the ensemble's hazard in an interval is `slope * sum(weight * arm's logit) + intercept of the interval`;
weights are not negative and sum to 1, so slope and intercepts are the calibration. All are found together by the
likelihood of discrete hazards with censoring (`training.data.outcomes`), shrunk towards the arms as they are
(`recalibration`). Where combining the arms is not better than the best of them, that one has all the weight
(`selection`). With one arm it is that arm, calibrated.

What is judged is cross-fitted: the predictions of an outer fold come from numbers found on the other folds. It is not
wholly independent of the fold: the other folds' predictions come from arms that were trained with the fold's own
patients and outcomes. That is standard cross-fitted stacking; it can pass on no more than the few numbers of the stack
hold. To take it away too, the arms would have to be fitted anew for each pair of folds.

What is served is found on all folds, and each fold model answers with it: the node gives the mean of these answers,
which no out-of-fold prediction can judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.ensemble import combined
from dicomnode.analysis.risk.tabular import Floats
from dicomnode.errors import UsageError
from training.data.outcomes import EDGES_YEARS, Outcomes
from training.data.splits import assert_disjoint
from training.models import recalibration, selection
from training.models.recalibration import Recalibration, Shrinkage

NAME = "ensemble"


def risk_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the columns of a predictions table: the cumulative risk at the end of each interval."""
    return tuple(f"risk_{edge:g}" for edge in edges[1:])


RISKS = risk_names(EDGES_YEARS)


@dataclass(frozen=True)
class Stack:
    """How arms become one.

    Attributes:
        arms: names, in the order of `weights`.
        weights: not negative, sum 1.
        slope: of calibration, not negative.
        intercepts: of each interval, added to the logit of its hazard.
        edges: the ends of the intervals, years.
        concordance: Harrell's C inside, by candidate: each arm, and `selection.COMBINED`; empty in older runs.
        shrinkage: of weights, slope and intercepts; None in older runs.
    """

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    slope: float
    intercepts: tuple[float, ...]
    edges: tuple[float, ...] = EDGES_YEARS
    concordance: Mapping[str, float] = field(default_factory=dict)
    shrinkage: Shrinkage | None = None

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
            "concordance_inside": dict(self.concordance),
            "shrinkage": None if self.shrinkage is None else asdict(self.shrinkage),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Stack":
        """Return the stack that `to_dict` wrote."""
        rows = (tuple(stored["weights"]), float(stored["slope"]), tuple(stored["intercepts"]))
        shrinkage = stored.get("shrinkage")
        return cls(
            tuple(stored["arms"]),
            *rows,
            edges=tuple(map(float, stored.get("edges_years", EDGES_YEARS))),
            concordance=dict(stored.get("concordance_inside", {})),
            shrinkage=None if shrinkage is None else Shrinkage(**shrinkage),
        )


def fit(
    arms: Sequence[str],
    risks: Floats,
    outcomes: Outcomes,
    patients: Sequence[str],
    shrinkage: Shrinkage = recalibration.WIDEST,
) -> Stack:
    """Combine all arms: find weights and calibration.

    Args:
        arms: names.
        risks: out-of-fold cumulative risks, (arms, scans, intervals).
        outcomes: of the scans.
        patients: of the scans.
        shrinkage: of weights, slope and intercepts.
    """
    found = recalibration.fit(selection.evidence_of(risks, outcomes, patients), shrinkage)
    return _stack_of(arms, tuple(range(len(arms))), found, outcomes.edges, {}, shrinkage)


def choose(
    arms: Sequence[str], risks: Floats, outcomes: Outcomes, patients: Sequence[str], folds: NDArray[np.int64]
) -> Stack:
    """Combine the arms, or serve the best of them; see `selection`.

    Args:
        arms: names.
        risks: out-of-fold cumulative risks, (arms, scans, intervals).
        outcomes: of the scans.
        patients: of the scans.
        folds: of the scans, (scans,): the outer fold that each belongs to, by patient.
    """
    found = selection.choose(risks, outcomes, patients, folds)
    named = {arms[k] if isinstance(k, int) else k: c for k, c in found.concordance.items()}
    return _stack_of(arms, found.arms, found.recalibration, outcomes.edges, named, found.shrinkage)


def _stack_of(
    arms: Sequence[str],
    used: Sequence[int],
    found: Recalibration,
    edges: tuple[float, ...],
    concordance: Mapping[str, float],
    shrinkage: Shrinkage,
) -> Stack:
    slope = float(found.mix.sum())
    shares = found.mix / slope if slope > 0 else np.full(len(used), 1 / len(used))
    weights = dict(zip(used, shares.tolist(), strict=True))
    return Stack(
        arms=tuple(arms),
        weights=tuple(weights.get(arm, 0.0) for arm in range(len(arms))),
        slope=slope,
        intercepts=tuple(found.intercepts.tolist()),
        edges=edges,
        concordance=concordance,
        shrinkage=shrinkage,
    )


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
        known = [patients[row] for row in outside]
        stacks[int(fold)] = choose(arms, risks[:, outside], outcomes[outside], known, folds[outside])
        combined[inside] = stacks[int(fold)].risk(risks[:, inside])
    final = choose(arms, risks, outcomes, patients, folds)
    return Stacked(final, stacks, table(NAME, first, combined, outcomes.edges))


def table(
    arm: str, scans: pd.DataFrame, risks: NDArray[np.float64], edges: Sequence[float] = EDGES_YEARS
) -> pd.DataFrame:
    """Return a predictions table of one arm; `scans` has scan, patient, fold, risks are (scans, intervals)."""
    named = pd.DataFrame(risks, columns=list(risk_names(edges)), index=scans.index)
    found = pd.concat([scans[["scan", "patient", "fold"]], named], axis=1)
    found.insert(0, "arm", arm)
    return found.reset_index(drop=True)
