"""The IBSI preparation, by hand and by its symmetries. The consensus: tests/parity/test_ibsi_ct.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract_image, with_filters, with_preparation
from dicomnode.analysis.radiomics.ibsi import prepare
from dicomnode.analysis.radiomics.itk_grid import ItkGrid
from dicomnode.errors import ConfigurationError, RefusedError

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid(shape: tuple[int, ...], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> ItkGrid:
    z, y, x = shape
    return ItkGrid((x, y, z), spacing, (0.0, 0.0, 0.0), AXES)


def setting(**changes: Any) -> dict[str, Any]:
    return {
        "resampledPixelSpacing": None, "interpolator": "sitkLinear", "resegmentRange": [-1000, 400], "binWidth": 25,
        "minimumROIDimensions": 2, "minimumROISize": None, **changes,
    }  # fmt: skip


def block(shape: tuple[int, int, int], at: int = 1) -> NDArray[np.uint8]:
    inside = np.zeros(shape, np.uint8)
    inside[at:-at, at:-at, at:-at] = 1
    return inside


def test_bins_begin_at_the_lower_bound_of_the_range() -> None:
    values = np.full((4, 4, 4), -900, np.int16)
    values[1, 1, 1], values[1, 1, 2], values[1, 2, 1] = -1000, -975, 400
    found = prepare(values, block(values.shape), grid(values.shape), setting(), None)
    assert (found.levels[1, 1, 1], found.levels[1, 1, 2], found.levels[1, 2, 1]) == (1, 2, 57)
    assert found.levels[2, 2, 2] == 5  # -900: PyRadiomics would count from the lowest that is there


def test_a_number_of_bins_divides_what_is_there_and_the_highest_lies_in_the_last() -> None:
    values = np.arange(8, dtype=np.int16).reshape(2, 2, 2) * 10
    padded = np.pad(values, 1)
    found = prepare(padded, block(padded.shape), grid(padded.shape), setting(binCount=4, resegmentRange=None), None)
    np.testing.assert_array_equal(found.levels[1:-1, 1:-1, 1:-1].ravel(), [1, 1, 2, 2, 3, 3, 4, 4])


def test_the_new_grid_has_the_old_ones_centre_and_half_a_voxel_of_mask_is_inside() -> None:
    line = np.array([0, 10, 20, 30, 40, 50], np.int16)
    values = np.broadcast_to(line, (4, 4, 6)).copy()
    inside = np.zeros(values.shape, np.uint8)
    inside[:, :, 2:4] = 1
    # 6 voxels of 1 mm become 3 of 2 mm, centred: their middles lie between voxels 0|1, 2|3, 4|5.
    asked = setting(resampledPixelSpacing=[2, 0, 0], resegmentRange=None)
    found = prepare(values, inside, grid(values.shape), asked, None)
    assert found.values.tolist() == [25]  # at 2.5
    assert found.spacing_mm == (1.0, 1.0, 2.0)
    inside[:, :, 3] = 0
    assert prepare(values, inside, grid(values.shape), asked, None).values.tolist() == [25]  # exactly half


def test_intensities_are_rounded_to_whole_hu() -> None:
    values = np.full((4, 4, 4), -1, np.int16)
    values[:, :, 1::2] = -2
    found = prepare(values, block(values.shape), grid(values.shape), setting(resampledPixelSpacing=[2, 1, 1]), None)
    assert found.values.tolist() == [-1]  # -1.5; a cut would give -1, too
    values[:, :, 1::2] = -3
    values[:, :, 0::2] = -2
    found = prepare(values, block(values.shape), grid(values.shape), setting(resampledPixelSpacing=[2, 1, 1]), None)
    assert found.values.tolist() == [-2]


def test_outliers_go_after_the_range_and_the_shape_keeps_them() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(-500, 10, (8, 8, 8)).astype(np.int16)
    values[3, 3, 3], values[4, 4, 4] = 300, 3000
    found = prepare(values, block(values.shape), grid(values.shape), setting(), 3.0)
    assert found.levels[3, 3, 3] == found.levels[4, 4, 4] == 0
    assert found.solid[3, 3, 3] == found.solid[4, 4, 4] == 1
    assert found.values.max() < -400


@given(
    shape=st.tuples(*[st.integers(4, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    seed=st.integers(0, 1000),
    axis=st.integers(0, 2),
)
def test_a_mirrored_image_gives_the_mirrored_region(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int, axis: int
) -> None:
    """A grid that starts at a corner does not."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-1000, 400, shape).astype(np.int16)
    inside = block(shape)
    asked = setting(resampledPixelSpacing=[1, 1, 1], minimumROIDimensions=1)
    try:
        one = prepare(values, inside, grid(shape, spacing), asked, None)
    except ValueError:
        return  # nothing of so small a region lies on the new grid
    other = prepare(np.flip(values, axis).copy(), np.flip(inside, axis).copy(), grid(shape, spacing), asked, None)
    # A value at the edge of two HU may be rounded to either.
    assert one.levels.shape == other.levels.shape
    difference = np.abs(one.levels.astype(int) - np.flip(other.levels, axis))
    assert difference.max() <= 1
    np.testing.assert_array_equal(one.solid, np.flip(other.solid, axis))


@given(seed=st.integers(0, 1000))
def test_without_resampling_it_differs_from_pyradiomics_in_the_first_bin_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-990, 400, (7, 8, 9)).astype(np.int16)
    values[2, 2, 2] = -1000  # so that both begin at -1000
    where = grid(values.shape)
    plain = {**DEFAULT_SETTINGS, "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": None}}
    image, mask = where.image(values), where.image(block(values.shape))
    ours = extract_image(image, mask, with_preparation(plain, "ibsi"))
    theirs = extract_image(image, mask, plain)
    assert {k.replace("ibsi", "original"): v for k, v in ours.items()} == pytest.approx(theirs, rel=1e-9)


def test_what_it_cannot_do_is_said() -> None:
    where = grid((6, 6, 6))
    image, mask = where.image(np.zeros((6, 6, 6), np.int16)), where.image(block((6, 6, 6)))
    for settings in (
        with_preparation(with_filters(("LoG",), (1.0,)), "ibsi"),
        with_preparation({**DEFAULT_SETTINGS, "setting": {"normalize": True}}, "ibsi"),
        with_preparation({**DEFAULT_SETTINGS, "setting": {"binWidth": 1}}, "ibsi"),
    ):
        with pytest.raises(ConfigurationError, match="original images of whole HU alone"):
            extract_image(image, mask, settings)
    with pytest.raises(ConfigurationError, match="'ibis' is unknown: give one of ibsi"):
        extract_image(image, mask, with_preparation(DEFAULT_SETTINGS, "ibis"))
    with pytest.raises(RefusedError, match="no voxel is segmented"):
        extract_image(image, where.image(np.zeros((6, 6, 6), np.uint8)), with_preparation(DEFAULT_SETTINGS, "ibsi"))
