"""Outcomes with censoring: what is known of each scan, and the likelihood that uses no more than that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor  # seconds, and hundreds of MB in each process that only draws or measures

DAYS_PER_YEAR = 365.25
#: Interval edges in years; they contain the horizons 1, 3 and 5.
EDGES_YEARS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
HORIZONS_YEARS = (1, 3, 5)


@dataclass(frozen=True)
class Outcomes:
    """Per scan: years from the scan to death (`event` True) or to the last contact (False). Both shape (scans,)."""

    years: NDArray[np.float64]
    event: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.years.shape != self.event.shape or self.years.ndim != 1:
            raise ValueError(f"years {self.years.shape} and event {self.event.shape} must be equally long rows")
        if not np.all(np.isfinite(self.years)) or np.any(self.years < 0):
            raise ValueError("years to death or last contact must be finite and not negative")

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Outcomes":
        return Outcomes(self.years[rows], self.event[rows])


def status_at(outcomes: Outcomes, horizon: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(dead, known) at `horizon` years. A scan censored before it is not known: neither 0 nor 1."""
    dead = outcomes.event & (outcomes.years <= horizon)
    return dead, dead | (outcomes.years > horizon)


def interval_targets(
    outcomes: Outcomes, edges: tuple[float, ...] = EDGES_YEARS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Discrete-time targets and weights, each (scans, intervals).

    An interval survived counts as 0, the interval of death as 1; intervals after death weigh nothing. The interval in
    which a scan is censored counts by the part of it that was observed.
    """
    start, end = np.array(edges[:-1]), np.array(edges[1:])
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


def hazards(risk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Discrete hazards of each interval from cumulative risks at the intervals' ends; both (..., intervals)."""
    before = np.concatenate([np.zeros_like(risk[..., :1]), risk[..., :-1]], axis=-1)
    return (risk - before) / np.maximum(1 - before, 1e-12)


def hazard_logits(risk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logits of `hazards`, kept within those of a millionth; both (..., intervals)."""
    h = np.clip(hazards(risk), 1e-6, 1 - 1e-6)
    return np.log(h) - np.log1p(-h)


def loss_of_risk(risk: NDArray[np.float64], outcomes: Outcomes) -> float:
    """`negative_log_likelihood` of cumulative risks (scans, intervals) at the ends of `EDGES_YEARS`."""
    targets, weights = interval_targets(outcomes)
    logits = hazard_logits(risk)
    return float((weights * (np.logaddexp(0, logits) - targets * logits)).sum(axis=1).mean())
