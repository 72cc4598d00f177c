"""A random start that sees attenuation."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicomnode.analysis.risk.backbones import encoder
from dicomnode.analysis.risk.network import normalised
from training.models.deep.random_start import start_at_random
from training.models.deep.settings import FULL_SPEC


def uniform(hu: float) -> Tensor:
    """A picture of one attenuation, as an encoder gets it."""
    low, high = FULL_SPEC.window_hu
    return torch.full((1, 3, 32, 32), normalised((hu - low) / (high - low)))


def alike(net: nn.Module, one: float, other: float) -> float:
    """Cosine between the first tokens of two attenuations: 1 is the same."""
    first = net.get_submodule("features.0")
    with torch.inference_mode():
        a, b = (first(uniform(hu))[0, 0, 0].double().numpy() for hu in (one, other))
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("seed", range(3))
def test_swin_tells_aerated_lung_from_outside_and_from_dense_lung(seed: int) -> None:
    torch.manual_seed(seed)
    net, _ = encoder("swin_t")
    blind = [alike(net, -870, other) for other in (-1024, -600)]
    assert min(blind) > 0.95, "torchvision's own start hardly tells them apart; if it does now, ours is not needed"
    start_at_random(net, "swin_t", FULL_SPEC)
    seeing = [alike(net, -870, other) for other in (-1024, -600)]
    assert max(seeing) < 0.95
    assert alike(net, -1024, -600) < 0


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121"])
def test_the_others_start_as_torchvision_makes_them(backbone: str) -> None:
    torch.manual_seed(1)
    net, _ = encoder(backbone)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    start_at_random(net, backbone, FULL_SPEC)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
