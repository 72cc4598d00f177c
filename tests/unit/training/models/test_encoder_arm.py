"""The arm on embeddings, from run.toml to a bundle that the node serves, with the encoder in it or beside it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, UsageError
from dicomnode.registry_format.volumes import read_volume
from tests.helpers import encoders
from tests.helpers.tabular_worlds import imaged, settings_toml, world, write
from training.models import encoder_arm
from training.release.node_predictions import largest_disagreement
from training.run.run import read_data, run
from training.run.settings import load as load_settings

torch.set_num_threads(1)
TOML = """path = "../encoder.pt"
sha256 = "{sha256}"
licence = "CC-BY-4.0"
redistribute = {redistribute}
correlation = 1.0
[encoder.spec]
spacing_mm = [16.0, 8.0, 8.0]
size = [8, 24, 24]"""


def settings(folder: Path, sha256: str, redistribute: str = "true") -> Path:
    return settings_toml(
        folder,
        top='arms = ["encoder"]',
        splits="outer = 2\ninner = 2",
        features="radiomics = false\nworkers = 1",
        encoder=TOML.format(sha256=sha256, redistribute=redistribute),
        baselines="fit = []",
        evaluation="bootstrap = 20",
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the encoder, and in `work` a registry with volumes and its finished run."""
    folder = tmp_path_factory.mktemp("encoder")
    work = folder / "work"
    write(imaged(world(patients=36, effect=1.6), work / "registry"), work / "registry")
    toml = settings(work, encoders.small(folder / "encoder.pt"))
    run(load_settings(toml), toml.read_text(), lambda *_: None)
    return work


def test_the_bundle_gives_the_embeddings_and_risks_of_training(made: Path) -> None:
    bundle = load(made / "run" / "bundle", allow_demo=False)
    stated = bundle.manifest.encoder
    assert stated is not None and stated.included and stated.licence == "CC-BY-4.0" and stated.width == 6
    data = read_data(made / "run", made / "registry")
    arm = encoder_arm.make(load_settings(made / "run.toml").arm_tables["encoder"])
    table = arm.embeddings(data, lambda *_: None)
    encoder = bundle.models.encoder
    assert encoder is not None and bundle.models.imaged
    for row in (0, 7, 20):
        volume = data.volume(row)
        assert volume is not None
        np.testing.assert_allclose(encoder.embed(*read_volume(volume)), table.iloc[row], atol=1e-6)
    predictions = pd.read_parquet(made / "run" / "predictions.parquet")
    of = predictions[predictions["arm"] == "encoder"]
    risks = of[[c for c in of if c.startswith("risk_")]].to_numpy()
    assert largest_disagreement(bundle, data, of["fold"].to_numpy(), {"encoder": risks}) < 1e-6
    assert np.ptp(risks[:, 2]) > 0.01, "the arm says more than the mean"
    card = (made / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "frozen 3-D encoder `encoder-" in card and "licence: CC-BY-4.0; in this bundle" in card
    record = json.loads((made / "run" / "run.json").read_text())
    assert record["volumes"]["count"] == len(data.cohort), "what the arm looks at is in the run's record"


def test_each_scan_is_embedded_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_data(made / "run", made / "registry")
    table = load_settings(made / "run.toml").arm_tables["encoder"]
    kept = list((made / "registry" / "embeddings").rglob("*.npy"))
    assert len(kept) == len(data.cohort)
    arm = encoder_arm.make(table)
    before = arm.embeddings(data, lambda *_: None)

    def never(*_: object) -> None:
        raise AssertionError("a scan was embedded again")

    monkeypatch.setattr(encoder_arm.EncoderArm, "embed", never)
    pd.testing.assert_frame_equal(encoder_arm.make(table).embeddings(data, lambda *_: None), before)
    other = encoder_arm.make({**table, "spec": {**table["spec"], "values": [-1.0, 1.0]}})  # type: ignore[dict-item]
    with pytest.raises(AssertionError, match="embedded again"):
        other.embeddings(data, lambda *_: None)


def test_a_file_that_may_not_be_passed_on_is_asked_for_with_its_digest(made: Path, tmp_path: Path) -> None:
    from training.bundle.make import make_bundle

    again = tmp_path / "run"
    shutil.copytree(made / "run", again, ignore=shutil.ignore_patterns("bundle"))
    record = json.loads((again / "run.json").read_text())
    record["settings"]["encoder"]["redistribute"] = False
    (again / "run.json").write_text(json.dumps(record))
    made_here = make_bundle(again, tmp_path / "weights" / "one", name="one", version="1", created_by="test")
    stated = made_here.manifest.encoder
    assert stated is not None and not stated.included and not list(made_here.folder.glob("*.pt"))
    beside = tmp_path / "weights" / "encoders" / stated.file
    assert beside.is_file(), "on the machine that made it, the bundle finds its encoder"
    moved = tmp_path / "elsewhere" / "one"
    shutil.copytree(made_here.folder, moved)
    with pytest.raises(BundleError) as refused:
        load(moved, allow_demo=False)
    assert stated.sha256 in str(refused.value) and str(tmp_path / "elsewhere" / "encoders") in str(refused.value)
    (moved.parent / "encoders").mkdir()
    (moved.parent / "encoders" / stated.file).write_bytes(beside.read_bytes() + b" ")
    with pytest.raises(BundleError, match="it was not loaded"):
        load(moved, allow_demo=False)
    shutil.copyfile(beside, moved.parent / "encoders" / stated.file)
    assert load(moved, allow_demo=False).models.encoder is not None


def test_code_is_not_loaded_before_its_digest(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr("torch.jit.load", lambda *a, **_: loads.append(a))
    (tmp_path / "encoder.pt").write_bytes(b"another")
    (tmp_path / "work").mkdir()
    toml = settings(tmp_path / "work", "a" * 64)
    with pytest.raises(UsageError, match=r"encoder\.pt has sha256 .*expected aaaaaaaaaaaa…: it was not loaded"):
        encoder_arm.make(load_settings(toml).arm_tables["encoder"]).load()
    bundle = tmp_path / "bundle"
    shutil.copytree(made / "run" / "bundle", bundle)
    file = next(bundle.glob("encoder-*.pt"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match="is not the file listed in"):
        load(bundle, allow_demo=False)
    assert loads == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": None}, r"needs encoder\.path"),
        ({"sha256": ""}, r"needs encoder\.sha256"),
        ({"licence": ""}, r"needs encoder\.licence: licence of the file"),
        ({"spec": {"size": [8, 8, 8]}}, r"encoder\.spec: a key is missing"),
        ({"sha256": "xyz"}, r"encoder\.sha256"),
    ],
)
def test_settings_that_do_not_suffice_are_named(changes: dict[str, object], message: str) -> None:
    whole = {"path": "e.pt", "sha256": "a" * 64, "licence": "MIT", "spec": encoders.SPEC}
    with pytest.raises(UsageError, match=message):
        encoder_arm.make({**whole, **changes})
