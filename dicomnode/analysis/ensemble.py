"""Several arms' risks as one: plain numbers over the arms' hazards, fitted by `training` on out-of-fold predictions."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicomnode.analysis.tabular import risk_of_logits

#: Hazards beyond these have no finite logit worth the name.
_LEAST, _MOST = 1e-7, 1 - 1e-7


class Ensemble(BaseModel):
    """logit(hazard in interval k) = intercepts[k] + sum over arms of weights[a] * logit(arm a's hazard in interval k).

    The calibration is in these numbers: slopes are factors of the weights, its intercept is part of the intercepts.

    Attributes:
        weights: by arm, none below 0: no arm's ranking is turned round.
        intercepts: by interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: dict[str, float] = Field(min_length=1)
    intercepts: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weighs(self) -> Self:
        if min(self.weights.values()) < 0 or not sum(self.weights.values()) > 0:
            raise ValueError(f"weights {self.weights} must not be negative and not all 0")
        return self

    def combine(self, risks: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Cumulative risk (scans, intervals) from each arm's cumulative risk of the same shape. Never falls."""
        logits = np.array(self.intercepts) + sum(
            weight * hazard_logits(risks[arm]) for arm, weight in self.weights.items() if weight > 0
        )
        return risk_of_logits(logits)


def hazard_logits(risks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of h_k = (risk_k - risk_(k-1)) / (1 - risk_(k-1)); intervals along the last axis."""
    before = np.concatenate([np.zeros_like(risks[..., :1]), risks[..., :-1]], axis=-1)
    hazards = np.clip((risks - before) / np.maximum(1 - before, 1e-12), _LEAST, _MOST)
    return np.log(hazards) - np.log1p(-hazards)
