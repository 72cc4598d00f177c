"""The estimate of a run beside what the run took."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers.deep_cases import SPEC, tiny_encoder
from tests.helpers.tabular_worlds import imaged, settings_toml, world, write
from training.cli import commands
from training.run.estimate import estimate
from training.run.run import run
from training.run.settings import load

torch.set_num_threads(1)
#: Within this factor, either way: the probe is short, and other tests share the machine.
FACTOR = 5
#: Of a run whose features and figures are of no interest.
LEAN = {"features": "radiomics = false", "evaluation": "bootstrap = 0", "baselines": "fit = []"}
STEPS = ("cohort", "splits", "features", "arms", "baselines", "evaluation")


def test_the_estimate_is_what_the_run_takes_and_writes_nothing(tmp_path: Path) -> None:
    write(world(patients=60), tmp_path / "registry")
    toml = settings_toml(
        tmp_path,
        splits="outer = 2\ninner = 2",
        features="workers = 1",
        radiomics='models = ["cox", "boosting"]',
        evaluation="bootstrap = 100",
    )
    settings = load(toml)
    found = estimate(settings)
    assert {p.name for p in tmp_path.iterdir()} == {"registry", "run.toml"}
    folder = run(settings, toml.read_text(), lambda *_: None, "evaluation")
    steps = json.loads((folder / "run.json").read_text())["steps"]
    took = sum(steps[name]["seconds"] for name in STEPS)
    judged = sum(part.seconds for part in found.parts if part.name not in ("report", "bundle"))
    assert 1 / FACTOR < judged / took < FACTOR, (judged, took, found.lines)
    left = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    told = sum(part.disk_bytes for part in found.parts if part.name not in ("report", "bundle"))
    assert 1 / 10 < told / left < 10, (told, left)
    assert found.memory_bytes > 50e6
    names = [part.name for part in found.parts]
    assert names[-1] == "bundle" and "radiomics" in names and "clinical" in names
    assert any("one fit of each kind of model, for 7 candidates in 2 inner of 2 outer folds" in x for x in found.lines)


def test_networks_count_by_epochs_and_their_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.analysis.risk.network.encoder", tiny_encoder)
    write(imaged(world(patients=30), tmp_path / "registry"), tmp_path / "registry")
    spec = f"[deep.spec]\nspacing_mm = 8.0\ncanvas = {SPEC['canvas']}\nslices = {SPEC['slices']}"

    def parts(epochs: int) -> dict:
        deep = f'epochs = {epochs}\ndevice = "cpu"\nworkers = 1\n{spec}'
        top = 'arms = ["resnet18", "densenet121"]\nhorizons = [1, 3]'
        toml = settings_toml(tmp_path, top=top, deep=deep, splits="outer = 2\ninner = 2", **LEAN)
        found = estimate(load(toml))
        assert any("early stopping" in note for note in found.notes)
        return {part.name: part for part in found.parts}

    few, many = parts(1), parts(1000)
    assert many["resnet18"].seconds > 50 * few["resnet18"].seconds
    pixels = SPEC["slices"] * 32 * 32 * 4
    assert few["resnet18"].disk_bytes - few["densenet121"].disk_bytes == pixels * len(
        list((tmp_path / "registry" / "volumes").iterdir())
    )
    assert not (tmp_path / "registry" / "prepared").exists()


def test_the_command_prints_it_and_refuses_what_the_run_would(tmp_path: Path) -> None:
    write(world(patients=40), tmp_path / "registry")
    toml = settings_toml(
        tmp_path,
        splits="outer = 2\ninner = 2",
        radiomics='models = ["cox"]',
        features="workers = 1",
        evaluation="bootstrap = 20",
    )
    said = CliRunner().invoke(commands.app, ["run", str(toml), "--dry-run"])
    assert said.exit_code == 0, said.output
    assert "of 40 patients" in said.output and "time: about" in said.output and "free" in said.output
    assert not (tmp_path / "run").exists()
    (tmp_path / "registry" / "outcomes.csv").unlink()
    refused = CliRunner().invoke(commands.app, ["run", str(toml), "--dry-run"])
    assert refused.exit_code != 0 and "outcomes.csv does not exist" in str(refused.exception)
