"""A run's figures for TensorBoard and MLflow: settings, metrics, loss curves. No patient, scan or prediction goes out.

Both libraries are extras (`pip install dicomnode[tensorboard]`, `dicomnode[mlflow]`): only who exports needs them.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.errors import UsageError
from training.evaluation.records import Estimate, Evaluation

#: Settings that name places on this machine, or people's own words.
_PRIVATE = ("registry", "outcomes", "covariates", "out", "provenance", "covariate_types", "path", "cache", "file")
#: MLflow refuses longer values of a parameter.
_LONGEST = 500
_MISSING = "{extra} is not installed: pip install 'dicomnode[{extra}]', with constraints.txt (-c)"


@dataclass(frozen=True)
class LossCurve:
    """A loss by epoch, from epoch 1."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class RunFigures:
    """What leaves a run.

    Attributes:
        name: of the run folder.
        params: settings and versions, as text.
        metrics: figures of the evaluation that could be estimated, with their intervals' ends.
        curves: of the networks.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: tuple[LossCurve, ...]


def figures_of(run: Path) -> RunFigures:
    """Gather the figures of a run folder.

    Raises:
        UsageError: it holds no evaluation.
    """
    path = run / "evaluation.json"
    if not path.is_file() or not (run / "run.json").is_file():
        raise UsageError(f"{run} holds no evaluated run: let `training run` finish")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    found = Evaluation.from_json(path.read_text(encoding="utf-8"))
    params = dict(_flat(record["settings"])) | {f"software.{k}": str(v) for k, v in record["software"].items()}
    params["split_sha256"] = str(record.get("split_sha256", ""))
    metrics: dict[str, float] = {}
    for arm in found.arms:
        metrics |= _estimate(f"{arm.arm}/uno_c", arm.uno_c)
        for at in arm.horizons:
            for name, one in vars(at).items():
                if isinstance(one, Estimate):
                    metrics |= _estimate(f"{arm.arm}/{name}_{at.years}y", one)
    metrics |= {"cohort/patients": float(found.patients), "cohort/scans": float(found.scans)}
    return RunFigures(run.resolve().name, params, metrics, tuple(_curves(run)))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if key in _PRIVATE:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)[:_LONGEST]


def _estimate(name: str, one: Estimate) -> dict[str, float]:
    parts = {name: one.value, f"{name}_lower": one.lower, f"{name}_upper": one.upper}
    return {key: float(value) for key, value in parts.items() if value is not None and math.isfinite(value)}


def _curves(run: Path) -> Iterator[LossCurve]:
    arms = run / "arms"
    # A network that was fitted again on all patients has its validation losses one folder down (`models.deep.arm`).
    for path in sorted([*arms.glob("*/fold-*/fit.json"), *arms.glob("*/fold-*/stopping/fit.json")]):
        fitted = json.loads(path.read_text(encoding="utf-8"))
        for key in ("train_loss", "validation_loss"):
            if values := fitted.get(key):
                yield LossCurve(f"{path.parent.relative_to(arms)}/{key}", tuple(map(float, values)))


def to_tensorboard(found: RunFigures, folder: Path) -> Path:
    """Write an event file into a folder of the run's name in `folder`, for `tensorboard --logdir FOLDER`.

    Returns:
        The folder of the run.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UsageError(_MISSING.format(extra="tensorboard")) from None
    place = folder / found.name
    writer = SummaryWriter(str(place))
    try:
        lines = [f"    {name} = {value}" for name, value in found.params.items()]
        writer.add_text("settings", "\n".join(lines))
        for name, value in found.metrics.items():
            writer.add_scalar(name, value)
        for curve in found.curves:
            for epoch, value in enumerate(curve.values, start=1):
                writer.add_scalar(curve.name, value, epoch)
    finally:
        writer.close()
    return place


def to_mlflow(found: RunFigures, target: str, experiment: str = "dicomnode") -> str:
    """Log a run to an MLflow server by its URI, or into a folder.

    Args:
        found: what goes out.
        target: http(s) URI, or a folder.
        experiment: its name there; made where it is missing.

    Returns:
        MLflow's ID of the run.

    Raises:
        UsageError: the library is not installed, or the server does not take it.
    """
    # MLflow would tell its maker of each use.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow import MlflowException  # noqa: PLC0415  (an extra)
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415
        from mlflow.tracking import MlflowClient  # noqa: PLC0415
    except ImportError:
        raise UsageError(_MISSING.format(extra="mlflow")) from None
    uri = target if target.startswith(("http://", "https://")) else Path(target).absolute().as_uri()
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if known is None else known.experiment_id
        run = client.create_run(
            number, run_name=found.name, tags={"mlflow.user": "", "mlflow.source.name": "dicomnode"}
        )
        identity = run.info.run_id
        points = [Metric(_word(name), value, 0, 0) for name, value in found.metrics.items()]
        for curve in found.curves:
            points += [Metric(_word(curve.name), v, 0, epoch) for epoch, v in enumerate(curve.values, start=1)]
        params = [Param(_word(name), value) for name, value in found.params.items()]
        for part in _parts(params, 100):
            client.log_batch(identity, params=part)
        for points_part in _parts(points, 1000):
            client.log_batch(identity, metrics=points_part)
        client.log_batch(identity, tags=[RunTag("split_sha256", found.params.get("split_sha256", ""))])
        client.set_terminated(identity)
    except MlflowException as error:
        raise UsageError(f"MLflow at {target} did not take the run: {error.message}") from None
    return str(identity)


def _parts(every: Sequence[Any], count: int) -> Iterator[list[Any]]:
    for start in range(0, len(every), count):
        yield list(every[start : start + count])


def _word(name: str) -> str:
    """Return a name as MLflow takes it: letters, digits, and _ - . space /."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
