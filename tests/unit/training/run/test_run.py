"""A run in steps: what it leaves, that it goes on where it was killed, that no outcome leaks into a prediction."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dicomnode.analysis.risk import network
from dicomnode.errors import DicomnodeError, UsageError
from tests.conftest import ROOT
from tests.helpers.deep_cases import tiny_encoder
from tests.helpers.tabular_worlds import World, settings_toml, world, write
from training.data.cohort import load, outcomes_of
from training.data.splits import LeakageError, Nested
from training.evaluation import metrics
from training.models.stacking import RISKS
from training.run.cross_fit import checked, seed_of
from training.run.run import read_data, run
from training.run.settings import load as load_settings

torch.set_num_threads(1)  # two that wait for each other on a busy machine take many times as long

#: Two outer and two inner folds, and models that take a fraction of a second.
SMALL = {
    "splits": "outer = 2\ninner = 2",
    "radiomics": 'models = ["cox"]',
    "evaluation": "bootstrap = 100",
    "bundle": "make = false",
}


def start(folder: Path, made: World, until: str = "ensemble", **tables: str) -> Path:
    """A registry and a run of it."""
    write(made, folder / "registry")
    toml = settings_toml(folder, **{**SMALL, **tables})
    return run(load_settings(toml), toml.read_text(), lambda *_: None, until)


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("finished"), world(patients=100), until="evaluation")


def test_the_run_folder_holds_what_is_needed_to_repeat_it(finished: Path) -> None:
    kept = record(finished)
    done = {step for step, entry in kept["steps"].items() if entry["state"] == "done"}
    assert done == {"cohort", "splits", "features", "arms", "arms/radiomics", "ensemble", "baselines", "evaluation"}
    assert kept["split_sha256"] == Nested.load(finished / "splits.json").sha256
    assert set(kept["fixed"]["sha256"]) == {"registry", "outcomes"} and set(kept["sha256"]) == {"cohort", "features"}
    assert (
        kept["settings"]["seed"] == 1 and kept["software"]["lifelines"] and kept["software"]["numpy"] == np.__version__
    )
    assert (finished / "run.toml").read_text() == (finished.parent / "run.toml").read_text()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert kept["code"].get("git_commit", "") == commit.strip()
    assert kept["radiomics_settings"]["setting"]["resampledPixelSpacing"] == [1, 1, 1]


def test_predictions_are_of_every_scan_once_by_every_arm(finished: Path) -> None:
    predictions, frame = pd.read_parquet(finished / "predictions.parquet"), load(finished / "cohort.parquet")
    assert list(predictions) == ["arm", "scan", "patient", "fold", *RISKS]
    assert list(RISKS) == [f"risk_{year}" for year in range(1, 6)]
    for arm in ("radiomics", "ensemble"):
        of = predictions[predictions["arm"] == arm].reset_index(drop=True)
        assert of[["scan", "patient"]].equals(frame[["scan", "patient"]])
        assert of.groupby("patient")["fold"].nunique().max() == 1
        assert np.all(np.diff(of[list(RISKS)].to_numpy(), axis=1) >= 0)
    assert json.loads((finished / "evaluation.json").read_text())["scans"] == len(frame)


def test_the_arm_is_told_no_outcome_outside_its_training_part(finished: Path) -> None:
    data, split = read_data(finished, finished.parent / "registry"), Nested.load(finished / "splits.json")
    train, test = split.fold(0, data.patients)
    hidden = data.hidden_outside(train)
    assert not hidden.outcomes.event[test].any() and not hidden.outcomes.years[test].any()
    np.testing.assert_array_equal(hidden.outcomes.years[train], data.outcomes.years[train])
    assert not {"time_years", "event"} & set(hidden.cohort)


def test_a_finished_run_does_nothing_again_and_another_is_refused(finished: Path) -> None:
    toml = finished.parent / "run.toml"
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")}
    run(load_settings(toml), toml.read_text(), lambda *_: None, "evaluation")
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")}
    other = toml.read_text().replace("outer = 2", "outer = 3")
    toml.with_name("other.toml").write_text(other)
    with pytest.raises(
        UsageError, match=r"contains a run with a different settings\.splits\.outer: choose a new run folder"
    ):
        run(load_settings(toml.with_name("other.toml")), other, lambda *_: None, "evaluation")


def test_a_run_goes_on_with_other_workers_and_from_another_place(tmp_path: Path) -> None:
    """What changes no number may change; device and processes, which do, may not."""
    digest = f'sha256 = "{"a" * 64}"'
    (tmp_path / "one").mkdir()
    deep = f'workers = 1\n[deep.pretrained.resnet18]\npath = "one.pth"\n{digest}'
    folder = start(tmp_path / "one", world(patients=60), until="splits", features="workers = 1", deep=deep)
    made = (folder / "splits.json").stat().st_mtime_ns
    (tmp_path / "one").rename(tmp_path / "two")
    moved = tmp_path / "two"

    def again(features: str, deep: str) -> None:
        toml = settings_toml(moved, **{**SMALL, "features": features, "deep": deep})
        run(load_settings(toml), toml.read_text(), lambda *_: None, "splits")

    other = f'workers = 2\ncache = "c"\n[deep.pretrained.resnet18]\npath = "else.pth"\n{digest}'
    again("workers = 2", other)
    assert (moved / "run" / "splits.json").stat().st_mtime_ns == made
    assert record(moved / "run")["settings"]["features"]["workers"] == 2
    for changed, name in (
        (other.replace("a" * 64, "b" * 64), r"pretrained\.resnet18\.sha256"),
        (f'device = "cuda"\n{other}', "device"),
        (f"processes = 2\n{other}", "processes"),
    ):
        with pytest.raises(UsageError, match=rf"contains a run with a different settings\.deep\.{name}:"):
            again("workers = 2", changed)


def test_imagenet_weights_that_are_not_there_are_told_of_at_once(tmp_path: Path) -> None:
    """Not when the network is fitted, hours later; and an unfit file leaves no run folder behind."""
    (tmp_path / "net.pth").write_bytes(b"other")
    deep = f'[deep.pretrained.resnet18]\npath = "net.pth"\nsha256 = "{"a" * 64}"'
    with pytest.raises(UsageError, match=r"deep\.pretrained\.resnet18: .*net\.pth has sha256 .*expected aaaa"):
        start(tmp_path, world(patients=20), until="cohort", top='arms = ["resnet18"]', deep=deep)
    (tmp_path / "net.pth").unlink()
    with pytest.raises(UsageError, match=r"net\.pth: No such file"):
        start(tmp_path, world(patients=20), until="cohort", top='arms = ["resnet18"]', deep=deep)
    assert not (tmp_path / "run").exists()


def test_late_settings_are_done_anew(finished: Path) -> None:
    toml = finished.parent / "late.toml"
    text = (finished.parent / "run.toml").read_text().replace("bootstrap = 100", "bootstrap = 50")
    toml.write_text(text)
    fitted = (finished / "predictions.parquet").stat().st_mtime_ns
    run(load_settings(toml), text, lambda *_: None, "evaluation")
    assert json.loads((finished / "evaluation.json").read_text())["bootstrap"] == 50
    assert (finished / "predictions.parquet").stat().st_mtime_ns == fitted


def test_input_that_changed_and_a_second_run_at_once_are_refused(tmp_path: Path) -> None:
    folder = start(tmp_path, world(patients=60), until="splits")
    toml, outcomes = tmp_path / "run.toml", tmp_path / "registry" / "outcomes.csv"
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(UsageError, match="is in use by another run"):
        run(load_settings(toml), "", lambda *_: None, "splits")
    holder.communicate(b"\n")
    outcomes.write_text("\n".join(outcomes.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UsageError, match=r"contains a run with a different sha256\.outcomes"):
        run(load_settings(toml), "", lambda *_: None, "splits")
    (folder / "run.json").unlink()
    with pytest.raises(UsageError, match=r"cohort\.parquet was made from different input or settings"):
        run(load_settings(toml), "", lambda *_: None, "splits")


@pytest.mark.slow
def test_a_run_killed_inside_an_arm_goes_on_where_it_was(tmp_path: Path) -> None:
    made = world(patients=100)
    tables = {"splits": "outer = 3\ninner = 2"}
    (tmp_path / "whole").mkdir()
    whole = start(tmp_path / "whole", made, **tables)
    folder = tmp_path / "killed"
    write(made, folder / "registry")
    toml = settings_toml(folder, **{**SMALL, **tables})
    command = [sys.executable, "-m", "training", "run", str(toml), "--until", "ensemble"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    second = folder / "run" / "arms" / "radiomics" / "fold-1"
    deadline = time.monotonic() + 120
    while not (second / "inner.json").is_file():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    tried = set(json.loads((second / "inner.json").read_text())["scores"])
    assert record(folder / "run")["steps"]["arms/radiomics"]["state"] == "running"
    assert not (second / "fit.json").is_file() and 0 < len(tried) < 4
    first = folder / "run" / "arms" / "radiomics" / "fold-0" / "model.json"
    before = first.stat().st_mtime_ns

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == before and len(record(folder / "run")["starts"]) == 2
    for name in ("predictions.parquet", "cohort.parquet", "features.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(folder / "run" / name), pd.read_parquet(whole / name))
    assert (folder / "run" / "splits.json").read_text() == (whole / "splits.json").read_text()


def test_a_run_that_was_begun_under_the_former_name_of_a_setting_goes_on(tmp_path: Path) -> None:
    table = "earlier = true\nspec = {slices = 4}"
    folder = start(tmp_path, world(patients=40), until="splits", deep=table)
    kept = record(folder)
    assert kept["fixed"]["settings"]["deep"]["prior"] is kept["settings"]["deep"]["prior"] is True
    for part in (kept["fixed"]["settings"], kept["settings"]):
        part["deep"] = {"earlier": True, "spec": {"slices": 4}}
    (folder / "run.json").write_text(json.dumps(kept))
    toml = tmp_path / "run.toml"
    run(load_settings(toml), toml.read_text(), lambda *_: None, "splits")
    assert record(folder)["fixed"]["settings"]["deep"] == {"prior": True, "spec": {"slices": 4}}
    toml.write_text(toml.read_text().replace("earlier = true", "prior = false"))
    with pytest.raises(UsageError, match=r"contains a run with a different settings.deep.prior"):
        run(load_settings(toml), toml.read_text(), lambda *_: None, "splits")


def interval_of_auc(folder: Path, arm: str, years: int) -> tuple[float, float]:
    predictions, frame = pd.read_parquet(folder / "predictions.parquet"), load(folder / "cohort.parquet")
    risk = predictions.loc[predictions["arm"] == arm, f"risk_{years}"].to_numpy()
    counts = metrics.bootstrap_counts(frame["patient"].to_list(), 300, 1)
    return metrics.interval(metrics.auc(metrics.at_horizon(outcomes_of(frame), years, counts), risk))


def permuted(made: World) -> World:
    """Whole follow-up times change hands; scans after the new patient's end are left out."""
    rng = np.random.default_rng(4)
    shuffled = made.outcomes.iloc[rng.permutation(len(made.outcomes))].reset_index(drop=True)
    shuffled["patient"] = made.outcomes["patient"]
    ends = pd.to_datetime(shuffled["last_contact_date"]).set_axis(shuffled["patient"])
    kept = pd.to_datetime(made.scans["date"]).to_numpy() < ends.loc[made.scans["patient"]].to_numpy()
    assert kept.mean() > 0.6
    return World(made.scans[kept], made.features[kept], shuffled, made.severity[kept])


def assert_nothing_is_told(folder: Path, *arms: str) -> None:
    for arm in arms:
        for years in (1, 3, 5):
            low, high = interval_of_auc(folder, arm, years)
            assert low < 0.5 < high, (arm, years, low, high)


@pytest.mark.slow
def test_permuted_outcomes_leave_nothing_to_learn(tmp_path: Path) -> None:
    """Outcomes of another patient: AUC covers 0.5. With the patients' own it does not."""
    made = world(patients=150, effect=1.5)
    models = 'models = ["cox", "boosting", "network"]'
    for name in ("true", "permuted"):
        (tmp_path / name).mkdir()
    true = start(tmp_path / "true", made, radiomics=models)
    noise = start(tmp_path / "permuted", permuted(made), radiomics=models)
    assert_nothing_is_told(noise, "radiomics", "ensemble")
    for arm in ("radiomics", "ensemble"):
        assert interval_of_auc(true, arm, 3)[0] > 0.6


#: One slice of 32 x 32 pixels a scan: an epoch takes a second or two.
NETWORK = """
epochs = 5
batch = 8
learning_rate = 1e-2
workers = 1
spec = {spacing_mm = 8.0, canvas = [32, 32], slices = 1, slab_mm = 16.0}
augmentation = {zoom = 0.0, shift = 0.0, brightness_hu = 0.0, contrast = 0.0, noise_hu = 0.0}
"""


def with_volumes(made: World, registry: Path) -> World:
    """Each scan with an image of two lungs, which are the denser the more severe the disease is."""
    rng = np.random.default_rng(9)
    labels = np.zeros((6, 24, 24), np.uint8)
    labels[1:5, 4:20, 2:11], labels[1:5, 4:20, 13:22] = 1, 2
    (registry / "volumes").mkdir(parents=True)
    for scan, severity in zip(made.scans["scan"], made.severity, strict=True):
        hu = np.where(labels > 0, -700 + 120 * severity + rng.normal(0, 60, labels.shape), -1024)
        place = {"spacing_mm": (16.0, 8.0, 8.0), "origin_mm": (0.0, 0.0, 0.0)}
        np.savez(registry / "volumes" / f"{scan}.npz", hu=hu.astype(np.int16), labels=labels, **place)
    scans = made.scans.assign(volume=[f"volumes/{scan}.npz" for scan in made.scans["scan"]])
    return World(scans, made.features, made.outcomes, made.severity)


@pytest.mark.slow
def test_networks_learn_nothing_from_permuted_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the measured numbers: the images tell the patients' own outcomes, and nothing of another's.

    With a small network: who learns from whom is decided outside of it.
    """
    monkeypatch.setattr(network, "encoder", tiny_encoder)
    arm = "resnet18"
    made = world(patients=160, effect=3.0)
    arms = {"top": f'arms = ["{arm}"]', "deep": NETWORK}
    true = start(tmp_path / "true", with_volumes(made, tmp_path / "true" / "registry"), **arms)
    assert interval_of_auc(true, arm, 3)[0] > 0.55
    noise = start(tmp_path / "permuted", with_volumes(permuted(made), tmp_path / "permuted" / "registry"), **arms)
    assert_nothing_is_told(noise, arm, "ensemble")


def test_a_feature_made_from_the_outcome_is_reported(tmp_path: Path) -> None:
    made = world(patients=80)
    died = made.outcomes.set_index("patient")["death_date"].loc[made.scans["patient"]].to_numpy() != ""
    features = made.features.assign(**{"radiomics.lungs.planted": np.where(died, 1.0, 0.0)})
    folder = start(tmp_path, World(made.scans, features, made.outcomes, made.severity), until="features")
    kept = record(folder)
    assert {s["feature"] for s in kept["suspicious_features"]} == {"radiomics.lungs.planted"}
    assert any("radiomics.lungs.planted alone predicts death at any time (AUC 1.000)" in w for w in kept["warnings"])
    (tmp_path / "clean").mkdir()
    clean = record(start(tmp_path / "clean", made, until="features"))
    assert clean["suspicious_features"] == clean["naming_features"] == []
    assert not [w for w in clean["warnings"] if "state it (provenance." not in w]


@pytest.mark.parametrize("elsewhere", [np.nan, 0.0])
def test_the_outcome_planted_in_one_patients_two_scans_helps_nobody(tmp_path: Path, elsewhere: float) -> None:
    """A right split keeps it from all predictions of others, the record names it, a wrong split is refused."""
    made = world(patients=100)
    dead = made.outcomes.loc[made.outcomes["death_date"] != "", "patient"]
    counts = made.scans["patient"].value_counts()
    patient = next(p for p in dead if counts.get(p) == 2)
    mine = (made.scans["patient"] == patient).to_numpy()
    planted = made.features.assign(**{"radiomics.lungs.planted": np.where(mine, 1.0, elsewhere)})
    found = []
    for name, features in (("clean", made.features), ("planted", planted)):
        (tmp_path / name).mkdir()
        tables = {"radiomics": 'models = ["cox"]\nstability_days = 0'}  # fewer features: less chance in the AUC
        planted_in = World(made.scans, features, made.outcomes, made.severity)
        folder = start(tmp_path / name, planted_in, until="features", **tables)
        right = Nested.load(folder / "splits.json")
        both = tuple(part if patient in part else (*part, patient) for part in right.outer)
        Nested(right.seed, both, right.inner).save(folder / "splits.json")
        toml = tmp_path / name / "run.toml"
        with pytest.raises(LeakageError, match="each patient of the cohort exactly once"):
            run(load_settings(toml), toml.read_text(), lambda *_: None, "ensemble")
        right.save(folder / "splits.json")
        run(load_settings(toml), toml.read_text(), lambda *_: None, "ensemble")
        predictions = pd.read_parquet(folder / "predictions.parquet").query(
            "arm == 'radiomics' and patient != @patient"
        )
        found.append(predictions[list(RISKS)].to_numpy())
    frame = load(folder / "cohort.parquet").query("patient != @patient")
    aucs = [[metrics.auc(metrics.at_horizon(outcomes_of(frame), y), r[:, y - 1]) for y in (1, 3, 5)] for r in found]
    np.testing.assert_allclose(aucs[1], aucs[0], atol=0.005)

    kept = record(folder)
    assert kept["naming_features"] == ["radiomics.lungs.planted"]
    assert any("a value of radiomics.lungs.planted: does it identify them" in w for w in kept["warnings"])


def test_a_patient_on_both_sides_stops_the_run(tmp_path: Path) -> None:
    """A feature that gives a patient away (the same in both scans) is worth something only to a leaking split."""
    made = world(patients=60)
    folder = start(tmp_path, made, until="features")
    split = Nested.load(folder / "splits.json")
    patient = split.outer[0][0]
    planted = Nested(split.seed, (split.outer[0], (*split.outer[1], patient)), split.inner)
    planted.save(folder / "splits.json")  # with the right hash: not the file is wrong but what it says
    toml = tmp_path / "run.toml"
    with pytest.raises(LeakageError, match="each patient of the cohort exactly once"):
        run(load_settings(toml), toml.read_text(), lambda *_: None, "arms")
    assert not list(folder.glob("arms/radiomics/fold-*"))


def test_steps_and_arms_must_be_known(tmp_path: Path) -> None:
    toml = settings_toml(tmp_path)
    with pytest.raises(UsageError, match="unknown step 'fit': use cohort, splits, features, arms"):
        run(load_settings(toml), "", lambda *_: None, "fit")
    toml = settings_toml(tmp_path, top='arms = ["vgg"]')
    with pytest.raises(UsageError, match="arms: 'vgg' is unknown: use radiomics, resnet18"):
        run(load_settings(toml), "", lambda *_: None)


def test_the_seed_of_a_fold_hangs_on_arm_and_fold_alone() -> None:
    seeds = {seed_of(s, arm, fold) for s in (1, 2) for arm in ("radiomics", "resnet18") for fold in range(5)}
    assert len(seeds) == 20 and all(0 <= s < 2**32 for s in seeds)


@pytest.mark.parametrize(
    ("risks", "message"),
    [
        (np.full((9, 5), np.nan), "not 9 rows of probabilities"),
        (np.full((9, 4), 0.5), "not 9 rows of probabilities"),
        (np.full((9, 5), 1.5), "not 9 rows of probabilities"),
        (np.tile([0.5, 0.4, 0.4, 0.4, 0.4], (9, 1)), "decreases from one year to the next"),
    ],
)
def test_what_is_no_prediction_is_not_taken(risks: np.ndarray, message: str) -> None:
    with pytest.raises(DicomnodeError, match=message):
        checked(risks, 9, "radiomics, fold 1 of 2")
