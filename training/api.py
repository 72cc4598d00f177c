"""Training from Python, on pandas frames: cohort → features → arm → evaluation, step by step, for notebooks.

```
register       somebody's table of measurements as a registry folder
cohort         which scans are used, with their follow-up, and why others are not
features       the numbers of each scan
cross_validate out-of-fold risks of one arm, nested folds by patient
combine        the ensemble of several arms' risks
evaluate       discrimination and calibration with intervals by patient
```

These are the functions that `training run` calls: the same input, seed and settings give the same numbers. What a run
does beside (record, report, bundle, gate) has no function here: nothing that is served comes from a notebook.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dicomnode.errors import UsageError
from dicomnode.registry_format.provenance import Provenance
from training.data import cohort as cohorts
from training.data import follow_up, splits
from training.data.cohort import FlowStep
from training.data.covariate_types import of_cohort
from training.data.follow_up import Transplant
from training.data.import_columns import ROLES, Asked
from training.data.import_registry import import_table
from training.data.outcomes import HORIZONS_YEARS
from training.data.registry_folder import Registry
from training.data.registry_folder import read as read_registry
from training.evaluation import evaluate as evaluation
from training.evaluation.records import Estimate, Evaluation
from training.evaluation.thresholds import Threshold
from training.features import compute
from training.features.settings import FeatureSettings
from training.models import stacking
from training.models.arm import Data
from training.models.registry import make_arm
from training.run.cross_fit import cross_fit
from training.run.settings import EvaluationSettings


@dataclass(frozen=True)
class StudyCohort:
    """The scans of a study.

    Attributes:
        frame: a row a scan: scan, patient, date, time_years (to death or last contact), event, age_years, sex, scanner.
        flow: who was left out, and why.
        registry: where the scans come from.
    """

    frame: pd.DataFrame
    flow: tuple[FlowStep, ...]
    registry: Registry


def register(
    table: pd.DataFrame,
    out: Path,
    *,
    disease: str,
    source: str,
    time_unit: str = "years",
    columns: Mapping[str, str] | None = None,
) -> Path:
    """Write a registry folder of a table of measurements, with `outcomes.csv`, as `training import` does.

    Args:
        table: a row a scan: a patient, measurements under PyRadiomics' names, time to death or last contact, event.
        out: new folder; the key of its pseudonyms is written beside it, as OUT.key.
        disease: of the patients.
        source: of the data, with their licence.
        time_unit: days, weeks, months or years.
        columns: role (patient, scan, date, time, event) -> column, where its name does not say.

    Returns:
        The registry folder.

    Raises:
        UsageError: something does not fit, with row, column and cure.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        roles = {role: role for role in ROLES if role in table} | dict(columns or {})
        table.to_csv(path, index=False)
        import_table(path, None, out, Asked(roles, time_unit), Provenance(disease, source, (), ""), None)
    return out


def cohort(
    registry: Path, outcomes: Path | None = None, covariates: Path | None = None, transplant: Transplant = "censor"
) -> StudyCohort:
    """Join the scans of a registry with their outcomes.

    Args:
        registry: folder.
        outcomes: CSV; None: `outcomes.csv` in the registry.
        covariates: CSV of lung function; None: none.
        transplant: how a lung transplant is treated: event, censor or ignore.

    Raises:
        UsageError: a table does not fit, or no scan remains.
    """
    source = read_registry(registry)
    ends = follow_up.read_outcomes(registry / "outcomes.csv" if outcomes is None else outcomes)
    given = None if covariates is None else follow_up.read_covariates(covariates)
    made = cohorts.build(source, ends, given, transplant)
    return StudyCohort(made.frame, tuple(made.flow), source)


def features(of: StudyCohort, **settings: Any) -> pd.DataFrame:
    """Return the numbers of each scan, indexed by scan: quantities.*, radiomics.*, change.* a year, covariates.*.

    Args:
        of: the cohort.
        settings: keys of `[features]` in run.toml, such as radiomics=False.

    Raises:
        UsageError: as in a run.
    """
    chosen = FeatureSettings(**{"workers": 1, **settings})
    with tempfile.TemporaryDirectory() as cache:
        declared = of_cohort(of.frame, ())
        found = compute.compute(of.frame, of.registry, chosen, Path(cache), lambda *_: None, declared)
    return found.set_index("scan")


def cross_validate(
    of: StudyCohort,
    table: pd.DataFrame,
    arm: str = "radiomics",
    settings: Mapping[str, object] | None = None,
    *,
    outer: int = 5,
    inner: int = 3,
    seed: int = 1,
    horizons: Sequence[int] = HORIZONS_YEARS,
    work: Path | None = None,
) -> pd.DataFrame:
    """Fit an arm on nested folds by patient, and predict each scan by the model that has not seen its patient.

    Args:
        of: the cohort.
        table: features indexed by scan; columns may be added or dropped beforehand, never by the outcome.
        arm: radiomics, or one that looks at volumes.
        settings: its table of run.toml, `[radiomics]`, `[deep]` or `[encoder]`.
        outer: folds that are predicted in turn.
        inner: folds within, which choose.
        seed: of everything random.
        horizons: years.
        work: folder for the fitted models, which a second call loads; None: they are thrown away.

    Returns:
        A row a scan: arm, scan, patient, fold, risk_1, risk_2, … (probability of death within so many years).

    Raises:
        UsageError: `table` lacks a scan, too few patients died, a setting does not fit.
    """
    if missing := set(of.frame["scan"]) - set(table.index):
        raise UsageError(f"the table lacks {len(missing)} of {len(of.frame)} scans: index it by `scan`")
    outcomes = cohorts.outcomes_of(of.frame, horizons)
    known = of.frame.drop(columns=["time_years", "event"])
    data = Data(of.registry.folder, known, table.loc[known["scan"]].reset_index(drop=True), outcomes)
    drawn = splits.nested(list(data.patients), outcomes.event, seed, outer, inner)
    key = "deep" if arm not in ("radiomics", "encoder") else arm
    model = make_arm(arm, {key: settings or {}})
    with tempfile.TemporaryDirectory() if work is None else nullcontext(str(work)) as folder:
        return cross_fit(model, data, drawn, seed, Path(folder), lambda *_: None)


def combine(
    of: StudyCohort, predictions: Sequence[pd.DataFrame], horizons: Sequence[int] = HORIZONS_YEARS
) -> pd.DataFrame:
    """Return the ensemble's cross-fitted risks, as `cross_validate` returns an arm's: calibrated, also of one arm."""
    by_arm = {str(one["arm"].iloc[0]): one for one in predictions}
    return stacking.stack(by_arm, cohorts.outcomes_of(of.frame, horizons)).predictions


def evaluate(
    of: StudyCohort,
    predictions: Sequence[pd.DataFrame],
    *,
    bootstrap: int = 1000,
    threshold: Threshold = 0.2,
    horizons: Sequence[int] = HORIZONS_YEARS,
) -> Evaluation:
    """Judge risks of models that have not seen the patients; `metrics` makes a frame of it."""
    whole = pd.concat(predictions, ignore_index=True)
    options = EvaluationSettings(bootstrap=bootstrap, threshold=threshold)
    return evaluation.evaluate(of.frame, whole, options, None, horizons)


def metrics(found: Evaluation) -> pd.DataFrame:
    """Return an evaluation as a frame, a row for each arm, horizon and metric: value, lower, upper (95 %).

    NaN stands where a figure cannot be estimated.
    """
    rows = [
        (arm.arm, at.years, name, one.value, one.lower, one.upper)
        for arm in found.arms
        for at in arm.horizons
        for name, one in vars(at).items()
        if isinstance(one, Estimate)
    ]
    frame = pd.DataFrame(rows, columns=["arm", "years", "metric", "value", "lower", "upper"])
    return frame.astype({"value": float, "lower": float, "upper": float})
