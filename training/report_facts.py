"""What a run folder tells of itself, gathered for the report. What it lacks is None or empty, never invented."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dicomnode.errors import UsageError
from training.evaluation import Evaluation


@dataclass(frozen=True)
class FlowStep:
    """A box of the flow chart, as `flow.json` has it."""

    step: str
    patients: int
    scans: int
    reason: str


@dataclass(frozen=True)
class Characteristic:
    """A line of the table of who was studied."""

    name: str
    value: str


@dataclass(frozen=True)
class Facts:
    """All that the report says, from one run folder.

    Attributes:
        name: of the run folder.
        run: content of `run.json`.
        registry: content of the registry's `registry.toml`; empty if it is not at hand any more.
        ensemble: content of `ensemble.json`; empty without.
        features: how many columns of each family ("quantities", "radiomics", "change", …).
        missing_percent: of the feature table's cells.
        split: outer folds and their patients; empty without.
    """

    name: str
    evaluation: Evaluation
    flow: tuple[FlowStep, ...]
    characteristics: tuple[Characteristic, ...]
    run: Mapping[str, Any]
    registry: Mapping[str, Any]
    ensemble: Mapping[str, Any]
    features: Mapping[str, int]
    missing_percent: float | None
    split: tuple[int, ...]

    @property
    def synthetic(self) -> bool:
        """Whether no patient stands behind the numbers."""
        return self.registry.get("made_by") == "synthetic" or bool(self.evaluation.oracle)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The run's own, then the evaluation's."""
        return (*map(str, self.run.get("warnings", ())), *self.evaluation.warnings)

    def setting(self, *keys: str) -> Any:
        """A value of the run's settings; None if it has none of that name."""
        value: Any = self.run.get("settings", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read(folder: Path) -> Facts:
    """Gather the facts of a run folder.

    Raises:
        UsageError: it holds no evaluation.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        raise UsageError(f"{path} is missing: evaluate first, with `training run`")
    run = _json(folder / "run.json")
    cohort = pd.read_parquet(folder / "cohort.parquet") if (folder / "cohort.parquet").is_file() else None
    features, missing = _features(folder / "features.parquet")
    return Facts(
        name=folder.resolve().name,
        evaluation=Evaluation.from_json(path.read_text(encoding="utf-8")),
        flow=tuple(FlowStep(**step) for step in _json(folder / "flow.json") or ()),
        characteristics=() if cohort is None else _characteristics(cohort),
        run=run,
        registry=_registry(run),
        ensemble=_json(folder / "ensemble.json"),
        features=features,
        missing_percent=missing,
        split=tuple(len(fold) for fold in _json(folder / "splits.json").get("outer", ())),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _registry(run: Mapping[str, Any]) -> Mapping[str, Any]:
    path = Path(str(run.get("settings", {}).get("registry", ""))) / "registry.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _features(path: Path) -> tuple[dict[str, int], float | None]:
    if not path.is_file():
        return {}, None
    table = pd.read_parquet(path).drop(columns="scan")
    families: dict[str, int] = {}
    for column in table:
        family = str(column).partition(".")[0]
        families[family] = families.get(family, 0) + 1
    return families, float(100 * table.isna().to_numpy().mean()) if table.size else None


def _characteristics(cohort: pd.DataFrame) -> tuple[Characteristic, ...]:
    """Who was studied, by scan: patients come back, older and on other scanners."""
    per_patient = cohort.groupby("patient").size()
    age = cohort["age_years"].dropna()
    found = [
        Characteristic("patients", f"{len(per_patient)}"),
        Characteristic("scans", f"{len(cohort)}"),
        Characteristic("scans a patient", _spread(per_patient.to_numpy(np.float64), 0)),
        Characteristic("age at the scan, years", _spread(age.to_numpy(np.float64), 1)),
        Characteristic("sex", _shares(cohort["sex"])),
        Characteristic("scanner", _shares(cohort["manufacturer"])),
        Characteristic("kernel", _shares(cohort["kernel_family"])),
        Characteristic("slice thickness, mm", _spread(cohort["slice_thickness_mm"].dropna().to_numpy(np.float64), 1)),
        Characteristic("with an earlier scan", _share(cohort["earlier_scan"] != "", len(cohort))),
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
