"""The gate: a run that holds in every condition passes, and one that fails in any of them does not."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from dicomnode.analysis.risk.load_bundle import load
from tests.conftest import ROOT
from tests.helpers.bundles import change
from tests.helpers.tabular_worlds import World, imaged, settings_toml, world, write
from training.cli import commands
from training.models.stacking import RISKS
from training.release import node_predictions, promotion
from training.run.run import run
from training.run.settings import load as load_settings

torch.set_num_threads(1)
CONDITIONS = [
    "bundle",
    "intended use",
    "calibration slope",
    "calibration-in-the-large",
    "parity",
    "measurements",
    "discrimination",
]
PREDICTIONS = "predictions.parquet"
#: Bounds that every run keeps, where another condition is looked at.
WIDE = {"calibration_slope": [-100, 100], "calibration_intercept": 100}


def make(folder: Path, made: World) -> Path:
    write(made, folder / "registry")
    toml = settings_toml(
        folder,
        splits="outer = 2\ninner = 2",
        features="radiomics = false\nworkers = 1",
        radiomics='models = ["cox"]\nfamilies = ["quantities"]\nstability = 0',
        evaluation="bootstrap = 50",
    )
    return run(load_settings(toml), toml.read_text(), lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose numbers were measured on its volumes."""
    folder = tmp_path_factory.mktemp("measured")
    return make(folder, imaged(world(patients=100, seed=3), folder / "registry"))


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same scans with a table that has nothing to do with the volumes."""
    folder = tmp_path_factory.mktemp("invented")
    made = world(patients=100, seed=3)
    return make(folder, replace(imaged(made, folder / "registry"), features=made.features))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def judged(run_folder: Path, current: Path | None) -> dict[str, dict]:
    """The verdict of `training compare` by condition; its exit status and its file say the same."""
    arguments = ["compare", str(run_folder), *([] if current is None else [str(current)]), "--json"]
    result = CliRunner().invoke(commands.app, arguments, catch_exceptions=False)
    verdict = json.loads((run_folder / "gate.json").read_text())
    assert json.loads(result.stdout) == verdict
    checks = {check["name"]: check for check in verdict["checks"]}
    assert verdict["passed"] == all(check["passed"] for check in checks.values())
    assert result.exit_code == (0 if verdict["passed"] else 3)
    if checks["bundle"]["passed"]:
        assert verdict["bundle_sha256"] == load(run_folder / "bundle", allow_demo=True).sha256
    assert verdict["current_sha256"] == ("" if current is None else load(current, allow_demo=True).sha256)
    return checks


def failed(checks: dict[str, dict]) -> list[str]:
    return [name for name, check in checks.items() if not check["passed"]]


def set_gate(run_folder: Path, **gate: object) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    record["settings"]["gate"].update(gate)
    (run_folder / "run.json").write_text(json.dumps(record))


def predict(run_folder: Path, arm: str, risk: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other predictions of an arm, from its own."""
    path = run_folder / PREDICTIONS
    table = pd.read_parquet(path)
    rows = table["arm"] == arm
    table.loc[rows, list(RISKS)] = risk(table.loc[rows, list(RISKS)].to_numpy())
    table.to_parquet(path)


def logits(move: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda risk: 1 / (1 + np.exp(-move(np.log(risk / (1 - risk)))))


def serving(risks: Callable[[int], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the serving bundle say of the run's scans what `risks` (of their number) gives, at all horizons."""
    monkeypatch.setattr(
        node_predictions, "risks", lambda _, data, __: np.repeat(risks(len(data.cohort))[:, None], 3, axis=1)
    )


def test_a_run_that_holds_passes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = judged(copy, None)
    assert not failed(checks) and list(checks) == [name for name in CONDITIONS if name != "intended use"]
    assert "no bundle is in service" in checks["discrimination"]["text"]
    serving(lambda scans: np.random.default_rng(1).random(scans), monkeypatch)
    checks = judged(copy, copy / "bundle")
    assert not failed(checks) and list(checks) == CONDITIONS


@pytest.mark.parametrize(
    ("move", "condition"),
    [
        (lambda x: 3 * (x - x.mean()) + x.mean(), "calibration slope"),
        (lambda x: (x - x.mean()) / 3 + x.mean(), "calibration slope"),
        (lambda x: x + 1, "calibration-in-the-large"),
        (lambda x: x - 1, "calibration-in-the-large"),
    ],
)
def test_bad_calibration_fails(copy: Path, move: Callable[[np.ndarray], np.ndarray], condition: str) -> None:
    predict(copy, "ensemble", logits(move))
    checks = judged(copy, None)
    assert condition in failed(checks) and set(failed(checks)) <= {"calibration slope", "calibration-in-the-large"}
    assert "required" in checks[condition]["text"]


def test_predictions_that_the_bundle_does_not_give_fail(copy: Path) -> None:
    predict(copy, "radiomics", lambda risk: np.minimum(risk + 0.02, 1))
    checks = judged(copy, None)
    assert failed(checks) == ["parity"]
    assert "differ from training by at most 0.02, allowed 0.01" in checks["parity"]["text"]


def test_a_table_that_was_not_measured_on_the_scans_fails(invented: Path) -> None:
    """Its predictions are the bundle's: that the bundle is asked with the same table does not make the table true."""
    set_gate(invented, **WIDE)
    checks = judged(invented, None)
    assert failed(checks) == ["measurements"]
    assert "quantities.lungs.haa_percent" in checks["measurements"]["text"]


def test_one_odd_number_in_the_table_fails(copy: Path) -> None:
    path = copy / "features.parquet"
    table = pd.read_parquet(path)
    table["quantities.right.mean_hu"] += 2
    table.to_parquet(path)
    checks = judged(copy, None)
    assert failed(checks)[-1] == "measurements" and "quantities.right.mean_hu" in checks[failed(checks)[-1]]["text"]


def test_phantoms_do_not_replace_patients(copy: Path, finished: Path) -> None:
    change(copy / "bundle", "^intended_use = .*$", 'intended_use = "synthetic-demo"')
    set_gate(copy, margin=1.0)
    checks = judged(copy, finished / "bundle")
    assert (
        "intended use" in failed(checks)
        and "must not replace one trained on patients" in checks["intended use"]["text"]
    )
    assert set(failed(checks)) <= {"intended use", "discrimination"}
    assert "intended use" not in failed(judged(finished, copy / "bundle")), "the other way round is no harm"


def test_a_run_worse_than_what_serves_fails(copy: Path) -> None:
    """Against its own bundle, asked about the scans that it has learnt from."""
    set_gate(copy, margin=1.0)
    checks = judged(copy, copy / "bundle")
    assert failed(checks) == ["discrimination"]
    assert "required at least 0" in checks["discrimination"]["text"]


def test_a_gain_that_may_be_a_loss_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The AUC is a little higher, and its interval reaches below the margin; with a wider margin it passes."""
    table = pd.read_parquet(copy / PREDICTIONS)
    own = table.loc[table["arm"] == "ensemble", "risk_3"].to_numpy()
    serving(lambda scans: own + np.random.default_rng(2).normal(0, 0.03, scans), monkeypatch)
    set_gate(copy, margin=0.0)
    checks = judged(copy, copy / "bundle")
    assert failed(checks) == ["discrimination"]
    gain, low = (float(x) for x in _gain(checks["discrimination"]["text"]))
    assert gain > 0 > low
    set_gate(copy, margin=-low + 0.01)
    assert not failed(judged(copy, copy / "bundle"))


def _gain(text: str) -> tuple[str, str]:
    """The difference of the AUCs and the lower end of its interval."""
    found = text.split("scans: difference ")[1].split(" (95 % interval ")
    return found[0], found[1].split(" to ")[0]


def test_a_damaged_bundle_fails(copy: Path) -> None:
    (copy / "bundle" / "MODEL_CARD.md").write_text("better than it is")
    checks = judged(copy, None)
    assert failed(checks) == ["bundle"] and "MODEL_CARD.md is not the file" in checks["bundle"]["text"]


def test_the_issue_s_commands_from_a_new_weights_folder_on(copy: Path, tmp_path: Path) -> None:
    """Only the shipped bundle lies in `weights`, and there is no `current`."""
    weights = tmp_path / "weights"
    shutil.copytree(ROOT / "weights" / "demo-synthetic", weights / "demo-synthetic")
    compared = CliRunner().invoke(
        commands.app, ["compare", str(copy), str(weights / "current")], catch_exceptions=False
    )
    assert compared.exit_code == 0 and "no bundle is in service" in compared.stdout
    promoted = CliRunner().invoke(commands.app, ["promote", str(copy), "--to", str(weights)], catch_exceptions=False)
    assert promoted.exit_code == 0 and "(previously none)" in promoted.stdout
    assert load(weights / "current", allow_demo=False).sha256 == load(copy / "bundle", allow_demo=False).sha256
    served = promotion.served(weights)
    assert served is not None and served.name.startswith("ssc-ild-risk-1-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nosuch", "weights/current"], "nosuch is not a finished run (run.json, cohort.parquet, features"),
        (["compare", "empty"], "empty is not a finished run (run.json, cohort.parquet, features.parquet, predictions"),
        (["compare", "split"], "split is not a finished run (features.parquet, predictions.parquet missing): run"),
        (["compare", "fitted"], "fitted has no bundle: finish the run with `training run` and make = true"),
        (["compare", "damaged"], "damaged/run.json is not the record of a run (JSONDecodeError"),
        (["promote", "nosuch", "--to", "w"], "nosuch has no bundle: finish the run with `training run` and make"),
        (["rollback", "nosuch"], "nosuch is not a folder: give the node's weights folder"),
    ],
)
def test_what_is_no_finished_run_is_said(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    split = ("run.json", "cohort.parquet")
    fitted = (*split, "features.parquet", PREDICTIONS)
    folders = {"empty": (), "split": split, "fitted": fitted, "damaged": (*fitted, "bundle/model.toml")}
    for folder, names in folders.items():
        (tmp_path / folder / "bundle").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path)
    assert status(arguments, monkeypatch) == 2
    said = capsys.readouterr().err
    assert f"training: {message}" in said and "Traceback" not in said


def test_a_promotion_without_the_gate_s_consent_is_refused_by_status_3(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    predict(copy, "radiomics", lambda risk: np.minimum(risk + 0.02, 1))
    assert failed(judged(copy, None)) == ["parity"]
    assert status(["promote", str(copy), "--to", str(tmp_path / "weights")], monkeypatch) == 3
    assert "training: the run did not pass the gate: applied as in the node" in capsys.readouterr().err


def status(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """With which exit status the command ends."""
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    return ended.value.code
