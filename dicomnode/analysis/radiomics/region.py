"""A region made ready for all classes of radiomics: resampled, re-segmented and discretised as PyRadiomics does it.

PyRadiomics (3.0.1) does each of these once for every class, on copies with 4 and 8 bytes a voxel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from radiomics.imageoperations import getBinEdges

from dicomnode.analysis.compiled import compiled
from dicomnode.analysis.radiomics.itk_grid import ItkGrid, Solid, Values, resample, resampling_grid
from dicomnode.analysis.radiomics.texture_matrices import Levels
from dicomnode.words.numerals import plural

Counts = NDArray[np.int64]
_Array = TypeVar("_Array", Values, Solid)
#: How many different values 16 bits hold.
_DIFFERENT = 1 << 16


@dataclass(frozen=True)
class Region:
    """One region on its own grid, cropped, with a border of zeros one voxel wide.

    Attributes:
        levels: (z, y, x), the bin of each voxel, 1 to `level_count`; 0 outside of the region.
        level_count: the highest bin.
        solid: (z, y, x), 1 where the mask was before its re-segmentation: the shape is measured there.
        spacing_mm: (z, y, x).
        values, counts: the different intensities, ascending, and how many voxels have them.
        bins: how many voxels lie in each bin that is not empty.
    """

    levels: Levels
    level_count: int
    solid: Solid
    spacing_mm: tuple[float, float, float]
    values: Counts
    counts: Counts
    bins: Counts


def prepare(values: Values, inside: Solid, grid: ItkGrid, setting: Mapping[str, Any]) -> Region:
    """Return the region where a mask is 1.

    Args:
        values: (z, y, x), whole numbers of 8 or 16 bits.
        inside: (z, y, x), 0 or 1.
        grid: where both lie.
        setting: PyRadiomics' settings, with all defaults filled in.

    Raises:
        ValueError: as PyRadiomics, where the mask is empty or too small.
    """
    values, inside = fixed(values), fixed(inside)
    first, size = bounding_box(inside)
    if setting["resampledPixelSpacing"] is not None and setting["interpolator"] is not None:
        wanted = resampling_grid(grid, first, size, setting["resampledPixelSpacing"], setting["padDistance"])
        if wanted is not None:
            values, inside = resample(values, inside, grid, wanted, setting["interpolator"])
            grid = wanted
    return _discretised(values, inside, grid, setting)


def fixed(array: _Array) -> _Array:
    """Make an array (z, y, x) contiguous and read-only: one type for the compiled loops, whoever made the array."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array


def bounding_box(inside: Solid, *, may_be_all: bool = False) -> tuple[Counts, Counts]:
    """Return the first voxel and the size, (x, y, z), of the region where a mask is not 0.

    Args:
        inside: (z, y, x), 0 or 1.
        may_be_all: whether every voxel may be inside.

    Raises:
        ValueError: it is 0 everywhere, or nowhere, unless the latter may be.
    """
    planes, rows = np.any(inside, axis=(1, 2)), np.any(inside, axis=0)
    if not np.any(planes) or (not may_be_all and np.all(inside)):
        raise ValueError("no voxel is segmented, or all are")
    spans = [np.flatnonzero(line)[[0, -1]] for line in (np.any(rows, axis=0), np.any(rows, axis=1), planes)]
    return np.array([a for a, _ in spans]), np.array([b - a + 1 for a, b in spans])


def _discretised(values: Values, inside: Solid, grid: ItkGrid, setting: Mapping[str, Any]) -> Region:
    low, high = _range(setting["resegmentRange"])
    lowest = int(np.iinfo(values.dtype).min)
    histogram, whole, kept = _census(values, inside, low, high, lowest)
    _check(whole, int(histogram.sum()), setting)
    _check(kept, int(histogram.sum()), setting)
    found = np.flatnonzero(histogram)
    present, counts = found + lowest, histogram[found]
    binned = np.digitize(present, getBinEdges(present, **setting))
    level_count = int(binned.max())
    table: Levels = np.zeros(_DIFFERENT, np.uint8) if level_count < 256 else np.zeros(_DIFFERENT, np.uint16)
    table[found] = binned
    levels, solid = _cropped(values, inside, kept, table, lowest)
    if setting["resegmentShape"]:
        solid = (levels > 0).astype(np.uint8)
    x, y, z = grid.spacing
    bins = np.bincount(binned, weights=counts).astype(np.int64)
    return Region(levels, level_count, solid, (z, y, x), present, counts, bins[bins > 0])


def _range(limits: list[float] | None) -> tuple[float, float]:
    if limits is None:
        return -np.inf, np.inf
    return float(min(limits)), float(max(limits)) if len(limits) == 2 else np.inf


def _check(bounds: Counts, voxels: int, setting: Mapping[str, Any]) -> None:
    """PyRadiomics' `checkMask` and `resegmentMask`."""
    if voxels <= 1:
        raise ValueError(f"{plural(voxels, 'voxel remains', 'voxels remain')} in the range {setting['resegmentRange']}")
    dimensions = int((bounds[:, 1] > bounds[:, 0]).sum())
    if dimensions < setting["minimumROIDimensions"]:
        raise ValueError(
            f"the region has {plural(dimensions, 'dimension')}, {setting['minimumROIDimensions']} are needed"
        )
    if setting["minimumROISize"] is not None and voxels <= setting["minimumROISize"]:
        raise ValueError(f"the region has {plural(voxels, 'voxel')}, more than {setting['minimumROISize']} are needed")


@compiled
def _census(values: Values, inside: Solid, low: float, high: float, lowest: int) -> tuple[Counts, Counts, Counts]:
    """Histogram of the intensities in the range; first and last index (z, y, x) of the mask, and of those in range."""
    histogram = np.zeros(_DIFFERENT, np.int64)
    whole, kept = np.full((3, 2), -1), np.full((3, 2), -1)
    whole[:, 0] = kept[:, 0] = max(values.shape)
    for z in range(values.shape[0]):
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                if not inside[z, y, x]:
                    continue
                _widen(whole, z, y, x)
                value = values[z, y, x]
                if low <= value <= high:
                    histogram[value - lowest] += 1
                    _widen(kept, z, y, x)
    return histogram, whole, kept


@compiled
def _widen(bounds: Counts, z: int, y: int, x: int) -> None:
    for axis, index in enumerate((z, y, x)):
        bounds[axis, 0] = min(bounds[axis, 0], index)
        bounds[axis, 1] = max(bounds[axis, 1], index)


@compiled
def _cropped(values: Values, inside: Solid, box: Counts, table: Levels, lowest: int) -> tuple[Levels, Solid]:
    """Bins and mask inside a box, with a border. Intensities out of range have no voxel in the table: bin 0."""
    z0, z1, y0, y1, x0, x1 = box[0, 0], box[0, 1], box[1, 0], box[1, 1], box[2, 0], box[2, 1]
    levels = np.zeros((z1 - z0 + 3, y1 - y0 + 3, x1 - x0 + 3), table.dtype)
    solid = np.zeros(levels.shape, np.uint8)
    for z in range(z0, z1 + 1):
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                if inside[z, y, x]:
                    levels[z - z0 + 1, y - y0 + 1, x - x0 + 1] = table[values[z, y, x] - lowest]
                    solid[z - z0 + 1, y - y0 + 1, x - x0 + 1] = 1
    return levels, solid
