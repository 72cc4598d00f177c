"""What a run's arms look at: the numbers that tell the outcome, the part of the image that does."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.analysis.risk.network import HazardNet
from tests.helpers.deep_cases import TABLE, cohort, tiny_encoder
from tests.helpers.tabular_worlds import settings_toml, world, write
from training.explanation import explanation, network_explanation
from training.explanation.grad_cam import grad_cam
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


def test_a_network_s_heat_lies_where_the_risk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.analysis.risk.network.encoder", tiny_encoder)
    torch.manual_seed(1)
    net = HazardNet("resnet18", 3).eval()
    with torch.no_grad():  # the first filter sees brightness, and brightness is risk
        net.encoder[0].weight.zero_()
        net.encoder[0].bias.zero_()
        net.encoder[0].weight[0] = 1.0
        net.head.hazard.weight.zero_()
        net.head.hazard.weight[:, 0] = 0.1
    slices = np.zeros((4, 32, 32), np.float32)
    slices[2, 4:12, 20:28] = 1.0
    heat = grad_cam(net, "resnet18", slices, 1)
    assert heat.map.shape == slices.shape and heat.map.max() == 1.0 and 0 < heat.risk < 1
    assert heat.map.sum(axis=(1, 2)).argmax() == 2
    assert heat.map[2, 4:12, 20:28].mean() > 3 * heat.map[2, 16:, :16].mean()
    with torch.no_grad():
        net.head.hazard.weight.mul_(-1)
    assert not grad_cam(net, "resnet18", slices, 1).map.any(), "what speaks against a risk has no heat"


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "swin_t"])
def test_each_backbone_has_a_map_to_look_at(backbone: str) -> None:
    torch.manual_seed(2)
    net = HazardNet(backbone, 3).eval()
    heat = grad_cam(net, backbone, np.random.default_rng(1).random((1, 64, 64), np.float32), 2)
    assert heat.map.shape == (1, 64, 64) and np.isfinite(heat.map).all()


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
