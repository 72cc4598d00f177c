"""The network: risk that never falls with time, attention that sums to one, three encoders of one form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.analysis.risk.backbones import BACKBONES, encoder
from dicomnode.analysis.risk.network import CODE_WIDTH, AttentionHead, ChangeHead, HazardNet, horizon_indices, risk

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
        ((0, 1, 2), (3,), r"horizons \[3\] are not interval edges"),
        ((0, 2, 1), (1,), "must increase"),
        ((1, 2), (2,), "increase from 0"),
    ],
)
def test_edges_and_horizons_must_fit(edges: tuple[float, ...], horizons: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        horizon_indices(edges, horizons)


def change_head() -> ChangeHead:
    head = ChangeHead(width=4, intervals=2)
    torch.nn.init.normal_(head.hazard.weight, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(head.hazard.bias, generator=torch.Generator().manual_seed(2))
    return head


def test_a_scan_without_a_prior_one_gets_nothing_added() -> None:
    codes = torch.rand(3, CODE_WIDTH)
    added = change_head()(codes, torch.zeros(3, CODE_WIDTH), torch.tensor([float("nan"), 1.0, float("nan")]))
    assert (added[[0, 2]] == 0).all() and (added[1] != 0).all()


def test_the_same_change_over_less_time_is_another_one_but_not_below_three_months() -> None:
    codes, prior = torch.rand(1, CODE_WIDTH), torch.rand(1, CODE_WIDTH)
    head = change_head()
    added = [head(codes, prior, torch.tensor([years])) for years in (2.0, 0.25, 0.01)]
    assert not torch.allclose(added[0], added[1])
    torch.testing.assert_close(added[1], added[2])


def test_gradients_of_scans_without_a_prior_one_are_finite() -> None:
    head = change_head()
    codes = torch.rand(2, CODE_WIDTH, requires_grad=True)
    head(codes, torch.zeros(2, CODE_WIDTH), torch.tensor([float("nan"), 1.0])).sum().backward()
    assert torch.isfinite(codes.grad).all() and (codes.grad[0] == 0).all()


def test_training_begins_as_if_there_were_no_prior_scan() -> None:
    net = HazardNet("resnet18", intervals=5, prior=True).eval()
    now, prior = torch.rand(3, 2, 32, 32), torch.rand(1, 2, 32, 32)
    years = torch.tensor([float("nan"), 1.5, float("nan")])
    with torch.inference_mode():
        torch.testing.assert_close(net(now, prior, years)[0], net(now)[0])


def test_a_prior_scan_is_its_code_and_whose_scan_it_is_is_kept() -> None:
    net = HazardNet("resnet18", intervals=5, prior=True).eval()
    torch.nn.init.normal_(net.change.hazard.weight)
    now, prior = torch.rand(3, 2, 32, 32), torch.rand(2, 2, 32, 32)
    years = torch.tensor([2.0, float("nan"), 0.5])
    with torch.inference_mode():
        whole, attention = net(now, prior, years)
        codes = net.change.code(net.look(prior)[0])
        for row, before in ((0, codes[0]), (2, codes[1])):
            alone = net.hazards(net.look(now[[row]])[0], before[None], years[[row]])
            torch.testing.assert_close(whole[[row]], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole[1], net(now)[0][1], rtol=1e-4, atol=1e-5)
    assert attention.shape == (3, 2)
