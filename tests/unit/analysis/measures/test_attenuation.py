"""The map of areas by attenuation: the voxels that the percentages count."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.arrays import LEFT, RIGHT, Frame, Volume
from dicomnode.analysis.measures.attenuation import AREAS, areas
from dicomnode.analysis.measures.quantify import by_region


def volume(hu: np.ndarray) -> Volume:
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    frames = tuple(Frame(Path(f"{z}.dcm"), "1.2", f"1.2.{z}") for z in range(len(hu)))
    return Volume(hu, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), axes, frames)


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_lungs_areas_are_what_its_percentages_count(side: str) -> None:
    generator = np.random.default_rng(4)
    hu = generator.integers(-1024, 200, (12, 40, 40)).astype(np.int16)
    labels = generator.choice([0, RIGHT, LEFT], hu.shape).astype(np.uint8)
    found, quantities = areas(volume(hu), labels), by_region(volume(hu), labels)[side]
    lung = labels == (RIGHT if side == "right" else LEFT)
    for kind, percent in (("high", quantities.haa_percent), ("low", quantities.laa950_percent)):
        area = found == AREAS[f"{side}_{kind}"]
        assert not (area & ~lung).any()
        assert 100 * area.sum() / lung.sum() == pytest.approx(percent, rel=1e-12)


@pytest.mark.parametrize(
    ("hu", "name"),
    [(-601, None), (-600, "right_high"), (-250, "right_high"), (-249, None), (-950, None), (-951, "right_low")],
)
def test_the_ends_of_the_ranges(hu: int, name: str | None) -> None:
    array = np.full((1, 1, 2), hu, np.int16)
    labels = np.array([[[RIGHT, 0]]], np.uint8)
    assert areas(volume(array), labels).ravel().tolist() == [AREAS[name] if name else 0, 0]
