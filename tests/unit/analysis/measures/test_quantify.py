"""Quantities against closed forms, numpy, scipy and SimpleITK."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dicomnode.analysis.arrays import LEFT, RIGHT, Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.measures.quantify import by_region, quantify

int16 = hnp.arrays(np.int16, st.integers(1, 60), elements=st.integers(-32768, 32767))
lung = hnp.arrays(np.int16, st.integers(1, 200), elements=st.integers(-1024, 400))


def test_two_values_in_closed_form() -> None:
    """Bernoulli with p = 1/4: skewness (1 - 2p) / sqrt(pq), Pearson's kurtosis 3 + (1 - 6pq) / pq."""
    q = quantify(np.array([-900, -900, -900, -500], dtype=np.int16))
    assert q.mean_hu == -800
    assert q.sd_hu == pytest.approx(400 * np.sqrt(3 / 16))
    assert q.skewness == pytest.approx(0.5 / np.sqrt(3 / 16))
    assert q.kurtosis == pytest.approx(3 + (1 - 6 * 3 / 16) / (3 / 16))
    assert (q.haa_percent, q.laa950_percent) == (25, 0)


def test_a_uniform_ramp_in_closed_form() -> None:
    """Discrete uniform on n values: variance (n² - 1) / 12, Pearson's kurtosis 3 - 6 (n² + 1) / 5 (n² - 1)."""
    n = 1001
    q = quantify(np.arange(-1000, 1, dtype=np.int16))
    assert (q.mean_hu, q.p50_hu, q.p05_hu, q.p15_hu, q.p85_hu, q.p95_hu) == (-500, -500, -950, -850, -150, -50)
    assert q.sd_hu == pytest.approx(np.sqrt((n**2 - 1) / 12))
    assert q.skewness == pytest.approx(0, abs=1e-12)
    assert q.kurtosis == pytest.approx(3 - 6 * (n**2 + 1) / (5 * (n**2 - 1)))
    assert q.haa_percent == pytest.approx(100 * 351 / n)
    assert q.laa950_percent == pytest.approx(100 * 50 / n)


@pytest.mark.parametrize(
    ("hu", "haa", "laa950"),
    [(-601, 0, 0), (-600, 100, 0), (-250, 100, 0), (-249, 0, 0), (-950, 0, 0), (-951, 0, 100), (-32768, 0, 100)],
)
def test_ends_of_the_ranges(hu: int, haa: float, laa950: float) -> None:
    q = quantify(np.full((2, 3), hu, dtype=np.int16))
    assert (q.haa_percent, q.laa950_percent) == (haa, laa950)
    assert (q.mean_hu, q.p05_hu, q.p95_hu, q.sd_hu, q.skewness, q.kurtosis) == (hu, hu, hu, 0, 0, 0)


def test_a_large_normal_sample_has_kurtosis_near_three() -> None:
    sample = np.random.default_rng(0).normal(-800, 60, 1_000_000).round().astype(np.int16)
    assert quantify(sample).kurtosis == pytest.approx(3, abs=0.03)


@given(int16)
def test_percentiles_and_moments_are_numpys(values: np.ndarray) -> None:
    q = quantify(values)
    wide = values.astype(np.float64)
    expected = np.percentile(wide, [5, 15, 50, 85, 95], method="linear")
    np.testing.assert_allclose([q.p05_hu, q.p15_hu, q.p50_hu, q.p85_hu, q.p95_hu], expected, rtol=1e-12, atol=1e-9)
    assert q.mean_hu == pytest.approx(wide.mean(), rel=1e-12, abs=1e-9)
    assert q.sd_hu == pytest.approx(wide.std(), rel=1e-9, abs=1e-9)


@given(lung.filter(lambda values: np.ptp(values) > 0))
def test_shape_of_the_distribution_is_scipys(values: np.ndarray) -> None:
    q = quantify(values)
    wide = values.astype(np.float64)
    assert q.skewness == pytest.approx(stats.skew(wide), rel=1e-7, abs=1e-7)
    assert q.kurtosis == pytest.approx(stats.kurtosis(wide, fisher=False), rel=1e-7)


def test_a_real_lung_agrees_with_simpleitk(lidc0314: Volume) -> None:
    labels = ClassicalSegmenter()(lidc0314)
    found = by_region(lidc0314, labels)
    reader = sitk.LabelStatisticsImageFilter()
    reader.Execute(sitk.GetImageFromArray(lidc0314.hu), sitk.GetImageFromArray(labels))
    for name, side in (("right", RIGHT), ("left", LEFT)):
        n = reader.GetCount(side)
        assert found[name].mean_hu == pytest.approx(reader.GetMean(side), rel=1e-9)
        # SimpleITK divides by n - 1.
        assert found[name].sd_hu == pytest.approx(reader.GetSigma(side) * np.sqrt((n - 1) / n), rel=1e-6)
    both = lidc0314.hu[labels > 0]
    assert replace(found["lungs"], volume_ml=None) == quantify(both)
    assert found["lungs"].haa_percent == pytest.approx(100 * np.mean((both >= -600) & (both <= -250)))
    assert found["lungs"].p15_hu == np.percentile(both, 15)


def test_a_lung_without_voxels_is_left_out() -> None:
    volume = Volume(np.full((1, 1, 2), -800, np.int16), (1, 1, 1), (0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
    found = by_region(volume, np.array([[[0, LEFT]]], dtype=np.uint8))
    assert {"lungs", "left"} <= found.keys()
    assert "right" not in found


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        quantify(np.empty(0, dtype=np.int16))


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="int16"):
        quantify(np.zeros(3, dtype=np.float64))  # type: ignore[arg-type]
