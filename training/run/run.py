"""A run, from registry and outcomes to report and bundle, in steps that a run folder remembers.

cohort → splits → features → arms → ensemble → baselines → evaluation → explanation → report → bundle.
Killed and started again, it goes on where it was: a step that is done is not repeated, an arm goes on inside its fold.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.errors import UsageError
from dicomnode.files import sha256_of, write_whole
from dicomnode.registry_format.description import NAME as DESCRIPTION
from training.data import cohort, covariate_types, follow_up, split_kinds
from training.data.matching import Matching, matching
from training.data.outcomes import HORIZONS_YEARS
from training.data.registry_folder import Registry
from training.data.registry_folder import read as read_registry
from training.data.splits import Nested
from training.evaluation.bar import departures
from training.features import compute
from training.features.leak_checks import names_patients, suspicious
from training.files import alone, digest, write_json
from training.models import stacking
from training.models.arm import VOLUME_ARMS, Arm, Data
from training.models.baseline_settings import columns_of
from training.models.registry import check_files, make_arm
from training.progress_type import ProgressCallback
from training.run import volume_digests
from training.run.cross_fit import cross_fit
from training.run.provenance_settings import of_run
from training.run.record import Record
from training.run.settings import RunSettings, defaults

#: Settings that may change when a finished run is started again: only what hangs on them is then done anew.
_LATE = ("baselines", "evaluation", "explanation", "bundle", "gate", "provenance")
#: Those that change no number: how many share the work, and where files lie (what they hold has a digest).
_FREE = tuple(
    f"settings.{name}"
    for name in (
        *("features.workers", "deep.workers", "deep.cache", "deep.pretrained.*.path"),
        *("splits.groups", "encoder.path", "encoder.cache", "encoder.licence", "encoder.redistribute"),
    )
)
#: Settings that a run begun by an older version does not know: there they had the value that is the default today.
_DEFAULTS = {"settings": {name: value for name, value in defaults().items() if name not in _LATE}}


@dataclass(frozen=True)
class _Run:
    """What all steps need."""

    folder: Path
    settings: RunSettings
    registry: Registry
    record: Record
    arms: tuple[Arm, ...]
    progress: ProgressCallback


def run(settings: RunSettings, toml: str, progress: ProgressCallback, until: str = "bundle") -> Path:
    """Make the run that the settings describe, or what is missing of it.

    Args:
        settings: of the run.
        toml: the text that they were read from; it is kept in the run folder.
        progress: told about each stage.
        until: the last step to do, of `STEPS`.

    Returns:
        The run folder.

    Raises:
        UsageError: input does not fit, the folder holds another run, or is in use by one.
        LeakageError: a patient stands on both sides of a split.
    """
    if until not in (names := [step.name for step in STEPS]):
        raise UsageError(f"unknown step {until!r}: use {', '.join(names)}")
    tables = settings.arm_tables
    arms = tuple(make_arm(name, tables) for name in settings.arms)
    registry = read_registry(settings.registry)
    folder = settings.out
    for name in settings.arms:
        if not _predictions(folder, name).is_file():
            check_files(name, tables)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder} is in use by another run: wait for it to end, or choose another out"
    with alone(folder / ".lock", busy):
        record = Record(folder, settings.model_dump(mode="json"), _fixed(settings, registry), _FREE, _DEFAULTS)
        _state_provenance(settings, registry, record)
        write_whole(folder / "run.toml", toml)
        if asked := departures(settings.gate.model_dump(), settings.horizons):
            record.warn(
                f"[gate] asks for {', '.join(asked)}, and sets nothing: the node's gate.toml does (weights folder)"
            )
        run_ = _Run(folder, settings, registry, record, arms, progress)
        for step in STEPS[: names.index(until) + 1]:
            key = digest(*(getattr(settings, name).model_dump() for name in step.settings))
            record.step(step.name, key, folder / step.output, partial(step.work, run_))
    return folder


_UNSTATED = "neither the registry nor the settings state"


def _state_provenance(settings: RunSettings, registry: Registry, record: Record) -> None:
    """Write down who the patients are; ask, where neither the registry nor the settings say."""
    found = of_run(settings.provenance, registry.about)
    record.content["warnings"] = [text for text in record.content["warnings"] if not text.startswith(_UNSTATED)]
    lacking = [name for name in ("disease", "source", "sites") if not getattr(found, name)]
    if lacking and not registry.synthetic:
        keys = ", ".join(f"provenance.{name}" for name in lacking)
        record.warn(f"{_UNSTATED} {', '.join(lacking)}: state it ({keys})")
    record.put(provenance=asdict(found))


def _fixed(settings: RunSettings, registry: Registry) -> dict[str, object]:
    """Return what may not change between the starts of one run."""
    paths = {"registry", "outcomes", "covariates", "out"}
    groups = split_kinds.groups_path(settings.splits.asked, settings.registry)
    files = {"outcomes": settings.outcomes, "covariates": settings.covariates, "groups": groups}
    digests = {k: sha256_of(v) for k, v in files.items() if v is not None and v.is_file()}
    stable = settings.model_dump(mode="json", exclude={*paths, *_LATE})
    return {"settings": stable, "sha256": {"registry": registry.sha256, **digests}}


def free_covariates(settings: RunSettings, registry: Registry) -> tuple[Covariate, ...]:
    """Return what registry and settings declare beside age, sex and lung function.

    Raises:
        UsageError: a declaration does not fit, or they contradict each other.
    """
    stored = registry.about.get("covariates", {})
    assert isinstance(stored, dict), "read_description has seen to it"
    own = covariate_types.declared(stored, f"{registry.folder / DESCRIPTION}: covariates")
    return covariate_types.joined(own, covariate_types.declared(settings.covariate_types, "covariate_types"))


def make_cohort(settings: RunSettings, registry: Registry) -> tuple[cohort.Cohort, Matching]:
    """Return the cohort of a run's tables (`training.data.cohort.build`), and how they match."""
    outcomes = follow_up.read_outcomes(settings.outcomes)
    free = free_covariates(settings, registry)
    covariates = None if settings.covariates is None else follow_up.read_covariates(settings.covariates, free=free)
    found = matching(registry, outcomes, covariates, free)
    return cohort.build(registry, outcomes, covariates, settings.cohort.transplant), found


def _cohort(run_: _Run) -> None:
    path = run_.folder / "cohort.parquet"
    made, found = make_cohort(run_.settings, run_.registry)
    if path.is_file() and not cohort.load(path).equals(made.frame):
        raise UsageError(f"{path} was made from different input or settings: delete it")
    cohort.save(made, path)
    write_json(run_.folder / "matching.json", asdict(found))
    for text in found.warnings:
        run_.record.warn(text)
    methods = run_.registry.scans["algorithm_digest"].nunique()
    if methods > 1:
        run_.record.warn(f"the registry's features come from {methods} versions of the method (algorithm_digest)")


def _hash_volumes(run_: _Run) -> None:
    """Of the volumes that the run reads: the networks' and those that are measured here."""
    frame = cohort.load(run_.folder / "cohort.parquet")
    reads = any(arm.name in VOLUME_ARMS for arm in run_.arms) or not run_.registry.lungs_alone
    volumes = frame["volume"].to_list() if reads else []
    run_.record.put(volumes=volume_digests.record(run_.folder, run_.registry.folder, volumes, run_.progress))


def _splits(run_: _Run) -> None:
    frame = cohort.load(run_.folder / "cohort.parquet")
    drawn = split_kinds.draw(frame, run_.registry, run_.settings.seed, run_.settings.splits.asked)
    drawn.nested.check(frame["patient"].to_list())
    drawn.nested.save(run_.folder / "splits.json")
    run_.record.put(split_sha256=drawn.nested.sha256, split=dict(drawn.facts))


def _features(run_: _Run) -> None:
    frame = cohort.load(run_.folder / "cohort.parquet")
    declared = covariate_types.of_cohort(frame, free_covariates(run_.settings, run_.registry))
    _hash_volumes(run_)
    found = compute.compute(
        frame, run_.registry, run_.settings.features, run_.folder / "measured", run_.progress, declared
    )
    write_whole(run_.folder / "features.parquet", found.to_parquet(index=False))
    if "covariates" in run_.settings.radiomics.families:
        for text in covariate_types.gaps(found, declared):
            run_.record.warn(text)
    odd = suspicious(found.drop(columns="scan"), cohort.outcomes_of(frame), run_.settings.horizons)
    for one in odd:
        run_.record.warn(
            f"{one.feature} alone predicts {one.outcome} (AUC {one.auc:.3f}): was it derived from the outcome?"
        )
    naming = names_patients(found.drop(columns="scan"), frame["patient"].to_list())
    if naming:
        more = f" and {len(naming) - 3} more" if len(naming) > 3 else ""
        which = ", ".join(naming[:3]) + more
        run_.record.warn(f"only one or two patients have a value of {which}: does it identify them?")
    run_.record.put(
        suspicious_features=[asdict(one) for one in odd],
        naming_features=list(naming),
        radiomics_settings=compute.radiomics_settings_of(run_.registry, run_.settings.features),
        covariates=[one.model_dump(mode="json") for one in declared],
        sha256={name: sha256_of(run_.folder / f"{name}.parquet") for name in ("cohort", "features")},
    )


def read_data(folder: Path, registry: Path, horizons: Sequence[int] = HORIZONS_YEARS) -> Data:
    """Return the scans of a run folder, with all outcomes; `horizons` (years) are those of its settings.

    Raises:
        UsageError: its files are not of the same scans.
    """
    frame = cohort.load(folder / "cohort.parquet")
    found = pd.read_parquet(folder / "features.parquet")
    if found["scan"].to_list() != frame["scan"].to_list():
        raise UsageError(f"{folder}: features.parquet and cohort.parquet do not have the same scans: start a new run")
    known = frame.drop(columns=["time_years", "event"])
    return Data(registry, known, found.drop(columns="scan"), cohort.outcomes_of(frame, horizons))


def _arms(run_: _Run) -> None:
    _hash_volumes(run_)  # again: a run that goes on must not go on with others
    for arm in run_.arms:
        run_.record.step(f"arms/{arm.name}", "", _predictions(run_.folder, arm.name), partial(_arm, run_, arm))


def _predictions(folder: Path, arm: str) -> Path:
    """Return what an arm leaves when it has predicted every scan."""
    return folder / "arms" / arm / "predictions.parquet"


def _arm(run_: _Run, arm: Arm) -> None:
    """Fit an arm on each outer fold's training part and predict the rest."""
    data = read_data(run_.folder, run_.registry.folder, run_.settings.horizons)
    drawn = Nested.load(run_.folder / "splits.json")
    folder = run_.folder / "arms" / arm.name
    found = cross_fit(arm, data, drawn, run_.settings.seed, folder, run_.progress)
    write_whole(_predictions(run_.folder, arm.name), found.to_parquet(index=False))


def _ensemble(run_: _Run) -> None:
    frame = cohort.load(run_.folder / "cohort.parquet")
    found = {n: pd.read_parquet(_predictions(run_.folder, n)) for n in run_.settings.arms}
    stacked = stacking.stack(found, cohort.outcomes_of(frame, run_.settings.horizons))
    write_json(run_.folder / "ensemble.json", stacked.to_dict())
    whole = pd.concat([*found.values(), stacked.predictions], ignore_index=True)
    write_whole(run_.folder / "predictions.parquet", whole.to_parquet(index=False))


def _baselines(run_: _Run) -> None:
    """Fit what the arms are compared with; `baselines.json` says which there are, on which features."""
    from training.models.baselines import make_baseline  # noqa: PLC0415
    from training.models.tabular_models import FitError  # noqa: PLC0415

    wanted = run_.settings.baselines
    data = read_data(run_.folder, run_.registry.folder, run_.settings.horizons)
    features = [str(name) for name in data.features]
    fitted: dict[str, object] = {}
    for name in wanted.fit:
        columns = columns_of(name, features, wanted.quantity)
        if not columns:
            run_.record.warn(f"there is no baseline {name} to compare with: the registry has no feature for it")
            continue
        try:
            _arm(run_, make_baseline(name, columns))
            fitted[name] = columns
        except (UsageError, FitError) as error:
            run_.record.warn(f"there is no baseline {name} to compare with: {error}")
    write_json(run_.folder / "baselines.json", fitted)


def _evaluation(run_: _Run) -> None:
    from training.evaluation.evaluate import evaluate  # noqa: PLC0415  (each step imports what it needs)

    frame = cohort.load(run_.folder / "cohort.parquet")
    predictions = pd.read_parquet(run_.folder / "predictions.parquet")
    known = run_.registry.folder / "truth.csv"  # of a synthetic registry, for the oracle alone
    truth = pd.read_csv(known) if run_.registry.synthetic and known.is_file() else None
    baselines = list(json.loads((run_.folder / "baselines.json").read_text("utf-8")))
    predictions = pd.concat(
        [predictions, *(pd.read_parquet(_predictions(run_.folder, n)) for n in baselines)], ignore_index=True
    )
    settings = run_.settings
    split = Nested.load(run_.folder / "splits.json")
    frame = frame.iloc[split.judged(frame["patient"].to_list())].reset_index(drop=True)
    predictions = predictions[predictions["scan"].isin(set(frame["scan"]))]
    facts = run_.record.content.get("split") or {}
    if facts.get("by") == "site":
        site = {who: name for name, fold in zip(facts["names"], split.outer, strict=True) for who in fold}
        frame["site"] = frame["patient"].map(site)
    courses = cohort.courses(frame, follow_up.read_outcomes(settings.outcomes))
    found = evaluate(frame, predictions, settings.evaluation, truth, settings.horizons, baselines, courses=courses)
    write_whole(run_.folder / "evaluation.json", found.to_json())


def _explanation(run_: _Run) -> None:
    from training.explanation import explanation  # noqa: PLC0415

    settings = run_.settings
    data = read_data(run_.folder, run_.registry.folder, settings.horizons)
    found = explanation.explain(
        run_.folder, data, settings.horizons, settings.arms, settings.explanation, run_.progress
    )
    write_whole(run_.folder / explanation.NAME, found.to_json())


def _report(run_: _Run) -> None:
    from training.report.report import write  # noqa: PLC0415

    write(run_.folder)


def _bundle(run_: _Run) -> None:
    from training.bundle.make import make_bundle  # noqa: PLC0415

    chosen, folder = run_.settings.bundle, run_.folder
    if chosen.make:
        made_by = (
            f"training run {folder.name}/run.toml"  # not the whole path: a bundle tells nothing of its maker's disk
        )
        make_bundle(folder, folder / "bundle", name=chosen.name, version=chosen.version, created_by=made_by)


@dataclass(frozen=True)
class RunStep:
    """A step of a run: what it does, the file or folder that it leaves, and the late settings that it hangs on."""

    name: str
    output: str
    work: Callable[[_Run], None]
    settings: tuple[str, ...] = ()


STEPS = (
    RunStep("cohort", "cohort.parquet", _cohort),
    RunStep("splits", "splits.json", _splits),
    RunStep("features", "features.parquet", _features),
    RunStep("arms", "arms", _arms),
    RunStep("ensemble", "predictions.parquet", _ensemble),
    RunStep("baselines", "baselines.json", _baselines, ("baselines",)),
    RunStep("evaluation", "evaluation.json", _evaluation, ("baselines", "evaluation")),
    RunStep("explanation", "explanation.json", _explanation, ("explanation",)),
    RunStep("report", "report.html", _report, ("baselines", "evaluation", "explanation", "provenance")),
    RunStep("bundle", "bundle", _bundle, ("baselines", "evaluation", "explanation", "bundle", "provenance")),
)
