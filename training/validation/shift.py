"""How a site's patients differ from those that a bundle was trained on, by the predictors that it takes.

The training population is known by what its models keep: each feature's mean and SD after harmonisation, and the range
that values are clipped to. Of several fold models the mean stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.tabular import TabularModel
from training.models.arm import Data


@dataclass(frozen=True)
class Shift:
    """One predictor at a site and in training.

    Attributes:
        here, trained: means.
        difference: of the means, in SD of training.
        outside: share of the site's scans beyond the range that training has seen, 0 to 1.
        missing: share of the site's scans without a value.
    """

    feature: str
    here: float
    trained: float
    difference: float
    outside: float
    missing: float


def shifts(bundle: Bundle, data: Data) -> tuple[Shift, ...]:
    """Return each predictor's shift, the largest first; none for bundles of networks alone."""
    models = [model for arm in bundle.models.tables for model in arm.models]
    found = (one for feature in bundle.manifest.features for one in _shift(feature, models, data))
    return tuple(sorted(found, key=lambda one: -abs(one.difference)))


def _shift(feature: str, models: list[TabularModel], data: Data) -> Iterator[Shift]:
    of = [(m.harmoniser, m.harmoniser.features.index(feature)) for m in models if feature in m.harmoniser.features]
    if not of or feature not in data.features:
        return
    values = data.features[feature].to_numpy(np.float64)
    known = values[np.isfinite(values)]
    if not known.size:
        return
    mean, sd, low, high = (float(np.mean([getattr(h, k)[i] for h, i in of])) for k in ("mean", "sd", "low", "high"))
    outside = float(((known < low) | (known > high)).mean())
    yield Shift(
        feature, float(known.mean()), mean, (float(known.mean()) - mean) / sd, outside, 1 - len(known) / len(values)
    )
