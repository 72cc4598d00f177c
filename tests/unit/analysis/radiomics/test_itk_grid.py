"""Our resampling against SimpleITK's, voxel by voxel and bit by bit."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.analysis.radiomics.itk_grid import ItkGrid, resample, resampling_grid

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.7, 0.703125, 0.91, 1.0, 1.25, 3.0])] * 3)


def simpleitk(image: sitk.Image, to: ItkGrid, interpolator: int) -> np.ndarray:
    """The filter as PyRadiomics sets it."""
    filter_ = sitk.ResampleImageFilter()
    filter_.SetOutputSpacing(to.spacing)
    filter_.SetOutputDirection(to.direction)
    filter_.SetSize(to.size)
    filter_.SetOutputOrigin(to.origin)
    filter_.SetOutputPixelType(image.GetPixelID())
    filter_.SetInterpolator(interpolator)
    return sitk.GetArrayFromImage(filter_.Execute(image))


@pytest.mark.parametrize("interpolator", ["sitkLinear", "sitkBSpline"])
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(*[st.integers(3, 14)] * 3),  # with 2 voxels ITK's splines differ from run to run
    old=SPACINGS,
    new=SPACINGS,
    origin=st.tuples(*[st.sampled_from([0.0, -180.3, 12.5, 33.333])] * 3),
)
@settings(max_examples=50, deadline=None)
def test_to_the_last_bit(
    interpolator: str,
    seed: int,
    size: tuple[int, int, int],
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(-1024, 400, size[::-1]).astype(np.int16)
    inside = (random.random(values.shape) > 0.5).astype(np.uint8)
    grid = ItkGrid(size, old, origin, IDENTITY)
    to = resampling_grid(grid, np.array([0, 0, 0]), np.array(size), new, 2)
    if to is None:
        assert np.allclose(old, new)
        return
    found, kept = resample(values, inside, grid, to, interpolator)
    np.testing.assert_array_equal(kept, simpleitk(grid.image(inside), to, sitk.sitkNearestNeighbor))
    expected = simpleitk(grid.image(values), to, getattr(sitk, interpolator))
    np.testing.assert_array_equal(found[kept == 1], expected[kept == 1])


def test_oblique_grids_go_through_simpleitk() -> None:
    tilted = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6, 0.0, 0.6, 0.8)
    values = np.random.default_rng(0).integers(-1000, 0, (9, 10, 11)).astype(np.int16)
    inside = np.ones(values.shape, np.uint8)
    grid = ItkGrid((11, 10, 9), (0.7, 0.7, 2.0), (1.0, 2.0, 3.0), tilted)
    to = resampling_grid(grid, np.array([0, 0, 0]), np.array([11, 10, 9]), [1, 1, 1], 5)
    assert to is not None
    found, kept = resample(values, inside, grid, to, "sitkLinear")
    np.testing.assert_array_equal(found, simpleitk(grid.image(values), to, sitk.sitkLinear))
    assert kept.any()
