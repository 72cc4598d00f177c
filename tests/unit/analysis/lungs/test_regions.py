"""Regions against shapes with regions in closed form, and against numpy, scipy and SimpleITK on a real CT."""

from dataclasses import asdict

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT, Labels, Volume
from dicomnode.analysis.lungs import regions
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.measures.quantify import by_region, quantify

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def boxes(spacing_mm: tuple[float, float, float]) -> tuple[Volume, Labels]:
    """Two boxes of 240 x 120 x 100 mm (right) and 180 x 120 x 80 mm (left, 30 mm higher); HU is the height in mm."""
    shape = tuple(round(mm / s) for mm, s in zip((300, 160, 280), spacing_mm, strict=True))
    z, y, x = np.ix_(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_mm, strict=True)))
    labels = np.zeros(shape, np.uint8)
    labels[(z > 30) & (z < 270) & (y > 20) & (y < 140) & (x > 20) & (x < 120)] = RIGHT
    labels[(z > 60) & (z < 240) & (y > 20) & (y < 140) & (x > 160) & (x < 240)] = LEFT
    hu = np.broadcast_to(np.rint(z - 1000), shape).astype(np.int16)
    return Volume(hu, spacing_mm, (0.0, 0.0, 0.0), AXES, ()), labels


def rim_share(*edges_mm: float) -> float:
    """The part of a box within the rim."""
    core = np.prod([edge - 2 * regions.RIM_MM for edge in edges_mm])
    return float(1 - core / np.prod(edges_mm))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (5.0, 2.0, 2.0)])
def test_boxes_in_closed_form(spacing_mm: tuple[float, float, float]) -> None:
    found = by_region(*boxes(spacing_mm))
    right, left = 240 * 120 * 100 / 1000, 180 * 120 * 80 / 1000
    ml = {name: q.volume_ml for name, q in found.items()}
    assert ml["right"] == pytest.approx(right, rel=0.02)
    assert ml["left"] == pytest.approx(left, rel=0.02)
    for third in ("upper_third", "middle_third", "lower_third"):
        assert ml[third] == pytest.approx((right + left) / 3, rel=0.05)
    in_rim = rim_share(240, 120, 100) * right + rim_share(180, 120, 80) * left
    assert ml["rim"] == pytest.approx(in_rim, rel=0.04)
    # Each lung's own thirds: mean heights 70 and 90 mm below, 230 and 210 mm above, weighted by volume.
    assert found["lower_third"].mean_hu == pytest.approx(-1000 + (70 * right + 90 * left) / (right + left), abs=3)
    assert found["upper_third"].mean_hu == pytest.approx(-1000 + (230 * right + 210 * left) / (right + left), abs=3)


@pytest.mark.parametrize("parts", [("left", "right"), ("upper_third", "middle_third", "lower_third"), ("rim", "core")])
def test_parts_add_up_to_the_lungs(parts: tuple[str, ...], lidc0314: Volume) -> None:
    found = by_region(lidc0314, ClassicalSegmenter()(lidc0314))
    volumes = [found[name].volume_ml or 0.0 for name in parts]
    assert sum(volumes) == pytest.approx(found["lungs"].volume_ml)
    for attribute in ("mean_hu", "haa_percent", "laa950_percent"):
        weighted = np.average([getattr(found[name], attribute) for name in parts], weights=volumes)
        assert weighted == pytest.approx(getattr(found["lungs"], attribute))


def test_rim_of_a_ball_and_its_filled_hole() -> None:
    """A ball of 60 mm radius: the core is a ball of 40 mm. A hole in the middle (an airway) makes no rim."""
    z, y, x = np.ogrid[-65:66, -65:66, -65:66]
    r = np.sqrt(z * z + y * y + x * x)
    labels = np.where(r < 60, RIGHT, 0).astype(np.uint8)
    labels[r < 8] = 0
    volume = Volume(np.full(labels.shape, -800, np.int16), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXES, ())
    rim = np.stack(list(regions.rim(volume, labels)))
    assert np.count_nonzero(rim) == pytest.approx(4 / 3 * np.pi * (60**3 - 40**3), rel=0.03)
    assert not rim[(r < 37)].any()
    assert rim[(r > 43) & (r < 60)].all()


def test_a_real_chest_agrees_with_simpleitk_and_numpy(lidc0314: Volume) -> None:
    labels = ClassicalSegmenter()(lidc0314)
    found = by_region(lidc0314, labels)
    near = np.zeros(labels.shape, bool)
    for side in (RIGHT, LEFT):
        outside = sitk.GetImageFromArray((~ndimage.binary_fill_holes(labels == side)).astype(np.uint8))
        outside.SetSpacing(lidc0314.spacing_mm[::-1])
        depth = sitk.GetArrayFromImage(
            sitk.SignedMaurerDistanceMap(outside, squaredDistance=False, useImageSpacing=True)
        )
        near |= (labels == side) & (depth <= regions.RIM_MM + min(lidc0314.spacing_mm) / 2)
    expected = quantify(lidc0314.hu[near])
    assert found["rim"].volume_ml == pytest.approx(np.count_nonzero(near) * lidc0314.voxel_ml, rel=0.03)
    assert found["rim"].mean_hu == pytest.approx(expected.mean_hu, abs=4)
    assert found["rim"].haa_percent == pytest.approx(expected.haa_percent, abs=0.3)
    lowest = np.zeros(labels.shape, bool)
    for side in (RIGHT, LEFT):
        areas = np.count_nonzero(labels == side, axis=(1, 2))
        below = (np.cumsum(areas) - areas / 2) / areas.sum() < 1 / 3
        lowest |= (labels == side) & below[:, None, None]
    assert found["lower_third"].mean_hu == pytest.approx(float(lidc0314.hu[lowest].mean(dtype=float)))
    assert found["lower_third"].p15_hu == np.percentile(lidc0314.hu[lowest], 15)


def test_lobes_by_their_names() -> None:
    volume, labels = boxes((5.0, 4.0, 4.0))
    lobes = np.where(labels == RIGHT, LOBES["right_lower_lobe"], 0).astype(np.uint8)
    found = by_region(volume, labels, lobes)
    assert asdict(found["right_lower_lobe"]) == asdict(found["right"])
    assert "left_upper_lobe" not in found


def test_thirds_of_nothing_are_no_error() -> None:
    assert regions.thirds(np.zeros((4, 2, 2), np.uint8)).shape == (4, 3)
