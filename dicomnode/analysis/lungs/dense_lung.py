"""Dense lung along the chest wall, which no threshold finds: looked for between aerated lung and the ribs.

From the middle of the chest a ray outwards leaves the last aerated lung at one radius and meets the inner side of the
ribs at another. In a healthy chest the two are a few millimetres apart. What lies between where they are farther apart
is dense lung, fluid, or fat; the attenuation tells which. Heart, liver and spleen lie on the inner side of the aerated
lung and are never met; vertebrae and aorta are left out by a sector around the midline.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import Mask
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, BodyGrid

BONE_HU = 150
#: Fewer rays that leave lung and meet ribs than this share: no rib cage to measure from (thick slices, no bone).
RIBS_SEEN = 0.4
#: Rib and the gap below it are together about this high, mm.
RIB_STEP_MM = 24.0
#: Pleura, fat and the innermost intercostal muscle between lung and the inner side of the ribs, mm.
LINING_MM = 3.0
#: Thinner dense layers are left to the closing of the lung; deeper ones are not believed.
THINNEST_MM, DEEPEST_MM = 7.0, 70.0
#: Half the width of the sector at the midline (spine, aorta, sternum) in which nothing is looked for.
MIDDLE_MM = 30.0
#: Mean attenuation that is not lung: fat and fluid. Below it lies fibrosis with some air, above it consolidation.
NOT_LUNG_HU = (-130.0, 25.0)
SMALLEST_ML = 3.0
_MEAN_OVER_MM = 9.0
_RAYS = 180
_NEAR_RAYS = 4
_STEP_MM = 1.5


@dataclass(frozen=True)
class _Fan:
    """Rays from the middle of the chest in one axial slice: `ray` and `step` of each voxel (y, x), and back."""

    ray: NDArray[np.int64]
    step: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    in_image: Mask


def add(grid: BodyGrid, labels: NDArray[np.uint8], midline: float) -> NDArray[np.uint8]:
    """Return the labels with dense lung added between aerated lung and ribs.

    Args:
        grid: the shrunken volume.
        labels: (z, y, x), 0 background, 1 right, 2 left, above: what is neither.
        midline: x index of the body's middle.
    """
    lung = (labels == 1) | (labels == 2)
    if not lung.any():
        return labels
    middle_y = float(np.median(np.nonzero(lung)[1]))
    fan = _fan(grid, middle_y, midline)
    outermost, side = _outermost_lung(labels, fan)
    ribs = _ribs(grid, fan, outermost)
    if np.count_nonzero(ribs >= 0) < RIBS_SEEN * np.count_nonzero(outermost >= 0):
        return labels
    gap = (ribs - outermost) * _STEP_MM - LINING_MM
    wanted = (outermost >= 0) & (gap >= THINNEST_MM) & (gap <= DEEPEST_MM)
    first = np.where(wanted, outermost, np.iinfo(np.int64).max)
    last = np.where(wanted, ribs - LINING_MM / _STEP_MM, 0)
    between = (fan.step > first[:, fan.ray]) & (fan.step < last[:, fan.ray])
    off_middle = np.abs(np.arange(labels.shape[2]) - midline) * grid.spacing_mm[2] > MIDDLE_MM
    dense = between & off_middle & (labels == 0) & (grid.hu < BONE_HU)
    return np.where(_solid(grid, dense & _of_lung(grid, dense)), side[:, fan.ray], labels)


def _fan(grid: BodyGrid, middle_y: float, middle_x: float) -> _Fan:
    _, dy, dx = grid.spacing_mm
    height, width = grid.hu.shape[1:]
    y, x = (np.arange(height)[:, None] - middle_y) * dy, (np.arange(width)[None, :] - middle_x) * dx
    ray = np.floor((np.arctan2(y, x) + np.pi) / (2 * np.pi) * _RAYS).astype(np.int64) % _RAYS
    step = np.rint(np.hypot(y, x) / _STEP_MM).astype(np.int64)
    angles = (np.arange(_RAYS) + 0.5) / _RAYS * 2 * np.pi - np.pi
    radii = np.arange(int(step.max()) + 1) * _STEP_MM
    rows = np.rint(middle_y + np.outer(np.sin(angles), radii) / dy).astype(np.int64)
    columns = np.rint(middle_x + np.outer(np.cos(angles), radii) / dx).astype(np.int64)
    in_image = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return _Fan(ray, step, rows.clip(0, height - 1), columns.clip(0, width - 1), in_image)


def _outermost_lung(labels: NDArray[np.uint8], fan: _Fan) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the step at which each ray (z, ray) leaves the last aerated lung (-1: it meets none), and which lung."""
    on_rays = np.where(fan.in_image, labels[:, fan.rows, fan.columns], 0)
    lung = (on_rays == 1) | (on_rays == 2)
    last = lung.shape[2] - 1 - lung[:, :, ::-1].argmax(axis=2)
    side = np.take_along_axis(on_rays, last[:, :, None], axis=2)[:, :, 0]
    return np.where(lung.any(axis=2), last, -1), side


def _ribs(grid: BodyGrid, fan: _Fan, outermost: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the step at which each ray (z, ray) meets the inner side of the rib cage.

    -1 where no bone lies beyond the lung.

    Ribs are oblique, and a slice shows only parts of them: those of the height of a rib and its gap are looked at
    together, and the inner quarter of what neighbouring rays see is taken, so that a shoulder blade does not count.
    """
    dz = grid.spacing_mm[0]
    bone = (grid.hu > BONE_HU)[:, fan.rows, fan.columns] & fan.in_image
    bone = ndimage.maximum_filter1d(bone.view(np.uint8), 2 * round(RIB_STEP_MM / 2 / dz) + 1, axis=0).view(bool)
    beyond = np.arange(bone.shape[2]) > outermost[:, :, None]
    bone &= beyond & (outermost >= 0)[:, :, None]
    skin = (grid.hu < AIR_BELOW_HU)[:, fan.rows, fan.columns] & beyond
    far = bone.shape[2]
    first_bone, first_air = (np.where(m.any(axis=2), m.argmax(axis=2), far).astype(np.int16) for m in (bone, skin))
    # Beyond the skin lie the table and the arms.
    met = np.where(first_bone < first_air, first_bone, far)
    met = np.pad(met, ((0, 0), (_NEAR_RAYS, _NEAR_RAYS)), mode="wrap")
    around = (2 * round(6 / dz) + 1, 2 * _NEAR_RAYS + 1)
    inner = ndimage.percentile_filter(met, 25, size=around)[:, _NEAR_RAYS:-_NEAR_RAYS].astype(np.int64)
    return np.where((inner < far) & (outermost >= 0), inner, -1)


def _of_lung(grid: BodyGrid, dense: Mask) -> Mask:
    """Where the mean of the dense voxels around is neither that of fat nor of fluid."""
    size = [2 * int(_MEAN_OVER_MM / 2 / mm) + 1 for mm in grid.spacing_mm]
    weight = ndimage.uniform_filter(dense.astype(np.float32), size)
    total = ndimage.uniform_filter(np.where(dense, grid.hu, 0).astype(np.float32), size)
    mean = total / np.maximum(weight, 1e-6)
    return np.asarray((mean < NOT_LUNG_HU[0]) | (mean > NOT_LUNG_HU[1]))


def _solid(grid: BodyGrid, mask: Mask) -> Mask:
    """Without sheets thinner than `THINNEST_MM` and without small pieces."""
    reach = [max(0, round(THINNEST_MM / 2 / mm)) for mm in grid.spacing_mm]
    z, y, x = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((axis / max(r, 0.5)) ** 2 for axis, r in zip((z, y, x), reach, strict=True)) <= 1
    components, n = ndimage.label(ndimage.binary_opening(mask, ball))
    sizes = np.bincount(components.ravel(), minlength=n + 1)
    large = sizes * grid.voxel_ml >= SMALLEST_ML
    large[0] = False
    return np.asarray(large[components])
