"""What a run will take, before it is started: time, memory and disk, from its tables and a small measured probe.

The probe does a little of each step, on this machine and on the run's own tables, and multiplies: one fit of each kind
of model, one step of each network, one volume prepared, measured and hashed, a few draws of the bootstrap. What cannot
be tried so has a stated rate. Networks count as if no epoch were saved by early stopping. Nothing is written.
"""

import os
import resource
import shutil
import time
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import pandas as pd

from dicomnode.errors import RefusedError, UsageError
from dicomnode.files import sha256_of
from training.data import cohort, covariate_types, split_kinds, splits
from training.data.registry_folder import Registry
from training.data.registry_folder import read as read_registry
from training.evaluation.evaluate import evaluate
from training.features import compute
from training.models import stacking
from training.models.arm import DEEP_ARMS, VOLUME_ARMS, Data
from training.models.baseline_settings import columns_of
from training.models.registry import check_files, make_arm
from training.models.tabular_arm import RadiomicsArm, time_fit
from training.run.run import free_covariates, make_cohort
from training.run.settings import EvaluationSettings, RunSettings

#: Reports, figures, golden case and card of a bundle: about so long on one core, whatever the run.
_REPORT_S, _BUNDLE_S = 5.0, 15.0
_REPORT_BYTES = 3 * 2**20
#: Draws that the evaluation is timed with.
_DRAWS = 20


@dataclass(frozen=True)
class StepCost:
    """What one step takes: seconds, bytes that it leaves, and how both were told."""

    name: str
    seconds: float
    disk_bytes: int
    how: str


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes.

    Attributes:
        scans, patients: of the cohort.
        parts: by step.
        memory_bytes: at the most, of the process that fits.
        free_bytes: on the disk of the run folder.
        notes: what the figures do not hold.
    """

    scans: int
    patients: int
    parts: tuple[StepCost, ...]
    memory_bytes: int
    free_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(part.seconds for part in self.parts)

    @property
    def disk_bytes(self) -> int:
        """Of all steps."""
        return sum(part.disk_bytes for part in self.parts)

    @property
    def lines(self) -> tuple[str, ...]:
        """For people."""
        free = _size(self.free_bytes)
        short = "; NOT ENOUGH" if self.disk_bytes > self.free_bytes else ""
        return (
            f"{self.scans} scans of {self.patients} patients",
            *(f"{p.name}: {_time(p.seconds)}, {_size(p.disk_bytes)} ({p.how})" for p in self.parts),
            f"time: about {_time(self.seconds)}; memory: about {_size(self.memory_bytes)}; "
            f"disk: about {_size(self.disk_bytes)} of {free} free{short}",
            *self.notes,
        )


@dataclass
class _Found:
    """What is gathered while the steps are gone through."""

    parts: list[StepCost] = field(default_factory=list)
    memory: int = 0
    notes: list[str] = field(default_factory=list)


def estimate(settings: RunSettings) -> RunEstimate:
    """Return what the run of these settings takes, on this machine.

    Raises:
        UsageError: the run itself would refuse its input.
    """
    started = time.monotonic()
    registry = read_registry(settings.registry)
    tables = settings.arm_tables
    for name in settings.arms:
        check_files(name, tables)
    made, _ = make_cohort(settings, registry)
    frame = made.frame
    drawn = split_kinds.draw(frame, registry, settings.seed, settings.splits.asked).nested
    folds = settings.splits.model_copy(update={"outer": len(drawn.outer)})
    settings = settings.model_copy(update={"splits": folds})
    found = _Found()
    found.parts.append(StepCost("cohort and splits", time.monotonic() - started, len(frame) * 200, "done here"))
    data = _features(settings, registry, frame, found)
    train, _ = drawn.fold(0, data.patients)
    for name in settings.arms:
        if name in DEEP_ARMS:
            _network(name, settings, data, len(train), found)
        elif name == "encoder":
            _encoder(settings, data, train, found)
        else:
            arm = make_arm(name, tables)
            assert isinstance(arm, RadiomicsArm)
            _tabular(arm, settings, data, train, found)
    baselines = _baselines(settings, data, train, found)
    _evaluation(settings, frame, baselines, found)
    found.parts.append(StepCost("report", _REPORT_S, _REPORT_BYTES, "a stated rate"))
    if settings.bundle.make:
        models = sum(part.disk_bytes for part in found.parts if part.name in settings.arms)
        found.parts.append(StepCost("bundle", _BUNDLE_S, models + 2**20, "a stated rate; the models once more"))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kB on Linux
    existing = next(p for p in (settings.out, *settings.out.parents) if p.exists())
    return RunEstimate(
        scans=len(frame),
        patients=int(frame["patient"].nunique()),
        parts=tuple(found.parts),
        memory_bytes=resident + found.memory,
        free_bytes=shutil.disk_usage(existing).free,
        notes=tuple(found.notes),
    )


def _features(settings: RunSettings, registry: Registry, frame: pd.DataFrame, found: _Found) -> Data:
    """Return the scans with the features that are known, or, where scans are still to be measured, noise for them."""
    stored, unmeasured = compute.to_measure(frame, registry, settings.features)
    if unmeasured:
        start = time.monotonic()
        try:
            one = compute.measure(unmeasured[0], compute.radiomics_settings(settings.features))
        except RefusedError as error:
            raise UsageError(f"{unmeasured[0]}: {error}: repair the volume or remove the scan") from None
        workers = min(settings.features.workers or len(os.sched_getaffinity(0)), len(unmeasured))
        seconds = (time.monotonic() - start) * len(unmeasured) / workers
        how = f"one scan measured, times {len(unmeasured)} by {workers} processes"
        found.parts.append(StepCost("measuring", seconds, len(unmeasured) * len(one) * 40, how))
        noise = np.random.default_rng(1).normal(size=(len(frame), len(one)))
        stored = pd.DataFrame(noise, columns=list(one))
    measured = stored.set_axis(frame["scan"].to_list())
    declared = covariate_types.of_cohort(frame, free_covariates(settings, registry))
    start = time.monotonic()
    extra = [compute.changes(frame, measured), compute.covariates(frame, declared)]
    whole = pd.concat([measured, *extra], axis=1).reset_index(drop=True)
    found.parts.append(StepCost("features", time.monotonic() - start, whole.size * 8, "done here"))
    reads = any(name in VOLUME_ARMS for name in settings.arms) or not registry.lungs_alone
    _hashing(registry, [v for v in frame["volume"] if v] if reads else [], found)
    known = frame.drop(columns=["time_years", "event"])
    return Data(registry.folder, known, whole, cohort.outcomes_of(frame, settings.horizons))


def _hashing(registry: Registry, volumes: list[str], found: _Found) -> None:
    if not volumes:
        return
    sizes = [(registry.folder / name).stat().st_size for name in volumes]
    start = time.monotonic()
    sha256_of(registry.folder / volumes[0])
    seconds = (time.monotonic() - start) * sum(sizes) / max(sizes[0], 1)
    found.parts.append(
        StepCost("hashing volumes", seconds, 150 * len(sizes), f"one volume read, for {_size(sum(sizes))}")
    )


def _tabular(arm: RadiomicsArm, settings: RunSettings, data: Data, train: splits.Rows, found: _Found) -> None:
    took = time_fit(arm, data.hidden_outside(train), train, settings.seed)
    folds = settings.splits.outer
    how = (
        f"one fit of each kind of model, for {len(took.candidates_s)} candidates in {settings.splits.inner} inner of "
        f"{folds} outer folds"
    )
    seconds = folds * took.fold_s(settings.splits.inner)
    found.parts.append(StepCost(arm.name, seconds, folds * took.model_bytes + 60 * len(data.cohort), how))


def _baselines(settings: RunSettings, data: Data, train: splits.Rows, found: _Found) -> list[str]:
    from training.models.baselines import make_baseline  # noqa: PLC0415  (as in the run)

    names: list[str] = []
    for name in settings.baselines.fit:
        columns = columns_of(name, [str(c) for c in data.features], settings.baselines.quantity)
        if columns:
            _tabular(make_baseline(name, columns), settings, data, train, found)
            names.append(name)
    return names


def _encoder(settings: RunSettings, data: Data, train: splits.Rows, found: _Found) -> None:
    """Embed one scan; its head is timed on noise of the embedding's width."""
    from dicomnode.analysis.risk.encoder import names  # noqa: PLC0415  (torch)
    from training.models import encoder_arm  # noqa: PLC0415  (torch)

    arm = encoder_arm.make(settings.arm_tables["encoder"])
    volumes = [volume for row in range(len(data.cohort)) if (volume := data.volume(row)) is not None]
    if len(volumes) < len(data.cohort):
        raise UsageError(f"{len(data.cohort) - len(volumes)} scans have no stored volume, which encoder needs")
    start = time.monotonic()
    width = len(arm.embed(volumes[0]))
    seconds = (time.monotonic() - start) * len(volumes)
    how = f"one scan embedded, times {len(volumes)}"
    found.parts.append(StepCost("embeddings", seconds, len(volumes) * (width * 4 + 200), how))
    noise = pd.DataFrame(np.random.default_rng(1).normal(size=(len(volumes), width)), columns=names(width))
    _tabular(arm.head(width), settings, replace(data, features=noise), train, found)


def _network(name: str, settings: RunSettings, data: Data, train: int, found: _Found) -> None:
    """Time one step on one scan, and the preparation of one; count what it keeps for the way back."""
    from training.models.deep import settings as deep_settings  # noqa: PLC0415  (torch: only where there are networks)
    from training.models.deep.probe import probe  # noqa: PLC0415

    deep = deep_settings.read(settings.deep)
    volumes = [volume for row in range(len(data.cohort)) if (volume := data.volume(row)) is not None]
    if len(volumes) < len(data.cohort):
        raise UsageError(f"{len(data.cohort) - len(volumes)} scans have no stored volume, which {name} needs")
    took = probe(name, deep, volumes[0], len(data.outcomes.edges) - 1)
    outer, inner = settings.splits.outer, settings.splits.inner
    fitted, judged = train * (inner - 1) / inner, train / inner
    again = train if deep.refit else 0
    scans = deep.epochs * ((fitted + again) * took.step_s + judged * took.forward_s)
    prepared = len(volumes) * took.prepare_s / min(deep.cores, len(volumes))
    inputs = 2 if deep.prior else 1
    seconds = outer * inputs * scans / deep.processes + prepared
    pixels = deep.spec.slices * deep.spec.canvas[0] * deep.spec.canvas[1] * 4
    cache = 0 if any(p.name in DEEP_ARMS for p in found.parts) else len(volumes) * pixels  # shared by the arms
    # Half precision for each fold; while one is fitted its checkpoint: weights, the best ones, Adam's two moments.
    disk = cache + outer * took.parameters * 2 + took.parameters * 16
    part = ceil(deep.batch / deep.processes / deep.accumulate)
    found.memory = max(found.memory, took.parameters * 16 + part * inputs * took.kept_bytes)
    steps = f"{fitted:.0f} scans{f' and then of {again}' if again else ''}"
    how = f"one step on one scan on {took.device}, for {deep.epochs} epochs of {steps} in {outer} folds"
    found.parts.append(StepCost(name, seconds, disk, how))
    note = "networks: all epochs counted; early stopping makes it shorter"
    if note not in found.notes:
        found.notes.append(note)
    if took.device != "cpu":
        found.notes.append(f"{name}: the memory counted is that of {took.device}")


def _evaluation(settings: RunSettings, frame: pd.DataFrame, baselines: list[str], found: _Found) -> None:
    """Judge random risks, with a few draws and with none."""
    edges = cohort.outcomes_of(frame, settings.horizons).edges
    rng = np.random.default_rng(1)
    names = [*settings.arms, stacking.NAME, *baselines]
    tables = []
    for name in names:
        steps = rng.uniform(0.01, 0.1, size=(len(frame), len(edges) - 1))
        scans = frame[["scan", "patient"]].assign(fold=0)
        tables.append(stacking.table(name, scans, np.cumsum(steps, axis=1) / (len(edges) / 2), edges))
    predictions = pd.concat(tables, ignore_index=True)
    took = []
    for draws in (0, min(_DRAWS, settings.evaluation.bootstrap)):
        start = time.monotonic()
        options = EvaluationSettings(bootstrap=draws, threshold=settings.evaluation.threshold)
        evaluate(frame, predictions, options, None, settings.horizons, baselines)
        took.append(time.monotonic() - start)
    each = max(took[1] - took[0], 0.0) / _DRAWS
    seconds = took[0] + settings.evaluation.bootstrap * each
    how = f"{_DRAWS} draws of {len(names)} predictions, for {settings.evaluation.bootstrap}"
    found.parts.append(StepCost("evaluation", seconds, predictions.size * 8 + 2**20, how))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
