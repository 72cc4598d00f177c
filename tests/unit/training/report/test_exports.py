"""What goes to TensorBoard and MLflow: a run's figures, and nothing of a patient."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import settings_toml, world, write
from training.cli import commands
from training.report import exports
from training.run.run import run
from training.run.settings import load


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write(world(patients=50), folder / "registry")
    toml = settings_toml(
        folder,
        splits="outer = 2\ninner = 2",
        features="workers = 1",
        radiomics='models = ["cox"]',
        evaluation="bootstrap = 20",
        baselines="fit = []",
        provenance='sites = ["Somewhere General"]',
    )
    done = run(load(toml), toml.read_text(), lambda *_: None, "evaluation")
    fitted = done / "arms" / "resnet18" / "fold-0" / "fit.json"  # as a network leaves it
    stopped = fitted.parent / "stopping" / "fit.json"
    stopped.parent.mkdir(parents=True)
    fitted.write_text(json.dumps({"train_loss": [0.5, 0.4], "validation_loss": []}))
    stopped.write_text(json.dumps({"train_loss": [0.45], "validation_loss": [0.6, 0.55]}))
    return done


def no_patient(folder: Path) -> None:
    everything = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    for word in (b"P0001", b"Somewhere", b"registry/outcomes.csv", str(folder.parent).encode() + b"/registry"):
        assert word not in everything


def test_figures_are_those_of_the_evaluation(evaluated: Path) -> None:
    found = exports.figures_of(evaluated)
    stored = json.loads((evaluated / "evaluation.json").read_text())
    of = next(arm for arm in stored["arms"] if arm["arm"] == "radiomics")
    assert found.metrics["radiomics/auc_3y"] == of["horizons"][1]["auc"]["value"]
    assert found.metrics["radiomics/auc_3y_lower"] < found.metrics["radiomics/auc_3y"]
    assert found.params["splits.outer"] == "2" and "software.numpy" in found.params and "registry" not in found.params
    assert {curve.name: curve.values for curve in found.curves} == {
        "resnet18/fold-0/train_loss": (0.5, 0.4),
        "resnet18/fold-0/stopping/train_loss": (0.45,),
        "resnet18/fold-0/stopping/validation_loss": (0.6, 0.55),
    }
    with pytest.raises(UsageError, match="holds no evaluated run"):
        exports.figures_of(evaluated.parent)


def test_tensorboard_reads_them(evaluated: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands.app, ["export-run", str(evaluated), "--tensorboard", str(tmp_path / "boards")])
    assert done.exit_code == 0, done.output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "boards" / evaluated.name))
    read.Reload()
    wanted = exports.figures_of(evaluated).metrics["radiomics/auc_3y"]
    assert read.Scalars("radiomics/auc_3y")[0].value == pytest.approx(wanted, abs=1e-6)
    losses = read.Scalars("resnet18/fold-0/stopping/validation_loss")
    assert [(one.step, round(one.value, 3)) for one in losses] == [(1, 0.6), (2, 0.55)]
    no_patient(tmp_path / "boards")


def test_mlflow_reads_them(evaluated: Path, tmp_path: Path) -> None:
    place = tmp_path / "mlruns"
    done = CliRunner().invoke(commands.app, ["export-run", str(evaluated), "--mlflow", str(place)])
    assert done.exit_code == 0, done.output
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=place.as_uri())
    experiment = client.get_experiment_by_name("dicomnode")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id])[0]
    wanted = exports.figures_of(evaluated)
    assert logged.data.metrics["radiomics/auc_3y"] == pytest.approx(wanted.metrics["radiomics/auc_3y"])
    assert logged.data.params["splits.outer"] == "2" and logged.info.status == "FINISHED"
    curve = client.get_metric_history(logged.info.run_id, "resnet18/fold-0/train_loss")
    assert [(one.step, one.value) for one in curve] == [(1, 0.5), (2, 0.4)]
    no_patient(place)


def test_without_a_target_or_a_library_it_is_said_what_to_do(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = CliRunner().invoke(commands.app, ["export-run", str(evaluated)])
    assert "give --tensorboard FOLDER or --mlflow TARGET" in str(nothing.exception)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"mlflow is not installed: pip install 'dicomnode\[mlflow\]'"):
        exports.to_mlflow(exports.figures_of(evaluated), str(tmp_path / "m"))
