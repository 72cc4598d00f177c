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
import tomli_w
import torch
from typer.testing import CliRunner

from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import UsageError
from tests.conftest import ROOT
from tests.helpers.bundles import change
from tests.helpers.tabular_worlds import World, imaged, settings_toml, world, write
from training.cli import commands
from training.evaluation import bar as bars
from training.models.stacking import RISKS
from training.release import judged as judge
from training.release import promotion
from training.release.gate import compare
from training.release.judged import JudgedRisks
from training.run.run import run
from training.run.settings import load as load_settings

torch.set_num_threads(1)
CONDITIONS = [
    "thresholds",
    "bundle",
    "parity",
    "measurements",
    "intended use",
    "calibration slope",
    "calibration-in-the-large",
    "discrimination",
]
PREDICTIONS = "predictions.parquet"
#: Bounds that every run keeps, where another condition is looked at.
WIDE = {"calibration_slope": [0.001, 100], "calibration_intercept": 10}


def make(folder: Path, made: World) -> Path:
    write(made, folder / "registry")
    toml = settings_toml(
        folder,
        splits="outer = 2\ninner = 2",
        features="radiomics = false\nworkers = 1",
        radiomics='models = ["cox"]\nfamilies = ["quantities"]\nstability = 0',
        evaluation="bootstrap = 50",
        baselines="fit = []",
    )
    made_run = run(load_settings(toml), toml.read_text(), lambda *_: None)
    (made_run / "report.html").unlink()  # the gate writes an existing report anew, which takes seconds
    return made_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose numbers were measured on its volumes."""
    folder = tmp_path_factory.mktemp("measured")
    return make(folder, imaged(world(patients=100, seed=5), folder / "registry"))


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same scans with a table that has nothing to do with the volumes."""
    folder = tmp_path_factory.mktemp("invented")
    made = world(patients=100, seed=5)
    return make(folder, replace(imaged(made, folder / "registry"), features=made.features))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def judged(run_folder: Path, current: Path | None) -> dict[str, dict]:
    """The verdict of `training compare` by condition; its exit status and its file say the same."""
    arguments = ["compare", str(run_folder), *([] if current is None else [str(current)]), "--json"]
    arguments += ["--weights", str(run_folder)]  # where `set_gate` writes the bar
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
    """The bar, in the folder that `judged` takes for the node's weights folder."""
    (run_folder / "gate.toml").write_text(tomli_w.dumps(gate))


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
        judge,
        "judge",
        lambda _, data, *__: JudgedRisks(np.repeat(risks(len(data.cohort))[:, None], 5, axis=1), "scans"),
    )


def test_a_run_that_holds_passes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = judged(copy, None)
    assert not failed(checks) and list(checks) == [name for name in CONDITIONS if name != "intended use"]
    assert "no bundle is in service" in checks["discrimination"]["text"]
    serving(lambda scans: np.random.default_rng(1).random(scans), monkeypatch)
    checks = judged(copy, copy / "bundle")
    assert not failed(checks) and list(checks) == CONDITIONS


def test_calibration_is_judged_beside_what_serves(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of the range it passes where the bundle in service is as far off on the same scans, and only then."""
    table = pd.read_parquet(copy / PREDICTIONS)
    own = table.loc[table["arm"] == "ensemble", "risk_3"].to_numpy()
    for slope, passes in ((1.0, False), (1.5, True), (1.6, True)):
        predict_from(table, copy, "radiomics", logits(lambda x: (x - x.mean()) / 1.5 + x.mean()))
        serving(lambda _, s=slope: logits(lambda x: (x - x.mean()) / s + x.mean())(own), monkeypatch)
        checks = judged(copy, copy / "bundle")
        assert ("calibration slope" not in failed(checks)) is passes, checks["calibration slope"]
        assert "no worse than in service (" in checks["calibration slope"]["text"]


def predict_from(table: pd.DataFrame, run_folder: Path, arm: str, risk: Callable[[np.ndarray], np.ndarray]) -> None:
    table.to_parquet(run_folder / PREDICTIONS)
    predict(run_folder, arm, risk)


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
    set_gate(copy, margin=0.5)
    checks = judged(copy, finished / "bundle")
    assert (
        "intended use" in failed(checks)
        and "must not replace one trained on patients" in checks["intended use"]["text"]
    )
    assert set(failed(checks)) <= {"intended use", "discrimination"}
    assert "intended use" not in failed(judged(finished, copy / "bundle")), "the other way round is no harm"


def test_the_same_training_passes_against_itself(copy: Path) -> None:
    """The bundle in service is asked about each patient by the model that has not seen the patient."""
    checks = judged(copy, copy / "bundle")
    assert not failed(checks)
    assert "difference +0.000 (95 % interval +0.000 to +0.000)" in checks["discrimination"]["text"]
    patients = pd.read_parquet(copy / "cohort.parquet")["patient"].nunique()
    verdict = json.loads((copy / "gate.json").read_text())
    assert verdict["judged_on"].startswith(f"{patients} patients that it was trained on, each by the model that has")


def without_held_out(bundle: Path, split: str = "0" * 64) -> Path:
    """The bundle as older versions made it, of another split."""
    (bundle / "held_out.json").unlink()
    change(bundle, '^"?held_out.json"? = .*\n', "")
    change(bundle, "^split_sha256 = .*$", f'split_sha256 = "{split}"')
    return bundle


def test_a_bundle_that_does_not_say_whom_it_has_seen_is_judged_as_served(copy: Path, tmp_path: Path) -> None:
    """It may have learnt from these patients, and here has: that is said, with the cure. Its split tells, too."""
    record = json.loads((copy / "run.json").read_text())
    older = without_held_out(Path(shutil.copytree(copy / "bundle", tmp_path / "older")))
    set_gate(copy, **WIDE)
    checks = judged(copy, older)
    assert failed(checks) == ["discrimination"]
    assert "make it anew from its run with `training bundle`" in checks["discrimination"]["text"]
    same = tmp_path / "same"
    shutil.copytree(older, same)
    change(same, "^split_sha256 = .*$", f'split_sha256 = "{record["split_sha256"]}"')
    assert not failed(judged(copy, same))


def test_a_worse_run_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.read_parquet(copy / PREDICTIONS)
    own = table.loc[table["arm"] == "ensemble", "risk_3"].to_numpy()
    predict(copy, "radiomics", logits(lambda x: x + np.random.default_rng(1).normal(0, 2, len(x))[:, None]))
    serving(lambda _: own, monkeypatch)
    set_gate(copy, **WIDE)
    checks = judged(copy, copy / "bundle")
    assert failed(checks) == ["parity", "discrimination"]
    assert "required at least -0.02" in checks["discrimination"]["text"]


def test_the_run_does_not_set_the_bar(copy: Path) -> None:
    """Neither by its settings nor by its record; what it asks for is said."""
    record = json.loads((copy / "run.json").read_text())
    record["settings"]["gate"] = {"margin": 1.0, "calibration_slope": [-5, 5], "horizon_years": 3}
    (copy / "run.json").write_text(json.dumps(record))
    checks = judged(copy, None)
    assert "the run asks for margin 1 (default 0.05), calibration_slope -5 to 5" in checks["thresholds"]["text"]
    verdict = json.loads((copy / "gate.json").read_text())
    assert verdict["bar"]["margin"] == 0.05 and not verdict["departures"]
    set_gate(copy, margin=0.2)
    (copy / "report.html").touch()
    assert "which depart: margin 0.2 (default 0.05)" in judged(copy, None)["thresholds"]["text"]
    assert json.loads((copy / "gate.json").read_text())["departures"] == ["margin 0.2 (default 0.05)"]
    assert "margin 0.2 (default 0.05)" in (copy / "report.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("calibration_slope = [1.25, 0.8]", r"gate\.toml: .*calibration_slope = \[1.25, 0.8\]: give a range around 1"),
        ("calibration_slope = [-100.0, 100.0]", "give a range around 1"),
        ("calibration_slope = [0.8, inf]", "finite"),
        ("calibration_slope = [1.1, 1.2]", "give a range around 1"),
        ("margin = 1.0", "margin: .*less than or equal to 0.5"),
        ("margin = -0.1", "margin: .*greater than or equal to 0"),
        ("margin = nan", "finite"),
        ("largest_loss = 0.1", "largest_loss = 0.1 is above the margin"),
        ("calibration_intercept = 1e9", "calibration_intercept: "),
        ("horizon_years = 21", "horizon_years: "),
        ("horizon_years = 0", "horizon_years: "),
        ("margins = 0.1", "margins: .*known here: horizon_years, margin"),
        ("margin", "is not TOML"),
    ],
)
def test_a_bar_that_cannot_be_is_refused(finished: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        bars.load(tmp_path)


def test_the_horizon_is_the_bar_s_or_the_middle_one_of_the_run(copy: Path) -> None:
    """A run that does not predict at the bar's horizon is refused; where the bar names none, the run's decide."""
    set_gate(copy, horizon_years=2)
    with pytest.raises(UsageError, match=r"horizon_years = 2, and .*\(1, 3, 5\)"):
        compare(copy, None, lambda *_: None, copy)
    set_gate(copy, horizon_years=5)
    assert "AUC at 5 years" in judged(copy, None)["discrimination"]["text"]
    (copy / "gate.toml").unlink()
    record = json.loads((copy / "run.json").read_text())
    record["settings"]["horizons"] = [2, 4, 5]
    (copy / "run.json").write_text(json.dumps(record))
    assert "AUC at 4 years" in judged(copy, None)["discrimination"]["text"]
    with pytest.raises(UsageError, match="does not predict at 4 years: set horizon_years"):
        compare(copy, copy / "bundle", lambda *_: None)


def test_the_shipped_bar_is_the_default() -> None:
    assert bars.load(ROOT / "weights")[0] == bars.GateBar()


def test_a_gain_that_may_be_a_loss_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The AUC is a little higher, and its interval reaches below the margin; with a wider margin it passes."""
    table = pd.read_parquet(copy / PREDICTIONS)
    own = table.loc[table["arm"] == "ensemble", "risk_3"].to_numpy()
    serving(lambda scans: own + np.random.default_rng(2).normal(0, 0.03, scans), monkeypatch)
    set_gate(copy, margin=0.0, largest_loss=0.0)
    checks = judged(copy, copy / "bundle")
    assert failed(checks) == ["discrimination"]
    gain, low = (float(x) for x in _gain(checks["discrimination"]["text"]))
    assert gain > 0 > low
    set_gate(copy, margin=round(-low + 0.01, 4), largest_loss=0.0)
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
