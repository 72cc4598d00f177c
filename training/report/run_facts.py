"""What a run folder tells of itself, gathered for the report. What it lacks is None or empty, never invented."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dicomnode.errors import UsageError
from dicomnode.files import parse_toml
from dicomnode.registry_format.provenance import Provenance
from training.data import former_names
from training.data.cohort import FlowStep
from training.evaluation.inputs import vendors
from training.evaluation.records import Evaluation
from training.explanation.explanation import RunExplanation
from training.explanation.explanation import read as read_explanation
from training.models.arm import DEEP_ARMS
from training.models.edges import at_edge
from training.models.stacking import NAME as ENSEMBLE
from training.report.validation_facts import NAME as VALIDATION
from training.report.validation_facts import ValidationFacts

if TYPE_CHECKING:
    from training.models.deep.settings import DeepSettings


#: Names of characteristics that the checklists ask for.
AGE, SEX = "age at first scan, years (patients)", "sex (patients)"
SCANNER, KERNEL, THICKNESS = "scanner (scans)", "kernel (scans)", "slice thickness, mm (scans)"


@dataclass(frozen=True)
class Characteristic:
    """A line of the table of who was studied."""

    name: str
    value: str


@dataclass(frozen=True)
class RunFacts:
    """All that the report says, from one run folder, or from one of an external validation.

    Attributes:
        name: of the run folder.
        run: content of `run.json`.
        registry: content of the registry's `registry.toml`; empty if it is not at hand any more.
        ensemble: content of `ensemble.json`; empty without.
        features: how many columns of each family ("quantities", "radiomics", "change", …).
        missing: of each family's cells, per cent.
        split: outer folds and their patients; empty without.
        fits: by arm, the content of each fold's `fit.json`.
        networks: the settings in force for the arms that are networks; None without such an arm.
        gate: content of `gate.json`; empty before the run was compared.
        explanation: what the arms look at; None in older runs.
        validation: of an external validation, whose `validation.json` stands in the place of `run.json`; else None.
    """

    name: str
    evaluation: Evaluation
    flow: tuple[FlowStep, ...]
    characteristics: tuple[Characteristic, ...]
    run: Mapping[str, Any]
    registry: Mapping[str, Any]
    ensemble: Mapping[str, Any]
    features: Mapping[str, int]
    missing: Mapping[str, float]
    split: tuple[int, ...]
    fits: Mapping[str, tuple[Mapping[str, Any], ...]]
    networks: "DeepSettings | None"
    gate: Mapping[str, Any] = field(default_factory=dict)
    validation: ValidationFacts | None = None
    explanation: RunExplanation | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that were fitted, without their ensemble and what they are compared with."""
        others = (ENSEMBLE, *self.evaluation.baselines)
        return tuple(result.arm for result in self.evaluation.arms if result.arm not in others)

    @property
    def network_arms(self) -> tuple[str, ...]:
        """Those of the arms that are networks."""
        return tuple(arm for arm in self.arms if arm in DEEP_ARMS)

    @property
    def synthetic(self) -> bool:
        """Whether no patient stands behind the numbers."""
        return self.registry.get("made_by") == "synthetic" or bool(self.evaluation.oracle)

    @property
    def provenance(self) -> Provenance:
        """Who the patients are, as the run wrote it down, else as its registry says."""
        stored = self.run.get("provenance")
        if stored is None:
            return Provenance.of(self.registry)
        return Provenance(**{**stored, "sites": tuple(stored["sites"])})

    @property
    def published(self) -> bool:
        """Whether the study's results may stand beside these: its disease and its horizons."""
        return self.provenance.systemic_sclerosis and [h.years for h in self.evaluation.horizons] == [1, 3, 5]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The run's own, those of the grids that settings were chosen from, then the evaluation's."""
        edges = (text for arm in self.arms for text in at_edge(arm, self.fits.get(arm, ())))
        return (*map(str, self.run.get("warnings", ())), *edges, *self.evaluation.warnings)

    def setting(self, *keys: str) -> Any:
        """Return a value of the run's settings; None if it has none of that name."""
        value: Any = self.run.get("settings", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read(folder: Path) -> RunFacts:
    """Gather the facts of a run folder.

    Raises:
        UsageError: it holds no evaluation.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        raise UsageError(f"{path} does not exist: run the evaluation with `training run` first")
    external = _json(folder / VALIDATION)
    run = external or _json(folder / "run.json")
    stored = folder / "cohort.parquet"
    cohort = pd.read_parquet(stored).rename(columns=former_names.COLUMNS) if stored.is_file() else None
    evaluation = Evaluation.from_json(path.read_text(encoding="utf-8"))
    features, missing = _features(folder / "features.parquet")
    return RunFacts(
        name=folder.resolve().name,
        evaluation=evaluation,
        flow=tuple(FlowStep(**step) for step in _json(folder / "flow.json") or ()),
        characteristics=() if cohort is None else _characteristics(cohort),
        run=run,
        registry=_registry(run),
        ensemble=_json(folder / "ensemble.json"),
        features=features,
        missing=missing,
        split=tuple(len(fold) for fold in _json(folder / "splits.json").get("outer", ())),
        fits={result.arm: _fits(folder / "arms" / result.arm) for result in evaluation.arms},
        networks=_networks(run) if any(result.arm in DEEP_ARMS for result in evaluation.arms) else None,
        gate=_json(folder / "gate.json"),
        validation=ValidationFacts(external) if external else None,
        explanation=read_explanation(folder),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _registry(run: Mapping[str, Any]) -> Mapping[str, Any]:
    path = Path(str(run.get("settings", {}).get("registry", ""))) / "registry.toml"
    return parse_toml(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _features(path: Path) -> tuple[dict[str, int], dict[str, float]]:
    """How many columns each family has, and what share of its cells is missing, per cent."""
    if not path.is_file():
        return {}, {}
    table = pd.read_parquet(path).drop(columns="scan")
    families: dict[str, list[str]] = {}
    for column in table:
        families.setdefault(str(column).partition(".")[0], []).append(str(column))
    gaps = table.isna()
    missing = {family: float(100 * gaps[columns].to_numpy().mean()) for family, columns in families.items()}
    return {family: len(columns) for family, columns in families.items()}, missing


def _fits(arm: Path) -> tuple[Mapping[str, Any], ...]:
    """Return what an arm wrote down in each fold that is done."""
    found = sorted(arm.glob("fold-*/fit.json"), key=lambda path: int(path.parent.name.removeprefix("fold-")))
    return tuple(_json(path) for path in found)


def _networks(run: Mapping[str, Any]) -> "DeepSettings | None":
    """With the defaults worked in; None where today's code does not know what the run was told."""
    from training.models.deep import (  # noqa: PLC0415  (torch: seconds, and only where there are networks)
        settings,
    )

    stored = run.get("settings", {}).get("deep")
    try:
        return None if stored is None else settings.read(stored)
    except UsageError:
        return None


def _characteristics(cohort: pd.DataFrame) -> tuple[Characteristic, ...]:
    """Who was studied, by patient at the first scan, and what was studied, by scan: patients come back."""
    first = cohort.sort_values(["date", "scan"]).drop_duplicates("patient")
    per_patient = cohort.groupby("patient").size().to_numpy(np.float64)
    age, thickness = (
        frame[column].dropna().to_numpy(np.float64)
        for frame, column in ((first, "age_years"), (cohort, "slice_thickness_mm"))
    )
    found = [
        Characteristic("patients", f"{len(first)}"),
        Characteristic(AGE, _spread(age, 1)),
        Characteristic(SEX, _shares(first["sex"])),
        Characteristic("scans", f"{len(cohort)}"),
        Characteristic("scans per patient", _spread(per_patient, 0)),
        Characteristic(SCANNER, _shares(vendors(cohort))),
        Characteristic(KERNEL, _shares(cohort["kernel_family"])),
        Characteristic(THICKNESS, _spread(thickness, 1)),
        Characteristic("with a prior scan (scans)", _share(cohort["prior_scan"] != "", len(cohort))),
    ]
    return tuple(c for c in found if c.value)


def _spread(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], decimals: int) -> str:
    if not values.size:
        return ""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"median {middle:.{decimals}f} (quartiles {low:.{decimals}f} to {high:.{decimals}f})"


def _shares(values: "pd.Series[str]") -> str:
    counts = values.replace("", "unknown").fillna("unknown").value_counts()
    return "; ".join(f"{name}: {count} ({100 * count / len(values):.0f} %)" for name, count in counts.items())


def _share(chosen: "pd.Series[bool]", of: int) -> str:
    return f"{int(chosen.sum())} ({100 * int(chosen.sum()) / of:.0f} %)"
