"""Labels of every slice from labels of some: how a mask is carried over slices that a network has not seen.

Between two slices the outline moves in a straight line: the signed distances to it are interpolated (Raya and Udupa
1990, IEEE Trans Med Imaging 9:32, shape-based interpolation).
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Mask


def chosen(slices: int, spacing_mm: float, step_mm: float) -> NDArray[np.intp]:
    """Return the indices (n,) of the slices to look at, ascending: at most `step_mm` apart, first and last among them.

    Args:
        slices: how many there are.
        spacing_mm: between two of them.
        step_mm: what may lie between two that are looked at; 0: each is.
    """
    # A thousandth: 2.5 mm are five steps of 0.4999 mm too.
    each = max(1, int((step_mm + 0.001 * spacing_mm) / spacing_mm))
    count = max(1, -(-(slices - 1) // each))
    return np.unique(np.rint(np.linspace(0, slices - 1, count + 1)).astype(np.intp))


def between(labels: NDArray[np.uint8], at: NDArray[np.intp], slices: int) -> NDArray[np.uint8]:
    """Return labels (z, y, x) of all slices from those (n, y, x) of the slices `at`, as `chosen` gives them.

    Where two labels meet in between, the deeper one wins.
    """
    if len(at) == slices:
        return labels
    found = np.zeros((slices, *labels.shape[1:]), np.uint8)
    found[at] = labels
    if not labels.any():
        return found
    box = _box(labels > 0)
    deepest = np.zeros((slices, *labels[0][box].shape), np.float32)
    inside = found[(slice(None), *box)]
    missing = np.setdiff1d(np.arange(slices), at)
    before = np.searchsorted(at, missing) - 1
    share = ((missing - at[before]) / (at[before + 1] - at[before])).astype(np.float32)[:, None, None]
    for label in np.unique(labels[labels > 0]):
        depth = _depth(labels[(slice(None), *box)] == label)
        here = (1 - share) * depth[before] + share * depth[before + 1]
        won = here > deepest[missing]
        deepest[missing] = np.where(won, here, deepest[missing])
        inside[missing] = np.where(won, label, inside[missing])
    return found


def _box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


def _depth(mask: Mask) -> NDArray[np.float32]:
    """Pixels to the outline within each slice, (z, y, x): positive inside, negative outside and in empty slices."""
    depth = np.full(mask.shape, -np.float32(sum(mask.shape[1:])), np.float32)
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        image = sitk.GetImageFromArray(mask[z].astype(np.uint8))
        found = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False)
        # Zero on the outermost pixels of the mask: the outline runs half a pixel further out.
        depth[z] = sitk.GetArrayViewFromImage(found) + np.float32(0.5)
    return depth
