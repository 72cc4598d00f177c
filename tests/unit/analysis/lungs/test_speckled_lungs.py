"""Lungs that are dense in many small places, as of a diffuse disease: none of that is gas, and the lungs stay lungs."""

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.lungs import gas
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom


@pytest.mark.parametrize(("share", "hu"), [(0.15, -200), (0.15, -600), (0.3, -600), (0.3, -450), (0.45, -450)])
@pytest.mark.parametrize("scan", ["real", "phantom"])
def test_speckled_lungs_are_lungs(tiny_cip: Volume, scan: str, share: float, hu: int) -> None:
    volume = tiny_cip if scan == "real" else phantom.chest(7, shape=(70, 96, 96), spacing_mm=(4.5, 3.7, 3.7)).volume
    segmenter = ClassicalSegmenter()
    lungs = segmenter(volume) > 0
    random = np.random.default_rng(1)
    dense = lungs & (volume.hu < -700) & (random.random(lungs.shape) < share)
    speckled = np.where(dense, hu + random.normal(0, 20, lungs.shape), volume.hu).astype(np.int16)
    found = segmenter(replace(volume, hu=speckled)) > 0
    assert 2 * (found & lungs).sum() / (found.sum() + lungs.sum()) > 0.97


@pytest.mark.parametrize("noise_hu", [10, 25, 40])
def test_gas_is_gas_in_any_noise_and_disease_is_no_noise(noise_hu: float) -> None:
    random = np.random.default_rng(2)
    depth = np.full(40_000, 8.0, np.float32)
    clear = np.clip(-990 + random.normal(0, noise_hu, depth.size), -1024, None).astype(np.int16)
    spacing_mm = (2.0, 2.0, 2.0)
    assert gas.without_vessels(clear, depth, spacing_mm, -850.0)
    diseased = np.where(random.random(depth.size) < 0.3, -500, clear).astype(np.int16)
    assert not gas.without_vessels(diseased, depth, spacing_mm, -850.0)
