"""Heat lies where the risk is, on every encoder's own grid."""

import numpy as np
import pytest
import torch

from dicomnode.analysis.risk.grad_cam import cells, grad_cam
from dicomnode.analysis.risk.network import HazardNet
from tests.helpers.deep_cases import bright_is_risk, tiny_encoder

torch.set_num_threads(1)


def test_a_network_s_heat_lies_where_the_risk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.analysis.risk.network.encoder", tiny_encoder)
    net = bright_is_risk(HazardNet("resnet18", 3).eval())
    slices = np.zeros((4, 32, 32), np.float32)
    slices[2, 4:12, 20:28] = 1.0
    heat = grad_cam(net, slices, 1)
    assert heat.map.shape == slices.shape and heat.map.max() == 1.0 and 0 < heat.risk < 1
    assert heat.map.sum(axis=(1, 2)).argmax() == 2
    assert heat.map[2, 4:12, 20:28].mean() > 3 * heat.map[2, 16:, :16].mean()
    with torch.no_grad():
        net.head.hazard.weight.mul_(-1)
    assert not grad_cam(net, slices, 1).map.any(), "what speaks against a risk has no heat"


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "swin_t"])
def test_each_backbone_has_a_grid_of_its_own(backbone: str) -> None:
    """A cell of 32 x 32 pixels, whichever axis the encoder keeps its channels on."""
    torch.manual_seed(2)
    net = HazardNet(backbone, 3).eval()
    slices = np.random.default_rng(1).random((2, 64, 96), np.float32)
    found = cells(net, slices, 2)
    assert found.heat.shape == (2, 2, 3) and np.isfinite(found.heat).all() and (found.heat >= 0).all()
    assert found.attention.sum() == pytest.approx(1)
    assert grad_cam(net, slices, 2).map.shape == slices.shape
    assert torch.is_grad_enabled() and all(p.grad is None for p in net.parameters())
