"""Outcomes with censoring: what is known of each scan, and the likelihood that uses no more than that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk.ensemble import hazard_logits

if TYPE_CHECKING:
    from torch import Tensor  # seconds, and hundreds of MB in each process that only draws or measures

DAYS_PER_YEAR = 365.25
#: Where a run states no others; whole years.
HORIZONS_YEARS = (1, 3, 5)
#: Farther than this nothing is predicted: no CT registry follows its patients so long.
LAST_HORIZON_YEARS = 20


def edges_of(horizons: Sequence[int]) -> tuple[float, ...]:
    """Return the ends of the hazard's yearly intervals, from 0 to the last of the horizons (years)."""
    return tuple(float(year) for year in range(max(horizons) + 1))


def middle_of(horizons: Sequence[int]) -> int:
    """Return the horizon (years) that stands for all where there is room for one: the middle one, or the later one."""
    return sorted(horizons)[len(horizons) // 2]


EDGES_YEARS = edges_of(HORIZONS_YEARS)


@dataclass(frozen=True)
class Outcomes:
    """Per scan: years from the scan to death (`event` True) or to the last contact (False). Both shape (scans,).

    `edges` are the ends of the intervals in which hazards are learnt from them (`edges_of` the run's horizons).
    """

    years: NDArray[np.float64]
    event: NDArray[np.bool_]
    edges: tuple[float, ...] = EDGES_YEARS

    def __post_init__(self) -> None:
        if self.years.shape != self.event.shape or self.years.ndim != 1:
            raise ValueError(f"years {self.years.shape} and event {self.event.shape} must have the same length")
        if not np.all(np.isfinite(self.years)) or np.any(self.years < 0):
            raise ValueError("years to death or last contact must be finite and not negative")

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Outcomes":
        return Outcomes(self.years[rows], self.event[rows], self.edges)


def status_at(outcomes: Outcomes, horizon: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(dead, known) at `horizon` years. A scan censored before it is not known: neither 0 nor 1."""
    dead = outcomes.event & (outcomes.years <= horizon)
    return dead, dead | (outcomes.years > horizon)


def interval_targets(outcomes: Outcomes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Discrete-time targets and weights in the intervals of `outcomes.edges`, each (scans, intervals).

    An interval survived counts as 0, the interval of death as 1; intervals after death weigh nothing. The interval in
    which a scan is censored counts by the part of it that was observed.
    """
    start, end = np.array(outcomes.edges[:-1]), np.array(outcomes.edges[1:])
    years, event = outcomes.years[:, None], outcomes.event[:, None]
    targets = (event & (years > start) & (years <= end)) | (event & (years == 0) & (start == 0))
    weights = np.clip((years - start) / (end - start), 0, 1)
    weights[targets] = 1
    return targets.astype(np.float32), weights.astype(np.float32)


def negative_log_likelihood(logits: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
    """Mean over scans of the logistic-hazard likelihood; all (scans, intervals)."""
    import torch  # noqa: PLC0415

    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="none")
    return loss.sum(dim=1).mean()


def loss_of_risk(risk: NDArray[np.float64], outcomes: Outcomes) -> float:
    """`negative_log_likelihood` of cumulative risks (scans, intervals) at the ends of `outcomes.edges`."""
    targets, weights = interval_targets(outcomes)
    logits = hazard_logits(risk)
    return float((weights * (np.logaddexp(0, logits) - targets * logits)).sum(axis=1).mean())
