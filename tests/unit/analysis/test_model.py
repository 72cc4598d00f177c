"""The network: risk that never falls with time, attention that sums to one, three encoders of one form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.analysis.backbones import BACKBONES, encoder
from dicomnode.analysis.model import AttentionHead, HazardNet, horizon_indices, risk

torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("densenet121", 1024), ("swin_t", 768)])
def test_each_backbone_gives_features(name: str, width: int) -> None:
    net, found = encoder(name)
    with torch.inference_mode():
        features = net.eval()(torch.rand(2, 3, 64, 64))
    assert found == width and features.shape == (2, width)


def test_an_unknown_backbone_is_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match=f"unknown backbone 'vgg': use one of {', '.join(BACKBONES)}"):
        encoder("vgg")


def test_the_network_maps_slices_to_hazards_and_attention() -> None:
    net = HazardNet("resnet18", intervals=5).eval()
    with torch.inference_mode():
        logits, attention = net(torch.rand(2, 4, 48, 64))
    assert logits.shape == (2, 5) and attention.shape == (2, 4)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2))


def test_attention_can_choose_one_slice() -> None:
    head = AttentionHead(width=2, intervals=1)
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    with torch.no_grad():
        head.score[0].weight.zero_()[:, 1] = 10.0
        head.score[0].bias.zero_()
        head.score[2].weight.fill_(10.0)
        head.hazard.weight.copy_(torch.tensor([[0.0, 3.0]]))
        head.hazard.bias.zero_()
        logits, attention = head(features)
    assert attention[0, 1] > 0.999
    torch.testing.assert_close(logits, torch.tensor([[3.0]]), atol=1e-3, rtol=0)


def test_risk_is_one_minus_the_product_of_survivals() -> None:
    hazards = torch.tensor([[0.1, 0.2, 0.5]])
    torch.testing.assert_close(risk(torch.logit(hazards)), torch.tensor([[0.1, 1 - 0.9 * 0.8, 1 - 0.9 * 0.8 * 0.5]]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-60, 60), min_size=1, max_size=8))
def test_risk_never_falls_and_stays_a_probability(logits: list[float]) -> None:
    values = risk(torch.tensor(logits))
    assert (values.diff() >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_horizons_are_the_ends_of_intervals() -> None:
    assert horizon_indices((0, 1, 2, 3, 4, 5), (1, 3, 5)) == [0, 2, 4]
    assert horizon_indices((0, 0.5, 1, 5), (1, 5)) == [1, 2]


@pytest.mark.parametrize(
    ("edges", "horizons", "message"),
    [
        ((0, 1, 2), (3,), r"horizons \[3\] are no interval edges"),
        ((0, 2, 1), (1,), "must rise"),
        ((1, 2), (2,), "rise from 0"),
    ],
)
def test_edges_and_horizons_must_fit(edges: tuple[float, ...], horizons: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        horizon_indices(edges, horizons)
