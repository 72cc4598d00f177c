"""How a bundle's arms weigh one scan: what each measured number adds, where each network looks.

It tells of the model, not of the patient: what weighs is no cause. Linear models are told exactly; of others nothing is
told rather than something estimated.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.findings import ArmExplanation, Contribution, HeatMap, RiskExplanation
from dicomnode.analysis.risk.covariates import PREFIX as COVARIATE
from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.analysis.risk.encoder import PREFIX as ENCODER
from dicomnode.analysis.risk.fold_models import FoldModels, Networks, Tables, remembered
from dicomnode.analysis.risk.grad_cam import cells
from dicomnode.analysis.risk.preprocess import Spec, prepare, slice_positions
from dicomnode.analysis.risk.queries import Question
from dicomnode.analysis.risk.tabular import Boosting, Cox, TabularModel, TabularNetwork, batch_name

#: Inputs that are told one by one, the largest first; the others are summed.
MOST: Final = 8
#: All numbers of an encoder that somebody brought: one of them by itself means nothing.
EMBEDDING: Final = "encoder"
_UNITS: Final = {"_percent": "%", "_ml": "ml", "_hu": "HU", "_years": "years"}
_KINDS: Final = {Boosting: "boosted trees", TabularNetwork: "neural networks"}


def explain(models: FoldModels, scan: Question, interval: int, years: int) -> RiskExplanation:
    """Return how the arms weigh a scan; those that weigh most first.

    Args:
        models: of the bundle.
        scan: as it was asked; with its embedding where the bundle has an encoder (`FoldModels.encoded`).
        interval: at whose end the risk is that is explained, from 0.
        years: when that is.

    Raises:
        RefusedError: no-lungs.
    """
    total = sum(models.ensemble.weights.values())
    weights = {name: weight / total for name, weight in models.ensemble.weights.items()}
    arms = [_of_table(arm, scan, weights.get(arm.name, 0.0), models.covariates) for arm in models.tables]
    if models.spec is not None and models.networks:
        slices = prepare(scan.volume, scan.labels, models.spec)
        prior = models.prior_of(scan)
        for arm in models.networks:
            found = [cells(net, slices, interval, *remembered(name, net, prior)) for name, net in arm.nets.items()]
            heat = np.mean([one.heat for one in found], axis=0)
            attention = np.mean([one.attention for one in found], axis=0)
            arms.append(_of_network(arm, heat, attention, weights.get(arm.name, 0.0), scan, models.spec))
    return RiskExplanation(years, tuple(sorted(arms, key=lambda one: (-one.weight, one.arm))))


def _of_table(arm: Tables, scan: Question, weight: float, declared: Sequence[Covariate]) -> ArmExplanation:
    linear = [model for model in arm.models if isinstance(model.predictor, Cox)]
    why, count = _why_not(arm.models, len(linear)), len(arm.models)
    if not linear:
        return ArmExplanation(arm.name, round(weight, 6), count, 0, not_explained=why)
    added = contributions(linear, scan.features, scan.scanner)
    ranked = sorted((name for name in added if added[name]), key=lambda name: (-abs(added[name]), name))
    told = tuple(
        Contribution(name, _value(scan.features.get(name)), _unit(name, declared), added[name])
        for name in ranked[:MOST]
    )
    rest = [added[name] for name in ranked[MOST:]]
    return ArmExplanation(
        arm=arm.name,
        weight=round(weight, 6),
        models=count,
        explained=len(linear),
        linear_predictor=sum(added.values()),
        contributions=told,
        others=len(rest),
        others_sum=sum(rest),
        not_explained=why,
    )


def _why_not(models: Sequence[TabularModel], linear: int) -> str:
    """Return which of an arm's models are not told, and why; "" where all are linear."""
    kinds = sorted({_KINDS[type(m.predictor)] for m in models if not isinstance(m.predictor, Cox)})
    if not kinds:
        return ""
    which = f"{len(models) - linear} of {len(models)} fold models ({' and '.join(kinds)})" if linear else kinds[0]
    return f"Not explained: {which}, not linear."


def contributions(
    models: Sequence[TabularModel], features: Mapping[str, float], scanner: Mapping[str, str]
) -> dict[str, float]:
    """Return what each input adds to the linear predictor, by name: the mean over fold models, all of them Cox models.

    Of an input that a fold model does not take it adds nothing there; 0 is the mean of the training scans, and an input
    that is not known stands at the training median. They sum to the mean of the models' linear predictors.

    Args:
        models: of one arm.
        features: of the scan, by name; NaN or missing: not known.
        scanner: `tabular.BATCH_PARTS` by name.

    Raises:
        TypeError: a model is no Cox model.
    """
    added: dict[str, float] = {}
    for model in models:
        if not isinstance(model.predictor, Cox):
            raise TypeError(f"a model of {type(model.predictor).__name__} is not linear")
        harmoniser = model.harmoniser
        row = np.array([[features.get(name, np.nan) for name in harmoniser.features]], np.float64)
        values = harmoniser.apply(row, [batch_name(harmoniser.combat_by, scanner)])[0]
        parts = values * model.predictor.coefficients / len(models)
        for name, part in zip(harmoniser.features, parts, strict=True):
            key = EMBEDDING if name.startswith(ENCODER) else name
            added[key] = added.get(key, 0.0) + float(part)
    return added


def _value(measured: float | None) -> float | None:
    return float(measured) if measured is not None and np.isfinite(measured) else None


def _unit(name: str, declared: Sequence[Covariate]) -> str:
    """Return the unit of an input; "" where it has none."""
    for covariate in declared:
        if name == f"{COVARIATE}{covariate.name}":
            return "" if covariate.unit == "1" else covariate.unit
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    return f"{unit}/year" if unit and name.startswith("change.") else unit


def _of_network(
    arm: Networks,
    heat: NDArray[np.float32],
    attention: NDArray[np.float64],
    weight: float,
    scan: Question,
    spec: Spec,
) -> ArmExplanation:
    """Return the slice of most heat, which its attention enters; where there is no heat, that of most attention."""
    by_slice = heat.sum(axis=(1, 2))
    place = int((by_slice if by_slice.any() else attention).argmax())
    shown = heat[place] / max(float(heat.max()), 1e-30)
    shown_map = HeatMap(
        z_mm=round(float(slice_positions(scan.volume, scan.labels, spec)[place]), 2),
        level=place + 1,
        levels=len(attention),
        attention=round(float(attention[place]), 6),
        cells=tuple(tuple(round(float(value), 4) for value in row) for row in shown),
        size_mm=(spec.canvas[0] * spec.spacing_mm, spec.canvas[1] * spec.spacing_mm),
    )
    return ArmExplanation(arm.name, round(weight, 6), len(arm.nets), len(arm.nets), heat=shown_map)
