"""What a run's arms look at: the numbers that tell the outcome, the part of the image that does."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.deep_cases import TABLE, cohort, tiny_encoder
from tests.helpers.tabular_worlds import settings_toml, world, write
from training.explanation import explanation, network_explanation
from training.models.deep import arm as deep_arm
from training.run.run import run
from training.run.settings import load

torch.set_num_threads(1)


def test_a_run_tells_the_features_that_its_arm_hangs_on(tmp_path: Path) -> None:
    made = world(patients=80)
    write(made, tmp_path / "registry")
    toml = settings_toml(
        tmp_path,
        splits="outer = 2\ninner = 2",
        features="workers = 1",
        radiomics='models = ["cox"]\nstability = 0',
        evaluation="bootstrap = 20",
        explanation="scans = 40",
        bundle="make = false",
        baselines="fit = []",
    )
    folder = run(load(toml), toml.read_text(), lambda *_: None)
    found = explanation.read(folder)
    assert found is not None and (found.years, found.scans) == (3, 40)
    haa, mean = found.features["radiomics"][:2]
    assert {haa.name, mean.name} == {"quantities.lungs.haa_percent", "quantities.lungs.mean_hu"}
    by_name = {one.name: one for one in found.features["radiomics"]}
    assert by_name["quantities.lungs.haa_percent"].direction > 0.9 and haa.folds == 2 and len(haa.shapley) == 40
    assert by_name["quantities.lungs.mean_hu"].direction < -0.9, "the worlds' severe lungs have the lower mean"
    page, text = ((folder / f"report.{form}").read_text() for form in ("html", "md"))
    assert "What the arms look at" in page and "| radiomics | quantities.lungs.haa_percent |" in text
    assert page.count("contribution to the log cumulative hazard") >= 2
    stored = (folder / explanation.NAME).read_text()
    assert not any(scan in stored for scan in made.scans["scan"]), "no scan is named where none is shown"


def test_networks_are_told_with_pictures_in_the_page_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.analysis.risk.network.encoder", tiny_encoder)
    data = cohort(tmp_path)
    rows = np.arange(len(data.cohort))
    folder = tmp_path / "arm"
    (folder / "fold-0").mkdir(parents=True)
    inner = [(rows[:8], rows[8:12])]
    deep_arm.make("resnet18", {**TABLE, "epochs": 1}).fit(
        data.hidden_outside(rows[:12]), rows[:12], inner, folder / "fold-0", 1, lambda *_: None
    )
    found = network_explanation.explain_arm(folder, data, [rows[12:]], 2, pictures=1)
    assert found is not None and 1 <= found.scans <= 4 and 0 < found.in_lungs <= 1 and 0 < found.lungs < 1
    assert abs(sum(found.thirds) - 1) < 1e-3 and len(found.pictures) == 1
    assert base64.b64decode(found.pictures[0].png).startswith(b"\x89PNG")
    assert found.pictures[0].scan in set(data.cohort["scan"].iloc[12:])
