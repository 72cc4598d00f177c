"""The image arms in small: what they refuse, what they resume, and that several processes do what one does."""

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.analysis.risk import network
from dicomnode.errors import UsageError
from tests.conftest import ROOT
from tests.helpers.deep_cases import SPEC, TABLE, cohort, inner, tiny_encoder
from training.data.outcomes import Outcomes
from training.models.arm import Data
from training.models.deep import arm as deep_arm
from training.models.deep import fit as loop
from training.models.deep import settings as deep_settings
from training.models.deep.arm import DeepArm
from training.models.deep.distributed import alone
from training.models.deep.job import FitJob
from training.models.deep.prepared_slices import Prepared, batches
from training.models.deep.settings import DeepSettings

torch.set_num_threads(1)


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return cohort(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose steps take milliseconds, where the backbone is not what is tested."""
    monkeypatch.setattr(network, "encoder", tiny_encoder)


small = pytest.mark.usefixtures("tiny")


def fitted(
    data: Data, folder: Path, progress=quiet, name: str = "resnet18", **settings: object
) -> deep_arm.FittedNetwork:
    train, fit, validate = inner(data)
    arm: DeepArm = deep_arm.make(name, {**TABLE, **settings})
    return arm.fit(data, train, [(fit, validate)], folder, seed=3, progress=progress)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@small
@pytest.mark.parametrize("prior", [False, True])
def test_the_network_learns_and_predicts(data: Data, tmp_path: Path, prior: bool) -> None:
    learnt = fitted(data, tmp_path, epochs=12, batch=2, learning_rate=1e-2, prior=prior, refit=True)
    rows = np.arange(12, 16)  # in no part of the fit: P6 dies, P7 lives
    risks = learnt.predict(rows)
    assert risks.shape == (4, 5)
    assert (np.diff(risks, axis=1) >= 0).all() and ((risks >= 0) & (risks <= 1)).all()
    assert risks[:2, 2].min() > risks[2:, 2].max()
    stopped = json.loads((tmp_path / deep_arm.STOPPING / "fit.json").read_text())
    assert stopped["train_loss"][-1] < stopped["train_loss"][0]
    assert 1 <= stopped["best_epoch"] <= len(stopped["validation_loss"]) <= 12
    assert stopped["scans"] == {"fit": 8, "validate": 4}
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["scans"] == {"fit": 12, "validate": 0}
    assert report["best_epoch"] == report["stop_after"] == len(report["train_loss"]) == stopped["best_epoch"]
    assert report["validation_loss"] == []
    assert not (tmp_path / deep_arm.STOPPING / "model.safetensors").exists()
    np.testing.assert_allclose(learnt.predict(rows[::-1]), risks[::-1], atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "swin_t"])
def test_each_backbone_fits(data: Data, tmp_path: Path, name: str) -> None:
    assert fitted(data, tmp_path, name=name, epochs=1).predict(np.arange(2)).shape == (2, 5)


class Killed(Exception):
    """The process ends here."""


@small
@pytest.mark.parametrize(("part", "refit"), [("stopped", False), ("stopped", True), ("on all patients", True)])
def test_killed_and_resumed_is_as_uninterrupted(data: Data, tmp_path: Path, part: str, refit: bool) -> None:
    """Dropout's, the order's and the augmentation's random numbers go on as if nothing had been."""
    last = part != "stopped"

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("Fitting") and done == 2 and ("on all patients" in what) == last:
            raise Killed

    settings = {"prior": True, "refit": refit, "epochs": 3, "batch": 2, "learning_rate": 1e-2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    steps: list[tuple[bool, int]] = []

    def note(what: str, done: int, _: int) -> None:
        if what.startswith("Fitting"):
            steps.append(("on all patients" in what, done))

    fitted(data, whole, note, **settings)
    assert (True, 2) in steps or not refit
    with pytest.raises(Killed):
        fitted(data, cut, kill, **settings)
    place = cut / deep_arm.STOPPING if refit and not last else cut
    assert (place / "checkpoint.pt").is_file() and not (place / "model.safetensors").exists()
    left = steps[steps.index((last, 2)) + 1 :]
    steps.clear()
    fitted(data, cut, note, **settings)
    assert steps == left, "no finished epoch is done again"
    assert weights(cut) == weights(whole)
    assert json.loads((cut / "fit.json").read_text()) == json.loads((whole / "fit.json").read_text())
    assert not (place / "checkpoint.pt").exists()


@small
def test_a_refit_learns_from_the_patients_who_stopped_it(data: Data, tmp_path: Path) -> None:
    """The network that stopped knew nothing of their outcomes; the one that is kept does, and of nobody else's."""
    train, _, validate = inner(data)
    years, event = data.outcomes.years.copy(), data.outcomes.event.copy()
    years[validate], event[validate] = 0.3, True
    changed = dataclasses.replace(data, outcomes=dataclasses.replace(data.outcomes, years=years, event=event))
    settings = {"epochs": 1, "batch": 4}
    kept = []
    for refit in (False, True):
        one, other = tmp_path / f"one-{refit}", tmp_path / f"other-{refit}"
        fitted(data, one, refit=refit, **settings)
        fitted(changed, other, refit=refit, **settings)
        kept.append(weights(one) == weights(other))
    assert kept == [True, False]
    outside = np.setdiff1d(np.arange(len(data.outcomes.years)), train)
    years, event = data.outcomes.years.copy(), data.outcomes.event.copy()
    years[outside], event[outside] = 0.3, True
    foreign = dataclasses.replace(data, outcomes=dataclasses.replace(data.outcomes, years=years, event=event))
    fitted(foreign.hidden_outside(train), tmp_path / "foreign", refit=True, **settings)
    fitted(data.hidden_outside(train), tmp_path / "own", refit=True, **settings)
    assert weights(tmp_path / "foreign") == weights(tmp_path / "own")


@small
def test_a_finished_fold_is_only_loaded_and_a_changed_one_is_not(data: Data, tmp_path: Path) -> None:
    first = fitted(data, tmp_path, epochs=1)
    made = (tmp_path / "model.safetensors").stat().st_mtime_ns
    seen: list[str] = []
    again = fitted(data, tmp_path, lambda what, *_: seen.append(what), epochs=1)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == made
    assert not [what for what in seen if what.startswith("Fitting")]
    np.testing.assert_array_equal(first.predict(np.arange(3)), again.predict(np.arange(3)))
    fitted(data, tmp_path, epochs=1, weight_decay=0.1)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns != made


@small
def test_the_fit_stops_when_the_inner_fold_gains_nothing(data: Data, tmp_path: Path) -> None:
    """With a learning rate near 0 only chance moves the validation loss."""
    fitted(data, tmp_path, epochs=30, patience=2, learning_rate=1e-9, batch=8)
    report = json.loads((tmp_path / "fit.json").read_text())
    epochs = len(report["validation_loss"])
    assert epochs < 30
    assert epochs - report["best_epoch"] == 2
    assert report["validation_loss"][report["best_epoch"] - 1] == min(report["validation_loss"])


def a_job(data: Data, folder: Path, **settings: object) -> FitJob:
    _, fit, validate = inner(data)
    arm = deep_arm.make("resnet18", {**TABLE, **settings})
    return arm._job(data, fit, validate, 3, quiet)


def test_a_network_that_was_fitted_under_the_former_name_of_a_setting_is_not_fitted_anew() -> None:
    settings = deep_settings.read({**TABLE, "earlier": True})
    assert settings == deep_settings.read({**TABLE, "prior": True}) and settings.prior
    files = Prepared((Path("spec/a.npy"), Path("spec/b.npy")))
    outcomes = Outcomes(np.array([2.0, 1.0]), np.array([False, True]))
    years, rows = np.array([np.nan, 1.25]), np.array([0])
    job = FitJob("resnet18", settings, 3, files, np.array([-1, 0]), years, outcomes, rows, rows + 1)
    assert job.digest == "a0abbcc367d148085db68d5f3a9ffa5d3b309fc5ca7381df82956f60c9f63154"  # as 0.1.0 made it


def whole_gradients(job: FitJob, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """In evaluation mode: a batch norm in training sees the part that it is given."""
    torch.manual_seed(job.seed)
    net = loop.start(job).eval()
    if net.change is not None:
        torch.nn.init.constant_(net.change.hazard.weight, 0.1)
    loop.gradients(net, job, rows, next(batches(job.scans, [loop.with_priors(job, rows)])), (0, 0), alone("cpu"))
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@small
@pytest.mark.parametrize("prior", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_step(data: Data, tmp_path: Path, prior: bool) -> None:
    jobs = [a_job(data, tmp_path, accumulate=accumulate, prior=prior) for accumulate in (1, 3)]
    whole, parts = (whole_gradients(job, job.fit[:7]) for job in jobs)
    assert whole.keys() == parts.keys() and ("change.hazard.weight" in whole) == prior
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from training.models.deep import fit as loop
from training.models.deep.job import FitJob
from training.models.deep.prepared_slices import batches
from training.models.deep.distributed import alone, joined

torch.set_num_threads(1)

def step(job, ranks):
    torch.manual_seed(job.seed)
    net = loop.start(job).eval()
    torch.nn.init.constant_(net.change.hazard.weight, 0.1)
    wrapped = ranks.wrapped(net).eval()
    rows = job.fit[:7]
    mine = loop.with_priors(job, rows[ranks.rank :: ranks.world])
    loop.gradients(wrapped, job, rows, next(batches(job.scans, [mine])), (0, 0), ranks)
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

with joined("cpu") as ranks:
    assert ranks.world == 2
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        job = FitJob.load(folder)
        together = step(job, ranks)
        if ranks.first:
            single = step(job, alone("cpu"))
            assert together.keys() == single.keys() and len(single) > 60
            for key, gradient in single.items():
                torch.testing.assert_close(together[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda m: key + m)
            (folder / "equal").touch()
"""


@pytest.mark.slow
def test_two_processes_come_to_the_gradients_of_one(data: Data, tmp_path: Path) -> None:
    """Gloo, an uneven share (4 and 3 scans). In evaluation mode, since each process's batch norms see its own scans."""
    jobs = tmp_path / "jobs"
    for accumulate in (1, 2):
        a_job(data, tmp_path, prior=True, accumulate=accumulate).save(jobs / str(accumulate))
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    root = ROOT
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command += [str(script), str(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all((jobs / str(accumulate) / "equal").exists() for accumulate in (1, 2))


@pytest.mark.slow
def test_the_arm_starts_its_processes_itself(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: list[tuple[str, int, int]] = []
    learnt = fitted(data, tmp_path, lambda *progress: seen.append(progress), processes=2, epochs=1)
    assert [s[1:] for s in seen if s[0].startswith("Fitting")] == [(1, 1)]
    assert learnt.predict(np.arange(2)).shape == (2, 5)
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["settings"]["processes"] == 2
    # The mean over all scans: each process's batch norms see its own scans, so it is near one process's loss, not it.
    fitted(data, tmp_path / "one", epochs=1)
    single = json.loads((tmp_path / "one" / "fit.json").read_text())["train_loss"][0]
    assert report["train_loss"][0] == pytest.approx(single, rel=0.25)


def test_a_job_is_the_same_when_read_back(data: Data, tmp_path: Path) -> None:
    job = a_job(data, tmp_path, prior=True)
    job.save(tmp_path)
    read = FitJob.load(tmp_path)
    assert read.digest == job.digest and read.settings == job.settings
    assert dataclasses.replace(read, seed=4).digest != job.digest


def test_a_job_is_the_same_wherever_its_files_lie(data: Data, tmp_path: Path) -> None:
    job = a_job(data, tmp_path)
    digests = set()
    for path, sha256 in (("a/net.pth", "0" * 64), ("b/net.pth", "0" * 64), ("b/net.pth", "1" * 64)):
        table = {**TABLE, "pretrained": {"resnet18": {"path": path, "sha256": sha256}}}
        digests.add(dataclasses.replace(job, settings=deep_settings.read(table)).digest)
    assert len(digests) == 2 and job.digest not in digests


def test_a_scan_without_volume_is_refused(data: Data, tmp_path: Path) -> None:
    table = data.cohort.assign(volume=["", *data.cohort["volume"][1:]])
    with pytest.raises(UsageError, match=r"1 of 16 scans have no stored volume.*remove this arm"):
        fitted(dataclasses.replace(data, cohort=table), tmp_path)


def test_a_part_without_deaths_is_refused(data: Data, tmp_path: Path) -> None:
    living = dataclasses.replace(data.outcomes, event=np.zeros(16, bool))
    with pytest.raises(UsageError, match="no death within 5 years among 8 fit scans"):
        fitted(dataclasses.replace(data, outcomes=living), tmp_path)


@small
def test_a_backbone_may_have_a_learning_rate_of_its_own(data: Data, tmp_path: Path) -> None:
    fitted(data, tmp_path / "a", epochs=1, learning_rate=1e-2)
    fitted(data, tmp_path / "b", epochs=1, learning_rate=1e-9, learning_rates={"resnet18": 1e-2, "swin_t": 1e-9})
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@small
def test_outcomes_of_other_rows_change_nothing(data: Data, tmp_path: Path) -> None:
    train, _, _ = inner(data)
    years = data.outcomes.years.copy()
    years[np.setdiff1d(np.arange(16), train)] = 0.5
    other = dataclasses.replace(data, outcomes=dataclasses.replace(data.outcomes, years=years))
    fitted(data, tmp_path / "a", epochs=1)
    fitted(other, tmp_path / "b", epochs=1)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": 1}, r"deep\.colour: Extra inputs are not permitted"),
        ({"epochs": 0}, r"deep\.epochs: .*\(found 0\)"),
        ({"spec": {**SPEC, "slices": 0}}, "slices is 0: give 1 to 512"),
        ({"spec": {"sharpen": 1}}, "unknown or missing key: sharpen"),
        ({"learning_rates": {"vgg": 1e-4}}, "unknown backbone vgg"),
        ({"pretrained": {"vgg": {"path": "x", "sha256": "0" * 64}}}, "unknown backbone vgg"),
        ({"augmentation": {"zoom": 2}}, r"deep\.augmentation\.zoom"),
        ({"precision": "int4"}, r"deep\.precision"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        deep_arm.make("resnet18", settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"deep\.device is cuda, but process 0 finds 0 GPUs"):
        alone("cuda")


def test_the_example_shows_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "research" / "training-run.toml").read_text("utf-8")
    shown = tomllib.loads(text)["deep"]
    default = DeepSettings().model_dump(mode="json")
    assert set(shown) == set(default) - {"cache", "pretrained"} and "# cache = " in text
    assert deep_settings.read(shown) == DeepSettings()
    assert set(shown["augmentation"]) == set(default["augmentation"])


@pytest.mark.parametrize(
    ("able", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_a_cpu_computes_in_bf16_only_where_it_can(
    able: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert loop.forward_precision("auto", torch.device("cpu")) is expected
    assert loop.forward_precision("float32", torch.device("cpu")) is torch.float32
    assert loop.forward_precision("float16", torch.device("cpu")) is torch.float16


@small
def test_half_precision_fits_too(data: Data, tmp_path: Path) -> None:
    fitted(data, tmp_path, epochs=1, precision="bfloat16", prior=True)
    report = json.loads((tmp_path / "fit.json").read_text())
    assert np.isfinite([*report["train_loss"], *report["validation_loss"]]).all()
