"""Features that know too much: one that alone separates the dead from the living was probably made from the outcome.

Looks at all outcomes, but decides nothing: what it finds stands in the run's record and report, for a person to judge.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dicomnode.analysis.tabular import Floats
from training.outcome import HORIZONS_YEARS, Outcomes, status_at

HIGHEST_AUC = 0.98
#: Dead, and living, scans that have the feature; with fewer, chance separates them.
FEWEST = 10


@dataclass(frozen=True)
class Suspicion:
    """A feature that alone ranks death within `years` almost without fault; `auc` is at least 0.5."""

    feature: str
    years: int
    auc: float


def suspicious(features: pd.DataFrame, outcomes: Outcomes) -> tuple[Suspicion, ...]:
    """Features with an AUC above `HIGHEST_AUC` at a horizon, among scans whose status there is known."""
    found = []
    for years in HORIZONS_YEARS:
        dead, known = status_at(outcomes, years)
        for name in features:
            values = features[name].to_numpy(np.float64)
            judged = known & np.isfinite(values)
            auc = _auc(values[judged], dead[judged])
            if auc > HIGHEST_AUC:
                found.append(Suspicion(str(name), years, round(auc, 4)))
    return tuple(found)


def _auc(values: Floats, dead: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    cases, controls = int(dead.sum()), int((~dead).sum())
    if min(cases, controls) < FEWEST:
        return 0.5
    auc = (rankdata(values)[dead].sum() - cases * (cases + 1) / 2) / (cases * controls)
    return float(max(auc, 1 - auc))
