"""Noise and air in the airways, and the flags that they raise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Labels, Volume
from dicomnode.analysis.findings import ChosenSeries, Conditions
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.measures import conditions
from dicomnode.analysis.pipeline import Segmented, segment

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
SERIES = ChosenSeries("1.2", "1.2.3", 60, (1.0, 0.7, 0.7), "B31f", "", slice_thickness_mm=1.0, kernel_family="soft")


def chest(
    noise_hu: float, air_hu: float, mm: float = 1.0, step_mm: float = 3.0, diameter_mm: float = 18.0
) -> tuple[Volume, Labels]:
    """Two lungs, and an airway between them, in a body of water."""
    z, y, x = (round(300 / step_mm), round(280 / mm), round(360 / mm))
    rows, columns = np.mgrid[:y, :x] * mm
    sides = np.zeros((y, x), np.uint8)
    for side, middle in ((RIGHT, 100.0), (LEFT, 260.0)):
        sides[((rows - 140) / 90) ** 2 + ((columns - middle) / 60) ** 2 < 1] = side
    hu = np.where(((rows - 140) / 130) ** 2 + ((columns - 180) / 170) ** 2 < 1, 40.0, air_hu)
    hu = np.where(sides > 0, -850.0, hu)
    hu[(rows - 130) ** 2 + (columns - 180) ** 2 < (diameter_mm / 2) ** 2] = air_hu
    labels = np.zeros((z, y, x), np.uint8)
    labels[z // 6 : -z // 6] = sides
    volume = np.where((labels > 0) | (sides == 0), hu, 40.0)
    volume += np.random.default_rng(0).normal(0, noise_hu, volume.shape)
    return Volume(_whole(volume), (step_mm, mm, mm), (0.0, 0.0, 0.0), AXES, ()), labels


def _whole(hu: np.ndarray) -> HuArray:
    return np.clip(np.rint(hu), -1500, 3000).astype(np.int16)


@settings(max_examples=12, deadline=None)
@given(st.floats(4, 60), st.floats(-1040, -940), st.floats(0.7, 1.5), st.floats(3, 6), st.floats(14, 25))
def test_what_was_put_in_is_measured(
    noise_hu: float, air_hu: float, mm: float, step_mm: float, diameter_mm: float
) -> None:
    found = conditions.measure(*chest(noise_hu, air_hu, mm, step_mm, diameter_mm))
    assert found is not None
    assert found.noise_hu == pytest.approx(noise_hu, rel=0.12, abs=0.5)
    assert found.air_hu == pytest.approx(air_hu, abs=0.2 * noise_hu + 1)


@pytest.mark.parametrize("diameter_mm", [0.0, 5.0, 60.0])
def test_without_an_airway_nothing_is_said(diameter_mm: float) -> None:
    assert conditions.measure(*chest(20, -1000, diameter_mm=diameter_mm)) is None


def test_pixels_as_large_as_the_wall_say_nothing() -> None:
    assert conditions.measure(*chest(20, -1000, mm=4.2)) is None


def test_without_lungs_nothing_is_said() -> None:
    volume, labels = chest(20, -1000)
    assert conditions.measure(volume, np.zeros_like(labels)) is None


@pytest.mark.parametrize(
    ("found", "series", "codes"),
    [
        (Conditions(20, -1000), SERIES, {}),
        (None, SERIES, {}),
        (Conditions(12.9, -1000), SERIES, {"image-noise": "under 13 HU"}),
        (Conditions(30.1, -1000), SERIES, {"image-noise": "over 30 HU"}),
        (Conditions(20, -959), SERIES, {"air-offset": "-959 HU"}),
        (Conditions(20, -1021), SERIES, {"air-offset": "-1021 HU"}),
        (None, replace(SERIES, kernel_family="lung"), {"attenuation-range": "%LAA-950, a sharp kernel."}),
        (None, replace(SERIES, slice_thickness_mm=2.0), {"attenuation-range": "%LAA-950, 2.0 mm thick"}),
        (
            None,
            replace(SERIES, slice_thickness_mm=None, spacing_mm=(5.0, 0.7, 0.7), kernel_family="lung"),
            {"attenuation-range": "%LAA-950, 5.0 mm thick (up to 1.25 mm) and a sharp kernel; %HAA, 5.0 mm thick"},
        ),
    ],
)
def test_flags(found: Conditions | None, series: ChosenSeries, codes: dict[str, str]) -> None:
    flags = {flag.code: flag.text for flag in conditions.doubts(found, series)}
    assert flags.keys() == codes.keys()
    assert all(words in flags[code] for code, words in codes.items())


@pytest.fixture(scope="module")
def real(data: Path) -> Segmented:
    found = segment(sorted((data / "chest_lidc0314_every4th").glob("*.dcm")), ClassicalSegmenter())
    assert isinstance(found, Segmented)
    return found


@pytest.mark.parametrize(
    ("smooth_mm", "sharper", "shift_hu", "codes"),
    [
        (0.0, 0.0, 0, set()),
        (1.0, 0.0, 0, {"image-noise"}),
        (1.5, 0.0, 0, {"image-noise"}),
        (0.0, 1.5, 0, {"image-noise"}),
        (0.0, 2.0, 0, {"image-noise"}),
        (0.0, 0.0, 50, {"air-offset"}),
        (0.0, 0.0, -30, {"air-offset"}),
    ],
)
def test_a_real_scan_that_was_smoothed_sharpened_or_shifted(
    real: Segmented, smooth_mm: float, sharper: float, shift_hu: int, codes: set[str]
) -> None:
    sigma = (0.0, (smooth_mm or 1.0) / real.volume.spacing_mm[1], (smooth_mm or 1.0) / real.volume.spacing_mm[2])
    hu = real.volume.hu.astype(np.float32)
    if smooth_mm or sharper:
        smooth = ndimage.gaussian_filter(hu, sigma)
        hu = smooth if smooth_mm else hu + sharper * (hu - smooth)
    volume = replace(real.volume, hu=_whole(hu + shift_hu))
    assert {f.code for f in conditions.doubts(conditions.measure(volume, real.labels), SERIES)} == codes
