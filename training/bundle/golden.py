"""The golden case of a bundle: a small phantom with its measured features, and what the models must say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom.phantom import Disease, Phantom, PhantomScanner, chest
from dicomnode.analysis.radiomics import extract
from dicomnode.analysis.risk import golden_case
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.analysis.risk.encoder import PREFIX as ENCODED
from dicomnode.analysis.risk.manifest import Golden, GoldenHorizon
from dicomnode.analysis.risk.tabular import TabularModel, names_of

TOLERANCE = 0.005
SCAN = "golden.safetensors"
_SEED, _SEVERITY, _SHAPE, _SPACING = 7, 0.45, (46, 50, 64), (6.0, 5.0, 5.0)


def question(
    folder: Path,
    tables: Sequence[TabularModel],
    settings: Mapping[str, Any] | None,
    declared: Sequence[Mapping[str, Any]] = (),
) -> Golden:
    """Store the golden scan in `folder`, and measure what the tabular models take of it.

    Args:
        folder: the bundle's.
        tables: the models.
        settings: PyRadiomics' parameter file, None where no model takes radiomics.
        declared: the covariates that the models take.

    Returns:
        The golden case without an answer.
    """
    phantom = _phantom()
    save_file({"hu": torch.from_numpy(phantom.volume.hu), "labels": torch.from_numpy(phantom.labels)}, folder / SCAN)
    return Golden(
        scan=SCAN,
        spacing_mm=_SPACING,
        recipe=f"phantom.chest: seed {_SEED}, shape {_SHAPE}, severity {_SEVERITY}, noise 10 HU",
        features=_features(phantom, tables, settings) | _reference(tables, declared) if tables else {},
        expected=(),
        tolerance=TOLERANCE,
    )


def _phantom() -> Phantom:
    return chest(
        _SEED,
        shape=_SHAPE,
        spacing_mm=_SPACING,
        disease=Disease.of_severity(_SEVERITY),
        scanner=PhantomScanner(noise_hu=10.0),
    )


def phantom_scan() -> tuple[Volume, Labels]:
    """Return the golden scan: its HU, and the labels of its lungs, (z, y, x)."""
    made = _phantom()
    return made.volume, made.labels


def answered(golden: Golden, bundle: Bundle) -> Golden:
    """Return the golden case with the bundle's answer, and with a prior scan where the networks take one.

    The prior scan's codes are half of its own: a change, and one that any network can have.
    """
    stored = (bundle.folder / golden.scan).read_bytes()
    codes = golden_case.answer(bundle, golden, stored).scan_codes
    prior = {name: tuple(round(value / 2, 6) for value in code) for name, code in codes.items()}
    whole = golden.model_copy(update={"codes": prior})
    found = golden_case.answer(bundle, whole, stored).horizons
    expected = tuple(GoldenHorizon(**{k: round(v, 6) for k, v in asdict(h).items()}) for h in found)
    return whole.model_copy(update={"expected": expected})


def _reference(tables: Sequence[TabularModel], declared: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return each category's reference: medians of its indicators would be no patient's."""
    taken = {name for model in tables for name in model.harmoniser.features}
    covariates = [Covariate.model_validate(one) for one in declared]
    return {name: 0.0 for one in covariates if one.type == "category" for name in one.features if name in taken}


def _features(phantom: Phantom, tables: Sequence[TabularModel], settings: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what the models take.

    It is measured, or the training population's median of what a phantom has not (age, lobes).
    """
    # Settings that are not stated are no settings to measure by: the medians stand in.
    texture: dict[str, dict[str, float]] = {}
    if settings is not None and "imageType" in settings:
        texture = extract.by_region(phantom.volume, phantom.labels, settings)[0]
    measured = names_of(quantify.by_region(phantom.volume, phantom.labels), texture)
    found: dict[str, float] = {}
    for model in tables:
        medians = zip(model.harmoniser.features, model.harmoniser.median, strict=True)
        found |= {name: measured.get(name, float(median)) for name, median in medians}
    return {name: value for name, value in sorted(found.items()) if not name.startswith(("change.", ENCODED))}
