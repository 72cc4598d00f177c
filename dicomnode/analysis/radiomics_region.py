"""A region made ready for all classes of radiomics at once: resampled, re-segmented and discretised as PyRadiomics does.

PyRadiomics (3.0.1) does each of these once for every class, on copies with 4 and 8 bytes a voxel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from radiomics.imageoperations import getBinEdges

from dicomnode.analysis.compiled import compiled

Counts = NDArray[np.int64]
#: Values of an image with whole numbers of 8 or 16 bits, and how many there may be.
Values = NDArray[np.int16]
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

    levels: NDArray[np.uint8] | NDArray[np.uint16]
    level_count: int
    solid: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    values: Counts
    counts: Counts
    bins: Counts


def prepare(image: sitk.Image, mask: sitk.Image, setting: Mapping[str, Any]) -> Region:
    """The region where a mask (0 and 1, uint8) is 1.

    Raises:
        ValueError: as PyRadiomics, where the mask is empty or too small.
    """
    first, size = _bounding_box(mask)
    spacing = setting["resampledPixelSpacing"]
    if spacing is not None and setting["interpolator"] is not None:
        grid = _grid(image, first, size, spacing, setting["padDistance"])
        if grid is not None:
            interpolator = getattr(sitk, setting["interpolator"])
            image, mask = grid.resampled(image, interpolator), grid.resampled(mask, sitk.sitkNearestNeighbor)
    return _discretised(image, mask, setting)


def _bounding_box(mask: sitk.Image) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First voxel and size, (x, y, z)."""
    inside = sitk.GetArrayViewFromImage(mask)
    planes = inside.any(axis=(1, 2))
    if not planes.any() or inside.all():
        raise ValueError("nothing is segmented, or everything")
    rows = inside.any(axis=0)
    spans = [np.flatnonzero(line)[[0, -1]] for line in (rows.any(axis=0), rows.any(axis=1), planes)]
    return np.array([a for a, _ in spans]), np.array([b - a + 1 for a, b in spans])


@dataclass(frozen=True)
class _Grid:
    size: list[int]
    spacing: list[float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    def resampled(self, image: sitk.Image, interpolator: int) -> sitk.Image:
        return sitk.Resample(
            image, self.size, sitk.Transform(), interpolator, self.origin, self.spacing, self.direction, 0.0,
            image.GetPixelID(),
        )  # fmt: skip


def _grid(
    image: sitk.Image, first: NDArray[np.int64], size: NDArray[np.int64], wanted: list[float], pad: int
) -> _Grid | None:
    """Where PyRadiomics samples (`imageoperations.resampleImage`), or None where the image has the spacing already.

    The grid's phase hangs on the image's corner. ITK's sums depend in the last bit on where a line begins, and then
    rounds to whole HU: so the padding is sampled too, though nobody looks at it.
    """
    old = np.array(image.GetSpacing())
    new = np.where(np.array(wanted) == 0, old, wanted)
    new = np.where(size != 1, new, old)
    if np.allclose(old, new):
        return None
    ratio = old / new
    low = np.floor((first - 0.5) * ratio - pad).clip(min=0)
    high = np.minimum(np.ceil((first + size - 0.5) * ratio + pad), np.ceil(np.array(image.GetSize()) * ratio) - 1)
    origin = image.TransformContinuousIndexToPhysicalPoint((0.5 * (new - old) / old + low / ratio).tolist())
    return _Grid((high - low + 1).astype(int).tolist(), new.tolist(), origin, image.GetDirection())


def _discretised(image: sitk.Image, mask: sitk.Image, setting: Mapping[str, Any]) -> Region:
    values, inside = sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(mask)
    low, high = _range(setting["resegmentRange"])
    lowest = int(np.iinfo(values.dtype).min)
    histogram, whole, kept = _census(values, inside, low, high, lowest)
    _check(whole, int(histogram.sum()), setting)
    _check(kept, int(histogram.sum()), setting)
    found = np.flatnonzero(histogram)
    present, counts = found + lowest, histogram[found]
    binned = np.digitize(present, getBinEdges(present, **setting))
    level_count = int(binned.max())
    table = np.zeros(_DIFFERENT, np.uint8 if level_count < 256 else np.uint16)
    table[found] = binned
    levels, solid = _cropped(values, inside, kept, table, lowest)
    if setting["resegmentShape"]:
        solid = (levels > 0).astype(np.uint8)
    x, y, z = image.GetSpacing()
    bins = np.bincount(binned, weights=counts).astype(np.int64)
    return Region(levels, level_count, solid, (z, y, x), present, counts, bins[bins > 0])


def _range(limits: list[float] | None) -> tuple[float, float]:
    if limits is None:
        return -np.inf, np.inf
    return float(min(limits)), float(max(limits)) if len(limits) == 2 else np.inf


def _check(bounds: Counts, voxels: int, setting: Mapping[str, Any]) -> None:
    """PyRadiomics' `checkMask` and `resegmentMask`."""
    if voxels <= 1:
        raise ValueError(f"{voxels} voxels are left in the range {setting['resegmentRange']}")
    dimensions = int((bounds[:, 1] > bounds[:, 0]).sum())
    if dimensions < max(1, setting["minimumROIDimensions"]):
        raise ValueError(f"the region has {dimensions} dimensions, {setting['minimumROIDimensions']} are needed")
    if setting["minimumROISize"] is not None and voxels <= setting["minimumROISize"]:
        raise ValueError(f"the region has {voxels} voxels, more than {setting['minimumROISize']} are needed")


@compiled
def _census(
    values: Values, inside: NDArray[np.uint8], low: float, high: float, lowest: int
) -> tuple[Counts, Counts, Counts]:
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
def _cropped(
    values: Values, inside: NDArray[np.uint8], box: Counts, table: NDArray[np.uint8], lowest: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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
