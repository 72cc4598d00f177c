"""Regions of the lungs: thirds from apex to base, rim and core, lobes.

None of them has a definition that everybody shares, so these are written out here and stand in the documentation:

- **Thirds** of equal volume from apex to base, cut between axial slices. Of equal volume, as in the Chest Imaging
  Platform (CIPLabelLungRegionsImageFilter), and not of equal height: the shallow recess behind the diaphragm would make
  the lowest third of the height a small one, whose percentages jump from scan to scan. Unlike there, each lung has its
  own thirds: a raised hemidiaphragm must not move the other lung's.
- **Rim**: lung within 20 mm of its lung's surface (ribs, diaphragm and mediastinum; not the fissures). **Core**: the
  rest. Holes of the mask (large airways) are filled first, so that they make no surface. Distances are measured on a
  grid of about 2 mm. In the literature the width goes from 2 to 20 mm, or it is the outer third: compare with numbers
  of the same definition only.
- **Lobes**, where a lobe model labels them.

Airways and vessels count wherever the mask of the lungs holds them: what `quantify` measures in the whole lungs is what
it measures in their parts, and volumes of thirds, and of rim and core, add up to the lungs'.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.lungs.body_air import distance

RIM_MM: Final = 20.0
UPPER, MIDDLE, LOWER = 2, 1, 0
_GRID_MM: Final = 2.0


def thirds(labels: Labels) -> NDArray[np.uint8]:
    """Which third each axial slice of each lung belongs to: shape (z, 3), columns by label; LOWER, MIDDLE, UPPER.

    The slice in which the cumulated volume passes a third goes to the third that holds its middle.
    """
    found = np.zeros((labels.shape[0], 3), np.uint8)
    for side in (RIGHT, LEFT):
        areas = np.count_nonzero(labels == side, axis=(1, 2))
        total = max(1, int(areas.sum()))
        up_to_middle = (np.cumsum(areas) - areas / 2) / total
        found[:, side] = np.minimum(np.floor(3 * up_to_middle), UPPER)
    return found


def rim(volume: Volume, labels: Labels) -> Iterator[Mask]:
    """Yield the mask of the lungs' voxels within `RIM_MM` of their lung's surface, slice by slice, feet first.

    Args:
        volume: the volume.
        labels: (z, y, x), 0 background, 1 right, 2 left.

    Yields:
        Of each axial slice, (y, x).
    """
    steps = [min(max(1, round(_GRID_MM / mm)), n) for mm, n in zip(volume.spacing_mm, labels.shape, strict=True)]
    z, y, x = (mm * step for mm, step in zip(volume.spacing_mm, steps, strict=True))
    coarse = labels[tuple(slice(step // 2, None, step) for step in steps)]
    core = np.zeros(coarse.shape, bool)
    for side in (RIGHT, LEFT):
        for box in ndimage.find_objects((coarse == side).view(np.uint8)):
            lung = np.pad(ndimage.binary_fill_holes(coarse[box] == side), 1)
            # The surface lies half a voxel before the first voxel outside.
            depth = distance(~lung, (z, y, x)) - min(z, y, x) / 2
            core[box] |= (depth > RIM_MM)[1:-1, 1:-1, 1:-1]
    sizes = tuple(zip(labels.shape, steps, coarse.shape, strict=True))
    levels, rows, columns = (np.minimum(np.arange(fine) // step, last - 1) for fine, step, last in sizes)
    for z, level in enumerate(levels):
        yield (labels[z] > 0) & ~core[level].take(columns, axis=1).take(rows, axis=0)
