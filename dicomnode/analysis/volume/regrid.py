"""Slices of a tilted or unevenly spaced stack onto an orthogonal, uniform grid, by linear interpolation.

The slices keep their planes and their pixels' spacing: a tilted stack is only shifted within each slice, as far as the
slices' positions stray from the common normal, so that nothing is blurred from slice to slice. Uneven steps are made
even by linear interpolation between neighbours. `SourceGrid` remembers where each source image lies.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import HuArray, SourceGrid
from dicomnode.analysis.series.geometry import SliceStack
from dicomnode.analysis.volume.decode import PADDING_HU


@dataclass(frozen=True)
class TargetGrid:
    """The target of a resampling.

    Attributes:
        shape: (z, y, x).
        step_mm: along z.
        first: voxel [0, 0, 0] of the grid in (y, x) voxels of the lowest image, 0 or negative.
        source: where the images lie.
    """

    shape: tuple[int, int, int]
    step_mm: float
    first: tuple[int, int]
    source: SourceGrid


def plan(stack: SliceStack, shifts: NDArray[np.float64], image_shape: tuple[int, int], *, spread: bool) -> TargetGrid:
    """Return the smallest grid that holds all of a stack.

    Args:
        stack: of the images.
        shifts: shape (frame, 2), of each image's first voxel from the lowest one's, in voxels (y, x), feet first.
        image_shape: of each image, (y, x).
        spread: whether the slices have to be spread onto even steps; else each keeps its place.
    """
    along = np.sort(stack.positions_mm) - min(stack.positions_mm)
    slices = len(along)
    if spread:
        slices = round(stack.coverage_mm / float(np.median(stack.distinct_steps_mm))) + 1
    step = stack.coverage_mm / (slices - 1)
    z = along / step if spread else np.arange(slices, dtype=float)
    first = np.floor(shifts.min(axis=0) + 1e-6).astype(int)
    starts = shifts - first
    y_size, x_size = (int(np.ceil(s - 1e-6)) + n for s, n in zip(starts.max(axis=0), image_shape, strict=True))
    y, x = (tuple(map(float, column)) for column in starts.T)
    source = SourceGrid(tuple(map(float, z)), y, x, image_shape)
    return TargetGrid((slices, y_size, x_size), step, (int(first[0]), int(first[1])), source)


def fill(grid: TargetGrid, images: Iterable[HuArray]) -> HuArray:
    """Return the volume (z, y, x), HU, on the grid, from the turned images (y, x), feet first.

    What no image covers is padding.
    """
    hu = np.full(grid.shape, PADDING_HU, np.int16)
    below: HuArray | None = None
    z_below = 0.0
    for image, z, y, x in zip(images, grid.source.z, grid.source.y, grid.source.x, strict=True):
        here = _place(image, (y, x), grid.shape[1:])
        for k in range(int(np.ceil(z_below - 1e-6)), int(np.floor(z + 1e-6)) + 1):
            weight = 1.0 if below is None or z == z_below else (k - z_below) / (z - z_below)
            if weight >= 1 - 1e-6 or below is None:
                hu[k] = here
            elif weight > 1e-6:
                hu[k] = np.rint(below + np.float32(weight) * (here.astype(np.float32) - below))
        below, z_below = here, z
    return hu


def _place(image: HuArray, start: tuple[float, float], shape: tuple[int, ...]) -> HuArray:
    """Return the image (y, x) shifted to `start` (y, x) on a larger plane.

    Voxels that are not between two of its own are padding.
    """
    for axis, (at, size) in enumerate(zip(start, shape, strict=True)):
        image = _shift(image, axis, at, size)
    return image


def _shift(image: HuArray, axis: int, start: float, size: int) -> HuArray:
    whole = int(np.ceil(start - 1e-6))
    fraction = np.float32(whole - start)
    lines = np.moveaxis(image, axis, 0)
    if fraction > 1e-4:
        low, high = lines[:-1].astype(np.float32), lines[1:]
        lines = np.rint(low + fraction * (high - low)).astype(np.int16)
    placed = np.full((size, lines.shape[1]), PADDING_HU, np.int16)
    placed[whole : whole + len(lines)] = lines
    return np.moveaxis(placed, 0, axis)
