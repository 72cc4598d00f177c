"""Runs split by site and in time: who is judged, by what, and what report, gate and bundle say of it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import World, imaged, settings_toml, world, write
from training.bundle import held_out
from training.bundle.make import make_bundle
from training.data.splits import Nested
from training.release import gate
from training.run.run import read_data, run
from training.run.settings import load

TABLES = {
    "radiomics": 'models = ["cox"]\npenalizers = [0.3]',
    "baselines": "fit = []",
    "evaluation": "bootstrap = 20",
    "explanation": "scans = 0",
    "bundle": "make = false",
}


@pytest.fixture(scope="module")
def made() -> World:
    return world(patients=90)


def start(folder: Path, made: World, splits: str, groups: str = "", **more: str) -> Path:
    write(made, folder / "registry")
    if groups:
        (folder / "registry" / "groups.csv").write_text(groups)
    toml = settings_toml(folder, **TABLES, **more, splits=splits)
    return run(load(toml), toml.read_text(), lambda *_: None)


def test_a_run_by_site_judges_each_site_by_the_others(made: World, tmp_path: Path) -> None:
    patients = sorted(made.scans["patient"].unique())
    site = {who: ("Bern", "Graz", "Lund")[i % 3] for i, who in enumerate(patients)}
    rows = "\n".join(f"{who},{where}" for who, where in site.items())
    folder = start(tmp_path, made, 'kind = "sites"\ninner = 2', f"patient,site\n{rows}\n")
    found = json.loads((folder / "evaluation.json").read_text())
    predictions = pd.read_parquet(folder / "predictions.parquet")
    for arm, of in predictions.groupby("arm"):
        folds = of.groupby("fold")["patient"].agg(lambda who: {site[p] for p in who})
        assert list(folds) == [{"Bern"}, {"Graz"}, {"Lund"}], arm
    told = {(g["by"], g["value"]) for g in found["arms"][0]["subgroups"]}
    assert {("site", "Bern"), ("site", "Graz"), ("site", "Lund")} <= told
    report = json.loads((folder / "report.json").read_text())
    assert any("Bern, Graz, Lund is predicted by models fitted on the others" in line for line in report["summary"])
    assert "site: Graz" in (folder / "report.md").read_text()
    # The groups decide the folds: others are another run.
    path = tmp_path / "registry" / "groups.csv"
    path.write_text(path.read_text().replace("Lund", "Oslo"))
    with pytest.raises(UsageError, match=r"a different sha256\.groups"):
        run(load(tmp_path / "run.toml"), "", lambda *_: None)


def test_a_run_in_time_judges_later_patients_alone(made: World, tmp_path: Path) -> None:
    patients = sorted(made.scans["patient"].unique())
    later = set(patients[::3])
    rows = "\n".join(f"{who},{2016 if who in later else 2012}" for who in patients)
    splits = 'kind = "temporal"\nouter = 3\ninner = 2\ncut = "2015"'
    imaged_too = imaged(made, tmp_path / "registry")
    folder = start(tmp_path, imaged_too, splits, f"patient,first_scan\n{rows}\n", features="radiomics = false")
    found = json.loads((folder / "evaluation.json").read_text())
    split = Nested.load(folder / "splits.json")
    assert set(split.outer[0]) <= later and found["patients"] == len(split.outer[0])
    report = json.loads((folder / "report.json").read_text())
    assert any(line.startswith("Split in time: fitted on") for line in report["summary"])
    assert report["checklists"]["CLAIM 2024"]
    # What a later patient's outcome is changes no prediction of anybody else.
    predictions = pd.read_parquet(folder / "predictions.parquet").query("arm == 'radiomics'")
    data = read_data(folder, tmp_path / "registry")
    for number in range(3):
        assert not {data.patients[row] for row in split.fold(number, data.patients)[0]} & later
    assert len(predictions) == len(data.cohort)
    bundle = make_bundle(folder, tmp_path / "bundle", name="time", version="1", created_by="a test")
    assert bundle.manifest.population.patients == len(set(data.patients) - later)
    said = held_out.read(tmp_path / "bundle")
    assert said is not None and {said.fold(who) for who in split.outer[0]} == {0}
    (tmp_path / "bundle").rename(folder / "bundle")
    verdict = gate.compare(folder, None, lambda *_: None)
    parity = next(check for check in verdict.checks if check.name == "parity")
    assert parity.passed, "the models are asked about later patients alone, and answer as the run did"


def test_a_nodes_registry_without_groups_has_no_calendar_time(made: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"are no calendar dates \(shifted by patient\)"):
        start(tmp_path, made, 'kind = "temporal"')
    with pytest.raises(UsageError, match="splits.cut: 'spring': Value error, is neither a year nor a date"):
        load(settings_toml(tmp_path, splits='kind = "temporal"\ncut = "spring"'))
