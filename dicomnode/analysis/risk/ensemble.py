"""Several arms' risks as one: plain numbers over the arms' hazards, fitted by `training` on out-of-fold predictions."""

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicomnode.analysis.risk.tabular import risk_of_logits

#: Hazards beyond these count as these.
_LEAST, _MOST = 1e-6, 1 - 1e-6


class Ensemble(BaseModel):
    """logit(hazard in interval k) = slope * sum over arms of weights[arm] * logit(arm's hazard in k) + intercepts[k].

    Attributes:
        weights: by arm, none below 0: no arm's ranking is turned round.
        slope, intercepts: the calibration; the slope is above 0, an intercept for each interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: dict[str, float] = Field(min_length=1)
    slope: float = Field(gt=0)
    intercepts: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weighs(self) -> Self:
        if min(self.weights.values()) < 0 or not sum(self.weights.values()) > 0:
            raise ValueError(f"weights {self.weights} must not be negative and not all 0")
        return self

    def combine(self, risks: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Cumulative risk (scans, intervals) from each arm's cumulative risk of the same shape. Never falls."""
        arms = [risks[arm] for arm in self.weights]
        return combined(arms, tuple(self.weights.values()), self.slope, self.intercepts)


def combined(
    risks: Iterable[NDArray[np.float64]], weights: Iterable[float], slope: float, intercepts: Sequence[float]
) -> NDArray[np.float64]:
    """Return the cumulative risk of several arms together, as `Ensemble` states it: (scans, intervals); never falls.

    Args:
        risks: each arm's cumulative risk at the ends of the intervals, (scans, intervals).
        weights: each arm's, in the same order.
        slope: of the calibration.
        intercepts: of the calibration, one an interval.
    """
    mixed = sum(weight * hazard_logits(arm) for arm, weight in zip(risks, weights, strict=True))
    return risk_of_logits(slope * mixed + np.array(intercepts))


def hazards(risks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the discrete hazards h_k = (risk_k - risk_(k-1)) / (1 - risk_(k-1)); both (..., intervals)."""
    before = np.concatenate([np.zeros_like(risks[..., :1]), risks[..., :-1]], axis=-1)
    return (risks - before) / np.maximum(1 - before, 1e-12)


def hazard_logits(risks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logits of `hazards`, kept within those of a millionth (0 and 1 have none); both (..., intervals)."""
    h = np.clip(hazards(risks), _LEAST, _MOST)
    return np.log(h) - np.log1p(-h)
