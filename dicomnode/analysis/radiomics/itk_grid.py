"""Resampling onto PyRadiomics' grid, to the last bit as ITK does it, without a copy of the whole image.

ITK's linear interpolation ends in a cut to whole HU: where a sampling point falls on a voxel, one unit in the last
place of its coordinate decides between two HU. So coordinates are taken from ITK itself, and the arithmetic behind them
repeats ITK's (ResampleImageFilter::LinearThreadedGenerateData, LinearInterpolateImageFunction::EvaluateOptimized).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicomnode.analysis.compiled import compiled

#: (z, y, x), whole numbers of 8 or 16 bits; a mask of 0 and 1.
Values = NDArray[np.int16]
Solid = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ItkGrid:
    """The voxels of an image in ITK's terms: (x, y, z), mm, LPS; `direction` is a 3x3 matrix, row by row."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> "ItkGrid":
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def frame(self) -> sitk.Image:
        """Return an image of one voxel with this geometry: enough to ask ITK for coordinates."""
        return self._placed(sitk.Image(1, 1, 1, sitk.sitkUInt8))

    def image(self, array: Values | Solid) -> sitk.Image:
        """Return the array (z, y, x) as an image on this grid."""
        return self._placed(sitk.GetImageFromArray(array))

    def _placed(self, image: sitk.Image) -> sitk.Image:
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


def resampling_grid(
    grid: ItkGrid, first: NDArray[np.int64], size: NDArray[np.int64], wanted: Sequence[float], pad: int
) -> ItkGrid | None:
    """Where PyRadiomics samples (`imageoperations.resampleImage`), or None where the spacing is as wanted already.

    Args:
        grid: the image's.
        first: (x, y, z), the first voxel of the mask's bounding box.
        size: (x, y, z), the box's extent, voxels.
        wanted: spacing, mm, (x, y, z); 0 keeps the image's.
        pad: voxels around the box.
    """
    old = np.array(grid.spacing)
    new = np.where(np.array(wanted) == 0, old, wanted)
    new = np.where(size != 1, new, old)
    if np.allclose(old, new):
        return None
    ratio = old / new
    low = np.floor((first - 0.5) * ratio - pad).clip(min=0)
    high = np.minimum(np.ceil((first + size - 0.5) * ratio + pad), np.ceil(np.array(grid.size) * ratio) - 1)
    # The phase of the new grid hangs on the corner of the image, not on the mask.
    origin = grid.frame().TransformContinuousIndexToPhysicalPoint((0.5 * (new - old) / old + low / ratio).tolist())
    x, y, z = (int(n) for n in high - low + 1)
    return ItkGrid((x, y, z), tuple(new.tolist()), origin, grid.direction)


def resample(values: Values, inside: Solid, old: ItkGrid, new: ItkGrid, interpolator: str) -> tuple[Values, Solid]:
    """Resample an image (z, y, x), HU, by the interpolator, and its mask by the nearest voxel, to a new grid.

    The grid has the same direction. With "sitkLinear" and axes along the patient's, values are computed inside of the
    mask only and are 0 elsewhere.
    """
    if interpolator == "sitkLinear" and old.direction == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0):
        return _linear(values, inside, *_coordinates(old, new))
    images = []
    for array, method in ((values, getattr(sitk, interpolator)), (inside, sitk.sitkNearestNeighbor)):
        image = old.image(array)
        images.append(
            sitk.Resample(
                image, new.size, sitk.Transform(), method, new.origin, new.spacing, new.direction, 0.0,
                image.GetPixelID(),
            )
        )  # fmt: skip
    return sitk.GetArrayFromImage(images[0]), sitk.GetArrayFromImage(images[1])


def _coordinates(old: ItkGrid, new: ItkGrid) -> tuple[Floats, Floats, Floats]:
    """Positions of the new planes, rows and columns (z, y, x) in voxels of the old grid, as ITK computes them."""
    to, back = new.frame(), old.frame()

    def position(index: tuple[int, int, int]) -> tuple[float, float, float]:
        return back.TransformPhysicalPointToContinuousIndex(to.TransformIndexToPhysicalPoint(index))

    columns, rows, planes = new.size
    start, end = position((0, 0, 0))[0], position((columns, 0, 0))[0]  # ITK divides a line from end to end
    return (
        np.array([position((0, 0, k))[2] for k in range(planes)]),
        np.array([position((0, k, 0))[1] for k in range(rows)]),
        start + np.arange(columns) / columns * (end - start),
    )


@compiled
def _nearest(positions: Floats, length: int) -> NDArray[np.int64]:
    """Return the nearest voxel, the upper one of two.

    -1 outside of the image, whose border voxels end half a voxel out.
    """
    nearest = np.minimum(np.floor(positions + 0.5), length - 1)
    return np.where((positions >= -0.5) & (positions < length - 0.5), nearest, -1.0).astype(np.int64)


@compiled
def _below(positions: Floats) -> NDArray[np.int64]:
    return np.maximum(np.floor(positions), 0.0).astype(np.int64)


@compiled
def _linear(values: Values, inside: Solid, z: Floats, y: Floats, x: Floats) -> tuple[Values, Solid]:
    depth, height, width = values.shape
    sampled = np.zeros((len(z), len(y), len(x)), values.dtype)
    kept = np.zeros(sampled.shape, np.uint8)
    near_z, near_y, near_x = _nearest(z, depth), _nearest(y, height), _nearest(x, width)
    base_z, base_y, base_x = _below(z), _below(y), _below(x)
    for k in range(len(z)):
        if near_z[k] < 0:
            continue
        z0 = base_z[k]
        z1 = min(z0 + 1, depth - 1)
        dz = max(z[k] - z0, 0.0)
        for j in range(len(y)):
            if near_y[j] < 0:
                continue
            y0 = base_y[j]
            y1 = min(y0 + 1, height - 1)
            dy = max(y[j] - y0, 0.0)
            for i in range(len(x)):
                if near_x[i] < 0 or not inside[near_z[k], near_y[j], near_x[i]]:
                    continue
                kept[k, j, i] = 1
                x0 = base_x[i]
                x1 = min(x0 + 1, width - 1)
                dx = max(x[i] - x0, 0.0)
                a = values[z0, y0, x0] + (values[z0, y0, x1] - values[z0, y0, x0]) * dx
                b = values[z0, y1, x0] + (values[z0, y1, x1] - values[z0, y1, x0]) * dx
                c = values[z1, y0, x0] + (values[z1, y0, x1] - values[z1, y0, x0]) * dx
                d = values[z1, y1, x0] + (values[z1, y1, x1] - values[z1, y1, x0]) * dx
                a += (b - a) * dy
                c += (d - c) * dy
                sampled[k, j, i] = np.int64(a + (c - a) * dz)
    return sampled, kept
