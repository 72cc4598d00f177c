"""Features that know too much.

One that alone separates the dead from the living was probably made from the outcome. One that says something of a
patient or two alone, and of nobody else, tells who they are, and so what became of them.

Looks at all outcomes, but decides nothing: what it finds stands in the run's record and report, for a person to judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from dicomnode.analysis.risk.tabular import Floats
from training.data.outcomes import HORIZONS_YEARS, Outcomes, status_at

HIGHEST_AUC = 0.98
#: Dead, and living, scans that have the feature; with fewer, chance separates them.
FEWEST = 10
#: A feature that differs in no more patients than these names them, if there are at least `FEWEST_PATIENTS`.
NAMED = 2
FEWEST_PATIENTS = 10


@dataclass(frozen=True)
class Suspicion:
    """A feature that alone tells an outcome ("death within 3 years") almost without fault; `auc` is at least 0.5."""

    feature: str
    outcome: str
    auc: float


def suspicious(
    features: pd.DataFrame, outcomes: Outcomes, horizons: Sequence[int] = HORIZONS_YEARS
) -> tuple[Suspicion, ...]:
    """Features with an AUC above `HIGHEST_AUC` for death by a horizon, among scans known there, or for death at all."""
    asked = {f"death within {years} years": status_at(outcomes, years) for years in horizons}
    asked["death at any time"] = (outcomes.event, np.ones_like(outcomes.event))
    found = []
    for outcome, (dead, known) in asked.items():
        for name in features:
            values = features[name].to_numpy(np.float64)
            judged = known & np.isfinite(values)
            auc = _auc(values[judged], dead[judged])
            if auc > HIGHEST_AUC:
                found.append(Suspicion(str(name), outcome, round(auc, 4)))
    return tuple(found)


def names_patients(features: pd.DataFrame, patients: Sequence[str]) -> tuple[str, ...]:
    """Features that have a value for one or two patients only: for all others it is missing, or one and the same.

    Changes since a prior scan are not judged where few patients have a prior scan: missing is then what they are.
    """
    of = pd.Series(list(patients), index=features.index)
    if of.nunique() < FEWEST_PATIENTS:
        return ()
    found = []
    for name in features:
        values = features[name].dropna()
        holders = of[values.index].nunique()
        if holders > NAMED:
            # The value of most patients says nothing; whoever has another one is told apart by it.
            common = values.groupby(of[values.index]).first().mode().iloc[0]
            holders = of[values.index][values != common].nunique()
        elif str(name).startswith("change."):
            continue
        if 1 <= holders <= NAMED:
            found.append(str(name))
    return tuple(found)


def _auc(values: Floats, dead: NDArray[np.bool_]) -> float:
    cases, controls = int(dead.sum()), int((~dead).sum())
    if min(cases, controls) < FEWEST:
        return 0.5
    auc = (rankdata(values)[dead].sum() - cases * (cases + 1) / 2) / (cases * controls)
    return float(max(auc, 1 - auc))
