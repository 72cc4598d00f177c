"""Augmentation: what it changes, what it must not, and that its seed decides everything."""

import pytest
import torch

from dicomnode.analysis.risk.preprocess import Spec
from training.models.deep.augment import Augmentation, augmented, generator

torch.set_num_threads(1)
SPEC = Spec(spacing_mm=8.0, canvas=(32, 40), slices=3, outside_hu=-900.0, window_hu=(-1000.0, 200.0))
OUTSIDE = 100 / 1200
NOTHING = Augmentation(zoom=0, shift=0, brightness_hu=0, contrast=0, noise_hu=0)


def lungs(scans: int = 2) -> torch.Tensor:
    """Half a block of lung, left of the middle, brighter towards one edge."""
    slices = torch.full((scans, 3, 32, 40), OUTSIDE)
    slices[:, :, 8:24, 4:16] = torch.linspace(0.3, 0.6, 12)
    return slices


def draw(how: Augmentation, *seeds: int) -> torch.Tensor:
    return augmented(lungs(), SPEC, how, generator(torch.device("cpu"), *seeds))


def test_nothing_is_nothing() -> None:
    torch.testing.assert_close(draw(NOTHING, 1), lungs(), atol=1e-6, rtol=0)


def test_the_seed_decides() -> None:
    how = Augmentation()
    torch.testing.assert_close(draw(how, 1, 2, 3), draw(how, 1, 2, 3), atol=0, rtol=0)
    assert not torch.allclose(draw(how, 1, 2, 3), draw(how, 1, 2, 4))
    assert not torch.allclose(draw(how, 1, 2, 3), draw(how, 1, 3, 2))


@pytest.mark.parametrize("field", ["zoom", "shift", "brightness_hu", "contrast", "noise_hu"])
def test_each_part_changes_the_lungs_and_each_scan_differently(field: str) -> None:
    changed = draw(NOTHING.model_copy(update={field: getattr(Augmentation(), field)}), 5)
    assert (changed - lungs()).abs().max() > 0.001
    assert not torch.allclose(changed[0], changed[1])
    assert changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_nothing_appears_outside_the_lungs(seed: int) -> None:
    """Zoom and shift move the border by at most 6 % of half a canvas and 4 % of it."""
    changed = draw(Augmentation(), seed)
    torch.testing.assert_close(changed[:, :, :3], torch.full((2, 3, 3, 40), OUTSIDE), atol=1e-5, rtol=0)
    torch.testing.assert_close(changed[:, :, :, 22:], torch.full((2, 3, 32, 18), OUTSIDE), atol=1e-5, rtol=0)


def sides(changed: torch.Tensor) -> list[str]:
    inside = (changed - OUTSIDE).abs() > 0.05
    return ["left" if one[..., :20].sum() > one[..., 20:].sum() else "right" for one in inside]


def test_lungs_keep_their_side_unless_mirroring_is_asked_for() -> None:
    assert {side for seed in range(10) for side in sides(draw(Augmentation(), seed))} == {"left"}
    mirrored = Augmentation(mirror=True)
    assert {side for seed in range(10) for side in sides(draw(mirrored, seed))} == {"left", "right"}


def test_brightness_is_in_hounsfield_units() -> None:
    found = torch.cat([draw(NOTHING.model_copy(update={"brightness_hu": 12.0}), seed) for seed in range(150)])
    shift = (found - lungs(1))[:, 0, 12, 8] * 1200
    assert float(shift.std()) == pytest.approx(12, rel=0.15)
