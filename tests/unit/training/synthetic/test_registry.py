"""The synthetic registry on disk: complete, repeatable, restartable, and never written over something else."""

import csv
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from dicomnode.errors import UsageError
from dicomnode.registry_format.volumes import read_volume
from tests.helpers.waiting import until
from training.data import cohort, follow_up, registry_folder
from training.data.outcomes import status_at
from training.synthetic.patients import draw
from training.synthetic.registry import Request, make_registry
from training.synthetic.scans import scan_phantom

SEED = 5


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    folder, progress = tmp_path_factory.mktemp("synthetic") / "a", []
    make_registry(folder, Request(2, SEED, radiomics=True), workers=1, progress=lambda *step: progress.append(step))
    return folder, progress


def test_the_registry_is_complete(made) -> None:
    folder, progress = made
    scans = rows(folder / "scans.csv")
    assert progress[-1] == (len(scans), len(scans))
    assert sorted(p.name for p in folder.iterdir()) == [
        "features.parquet",
        "outcomes.csv",
        "registry.toml",
        "scans.csv",
        "truth.csv",
        "volumes",
    ]
    about = tomllib.loads((folder / "registry.toml").read_text())
    assert (about["format"], about["made_by"], about["radiomics_spacing_mm"]) == (2, "synthetic", 4)
    assert "reduced resolution" in about["notes"] and about["algorithm_digest"] == [scans[0]["algorithm_digest"]]
    assert [r["patient"] for r in rows(folder / "outcomes.csv")] == ["S0000", "S0001"]
    assert [r["scan"] for r in rows(folder / "truth.csv")] == [r["scan"] for r in scans]


def test_features_stand_in_the_order_of_the_scans(made) -> None:
    folder, _ = made
    table = pd.read_parquet(folder / "features.parquet")
    assert list(table["scan"]) == [r["scan"] for r in rows(folder / "scans.csv")]
    radiomics = [c for c in table if c.startswith("radiomics.")]
    assert len(radiomics) == 3 * 107
    assert {"quantities.lungs.haa_percent", "quantities.lower_third_rim.mean_hu"} <= set(table)
    assert np.isfinite(table.drop(columns="scan").to_numpy()).all()
    assert (table.drop(columns="scan").dtypes == "float64").all()


def test_scans_and_outcomes_are_read_back(made) -> None:
    found = registry_folder.read(made[0])
    built = cohort.build(found, follow_up.read_outcomes(made[0] / "outcomes.csv"), transplant="ignore")
    drawn = {s.scan: s for s in draw(2, SEED)[1]}
    truth = pd.read_csv(made[0] / "truth.csv")
    assert list(truth["scan"]) == list(found.scans["scan"])
    assert (np.diff(truth[["risk_1y", "risk_3y", "risk_5y"]], axis=1) > 0).all(), "risk rises with the horizon"
    assert set(built.frame["scan"]) == set(found.scans["scan"])
    for scan, years, event in zip(built.frame["scan"], built.outcomes.years, built.outcomes.event, strict=True):
        patient = drawn[scan].patient
        assert years == pytest.approx(patient.end - drawn[scan].years, abs=1 / 365)
        assert event == (patient.death <= patient.contact)
    volume, labels = read_volume(made[0] / found.scans["volume"].iloc[0])
    assert volume.hu.dtype == np.int16 and labels.shape == volume.hu.shape
    assert 2000 < (labels > 0).sum() * volume.voxel_ml < 6000
    dead, known = status_at(built.outcomes, 1)
    assert (known | ~dead).all()


def test_a_finished_registry_is_left_alone_and_no_other_is_overwritten(made, tmp_path: Path) -> None:
    folder, _ = made
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert make_registry(folder, Request(2, SEED, radiomics=True)) == len(rows(folder / "scans.csv"))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with pytest.raises(UsageError, match="holds another registry"):
        make_registry(folder, Request(3, SEED, radiomics=True))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        make_registry(tmp_path, Request(2, SEED))


def test_what_an_older_version_has_begun_or_finished_is_not_mixed_with_this_ones(tmp_path: Path) -> None:
    request = Request(2, SEED)
    stated = "{patients = 2, seed = 5, radiomics = false, volumes = true}"
    begun, finished = tmp_path / "begun", tmp_path / "finished"
    (begun / "scans").mkdir(parents=True)
    (begun / "unfinished.json").write_text(stated)
    with pytest.raises(UsageError, match="was begun by an older version, in another format: give a new folder"):
        make_registry(begun, request)
    finished.mkdir()
    (finished / "registry.toml").write_text(f'format = 1\nmade_by = "synthetic"\nrequest = {stated}\n')
    make_registry(finished, request)
    assert [p.name for p in finished.iterdir()] == ["registry.toml"]


@pytest.mark.slow
def test_what_was_broken_off_goes_on_and_ends_alike(tmp_path: Path) -> None:
    whole, request = tmp_path / "whole", Request(2, SEED, volumes=False)
    scans = make_registry(whole, request, workers=1)
    broken, progress = tmp_path / "broken", []

    def break_off(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_registry(broken, request, workers=1, progress=break_off)
    with (broken / "unfinished.jsonl").open("a") as log:
        log.write('{"scan": "S0001-1", "feat')  # a kill in the middle of a line
    with pytest.raises(UsageError, match="was begun with"):
        make_registry(broken, Request(3, SEED, volumes=False))
    make_registry(broken, request, workers=1, progress=lambda *step: progress.append(step))
    assert progress[0] == (2, scans), "the one that was done is not made again"
    for name in ("scans.csv", "outcomes.csv", "truth.csv", "features.parquet"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert not list((broken / "volumes").iterdir())


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind_and_can_go_on(tmp_path: Path) -> None:
    out = tmp_path / "registry"
    command = [sys.executable, "-m", "training", "synthetic", "--patients", "40", "--no-volumes", "--out", str(out)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = out / "unfinished.jsonl"
    until("a scan written", lambda: begun.is_file() and begun.stat().st_size > 0)
    workers = process.children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=240)
    assert workers and not alive
    assert not (out / "registry.toml").exists()


def test_the_image_follows_the_severity() -> None:
    scans = draw(60, SEED)[1]
    mild, severe = min(scans, key=lambda s: s.severity), max(scans, key=lambda s: s.severity)
    changed = [scan_phantom(s).truth for s in (mild, severe)]
    assert changed[1].ground_glass_percent > changed[0].ground_glass_percent + 5
    assert changed[1].reticulation_percent > changed[0].reticulation_percent + 3
    assert changed[1].right_ml + changed[1].left_ml < changed[0].right_ml + changed[0].left_ml


def test_no_patients_are_refused() -> None:
    with pytest.raises(UsageError, match="--patients is 0"):
        Request(0, seed=5)
