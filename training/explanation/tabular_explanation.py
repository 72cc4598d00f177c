"""Which measured numbers an arm's predictions hang on: out of fold, over a sample of patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.analysis.risk import tabular
from dicomnode.analysis.risk.tabular import Floats
from training.explanation.shapley import explain
from training.models.arm import Data, Rows
from training.models.tabular_arm import batches_of

#: Scans of a fold's training part that the explained ones are compared with, and random orders of the features.
_BACKGROUND, _ORDERS = 100, 10
#: Features that are kept, the most important first.
_KEPT = 15


@dataclass(frozen=True)
class FeatureExplanation:
    """What one feature does.

    Attributes:
        name: of the feature.
        importance: mean absolute Shapley value over the explained scans; of the log cumulative hazard.
        direction: rank correlation of value and Shapley value, -1 to 1: above 0, more of it is more risk.
        folds: in how many fold models it is.
        values: of each scan where its fold model has the feature, rank among these, 0 to 1.
        shapley: of the same scans.
    """

    name: str
    importance: float
    direction: float
    folds: int
    values: tuple[float, ...]
    shapley: tuple[float, ...]


def explain_arm(
    folder: Path, data: Data, folds: Sequence[tuple[Rows, Rows]], interval: int, seed: int
) -> tuple[FeatureExplanation, ...]:
    """Explain the fold models of a tabular arm, each on scans that it has not seen.

    Args:
        folder: of the arm in a run.
        data: all scans.
        folds: of each fold, rows of its training part, and those to explain of its test part.
        interval: at whose end the risk is, from 0.
        seed: of the sample and the orders.
    """
    rng = np.random.default_rng(seed)
    raw: dict[str, list[Floats]] = {}
    added: dict[str, list[Floats]] = {}
    count = 0
    for number, (train, chosen) in enumerate(folds):
        if not len(chosen):
            continue
        model = tabular.read(folder / f"fold-{number}" / "model.json")
        names = model.harmoniser.features
        compared = np.sort(rng.choice(train, min(_BACKGROUND, len(train)), replace=False))
        values = {}
        for key, rows in (("explained", chosen), ("compared", compared)):
            table = data.features[list(names)].to_numpy(np.float64)[rows]
            values[key] = model.harmoniser.apply(table, batches_of(data, rows, model.harmoniser.combat_by))
        found = explain(model.predictor, interval, values["explained"], values["compared"], _ORDERS, seed + number)
        count += len(chosen)
        for index, name in enumerate(names):
            raw.setdefault(name, []).append(values["explained"][:, index])
            added.setdefault(name, []).append(found[:, index])
    every = [_one(name, raw[name], added[name], count) for name in added]
    return tuple(sorted(every, key=lambda one: (-one.importance, one.name))[:_KEPT])


def _one(name: str, raw: list[Floats], added: list[Floats], count: int) -> FeatureExplanation:
    values, shapley = np.concatenate(raw), np.concatenate(added)
    ranks = _ranks(values)
    spread = np.std(ranks) * np.std(by := _ranks(shapley))
    direction = float(np.mean((ranks - ranks.mean()) * (by - by.mean())) / spread) if spread > 0 else 0.0
    return FeatureExplanation(
        name=name,
        importance=float(np.abs(shapley).sum() / count),  # a fold model without the feature adds nothing
        direction=round(direction, 3),
        folds=len(added),
        values=tuple(round(float(v), 3) for v in ranks),
        shapley=tuple(round(float(v), 5) for v in shapley),
    )


def _ranks(values: Floats) -> Floats:
    """Return the share of values below each, ties alike, 0 to 1."""
    return np.searchsorted(np.sort(values), values, side="left") / max(len(values) - 1, 1)
