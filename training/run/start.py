"""A first run.toml for an imported registry: what fits it, and nothing else, is switched on."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tomli_w

from dicomnode.files import write_whole
from training.data.import_registry import ImportSummary
from training.data.matching import Matching
from training.data.registry_folder import read
from training.files import write_json
from training.run.run import make_cohort
from training.run.settings import from_dict

#: Folds from the most to the fewest: each needs as many patients who died, and who survived, as there are parts.
_FOLDS = ((5, 3), (5, 2), (4, 2), (3, 2), (2, 2))


def begin(registry: Path, made: ImportSummary, horizons: Sequence[int]) -> tuple[Path, Matching]:
    """Write `run.toml` and `matching.json` into an imported registry, by what it holds.

    Returns:
        The path of run.toml, and how the tables match.

    Raises:
        UsageError: no scan remains that could be learnt from.
    """
    settings = _settings(registry, made, horizons)
    placed = {"registry": registry, "outcomes": registry / "outcomes.csv"}
    if made.covariates:
        placed["covariates"] = registry / "covariates.csv"
    cohort, found = make_cohort(from_dict({**settings, **placed}, "training import"), read(registry))
    settings["splits"] = _splits(cohort.frame.groupby("patient")["event"].any().to_numpy(np.bool_))
    write_json(registry / "matching.json", asdict(found))
    text = "# Written by `training import`; every key is explained in docs/research/training-run.toml.\n"
    write_whole(registry / "run.toml", text + tomli_w.dumps(settings))
    return registry / "run.toml", found


def _settings(registry: Path, made: ImportSummary, horizons: Sequence[int]) -> dict[str, object]:
    radiomics = any(name.startswith("radiomics.") for name in made.features)
    families = [f for f in ("quantities", "radiomics") if any(name.startswith(f"{f}.") for name in made.features)]
    features: dict[str, object] = {"radiomics": radiomics}
    if made.spacing_mm is not None:
        features["radiomics_spacing_mm"] = made.spacing_mm
    name = re.sub("[^a-z0-9]+", "-", read(registry).provenance.disease.casefold()).strip("-")[:50] or "imported"
    return {
        "registry": ".",
        "outcomes": "outcomes.csv",
        **({"covariates": "covariates.csv"} if made.covariates else {}),
        "out": f"../{registry.resolve().name}-run",
        "horizons": list(horizons),
        "features": features,
        "radiomics": {"families": [*families, "covariates"]},
        "bundle": {"name": f"{name}-risk"},
    }


def _splits(died: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> dict[str, int]:
    fewest = min(int(died.sum()), int((~died).sum()))
    outer, inner = next((folds for folds in _FOLDS if folds[0] * folds[1] <= fewest), _FOLDS[-1])
    return {"outer": outer, "inner": inner}
