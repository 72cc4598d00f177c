"""A layer of dense lung that goes on where the ribs do not reach: along mediastinum and diaphragm.

Dense lung that lines the ribs in front and behind alike, like a rind around what is still aerated, does not end where
the ribs do. There it is as thick as along the ribs, and what lies so near aerated lung is alike: mediastinum without
such a layer is fat, heart and vessels by turns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import RIGHT, HuArray, Mask
from dicomnode.analysis.lungs.body_air import distance
from dicomnode.analysis.lungs.rib_cage import Cage

#: A lining covers at least this share of the wall in front and behind, over this height, mm.
COVERED, LEAST_HEIGHT_MM = 0.33, 25.0
#: Thinner and thicker than this it is none, mm.
THINNEST_MM, THICKEST_MM = 6.0, 34.0
#: Half the width of its band of attenuation, HU, and how much of what lies beside mediastinum must be within.
BAND_HU, ALIKE_SHARE = 35.0, 0.72
#: Farther out than its depth by this, mm, nothing belongs to it; farther in, everything that is no air or bone.
SLACK_MM, SURELY_MM = 2.0, 3.0
#: So far from its faces the attenuation of a layer is blurred by what lies beyond, voxels.
BLURRED_VOXELS = 1.7
#: The ends of aerated lung, mm high at the base and apex, are too small to tell.
END_MM = (60.0, 25.0)
#: The ribs are known to this, steps of the rays.
RIBS_SLACK = 2
#: From here to there, degrees, the ribs are known; so far forwards without lung.
_RIBS_KNOWN, _NO_LUNG_KNOWN = (-35.0, 100.0), 0.0
_OVER_MM = 15.0
_FRONT, _BACK = (-50.0, 0.0), (0.0, 60.0)


@dataclass(frozen=True)
class Wall:
    """What is known of one lung, masks (z, y, x).

    Attributes:
        aerated: its aerated part.
        dense: dense lung along the ribs.
        solid: neither air nor bone.
        hu: attenuation.
        spacing_mm: (z, y, x).
    """

    aerated: Mask
    dense: Mask
    solid: Mask
    hu: HuArray
    spacing_mm: tuple[float, float, float]


def depth_mm(thick_mm: NDArray[np.float64], aerated: Mask, cage: Cage, dz: float) -> NDArray[np.float64]:
    """Return how thick the lining of the ribs is at each height (z,), mm; 0 where there is none.

    Args:
        thick_mm: (z, ray), what lies between aerated lung and ribs.
        aerated: (z, y, x), aerated lung.
        cage: the rays.
        dz: between slices, mm.
    """
    lung = cage.outermost >= 0
    covered = (thick_mm >= THINNEST_MM) & (thick_mm <= THICKEST_MM) & lung
    rows = 2 * round(_OVER_MM / 2 / dz) + 1
    lined = np.minimum(*(_share(covered, lung, cage, part, rows) for part in (_FRONT, _BACK))) >= COVERED
    found = np.zeros(len(lined))
    levels = np.flatnonzero(lined)
    if levels.size * dz < LEAST_HEIGHT_MM:
        return found
    for z in levels:
        near = slice(max(0, z - rows // 2), z + rows // 2 + 1)
        found[z] = np.median(thick_mm[near][covered[near]])
    # Beyond the ends of aerated lung no ray leaves it: there the layer is as thick as where it ends.
    first, last = np.flatnonzero(aerated.any(axis=(1, 2)))[[0, -1]]
    low, high = levels[0], levels[-1]
    if (low - first) * dz <= END_MM[0]:
        found[max(0, first - round(found[low] / dz)) : low] = found[low]
    if (last - high) * dz <= END_MM[1]:
        found[high + 1 : last + 1 + round(found[high] / dz)] = found[high]
    return found


def layer(wall: Wall, depth_mm: NDArray[np.float64], lining_hu: float, cage: Cage, side: int, half: Mask) -> Mask:
    """Return the mask (z, y, x) of what lies as near aerated lung as the lining is thick.

    Empty where the mediastinum has no such layer.

    Args:
        wall: one lung.
        depth_mm: of the lining, (z,), mm.
        lining_hu: its attenuation, HU.
        cage: its rays.
        side: 1 right, 2 left.
        half: columns (x,) of its side of the body.
    """
    nothing = np.zeros_like(wall.dense)
    levels, columns = np.flatnonzero(depth_mm), np.flatnonzero(half)
    here = (slice(levels[0], levels[-1] + 1), slice(None), slice(columns[0], columns[-1] + 1))
    limit = depth_mm[here[0], None, None]
    aerated = wall.aerated[here]
    depth = distance(aerated, wall.spacing_mm)
    near = (wall.solid & ~wall.dense & before_ribs(cage))[here] & (depth <= limit + SLACK_MM)
    off = wall.hu[here] - lining_hu
    medial = near & middle(depth, limit, wall.spacing_mm) & _medial(aerated, side)
    if not medial.any() or np.mean(np.abs(off[medial]) <= BAND_HU) < ALIKE_SHARE:
        return nothing
    nothing[here] = near & ((off >= -2 * BAND_HU) | (depth <= limit - SURELY_MM))
    return nothing


def middle(depth: NDArray[np.float32], limit: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> Mask:
    """Return what is far enough from both faces of a layer of thickness `limit` not to be blurred by its neighbours.

    Args:
        depth: from aerated lung (z, y, x), mm.
        limit: thickness, of a shape that broadcasts with `depth`, mm.
        spacing_mm: (z, y, x).
    """
    clear_mm = max(SURELY_MM, BLURRED_VOXELS * max(spacing_mm[1:]))
    inner, outer = np.minimum(clear_mm, 0.4 * limit), np.maximum(limit - clear_mm, 0.6 * limit)
    return np.asarray((depth >= inner) & (depth <= outer))


def before_ribs(cage: Cage) -> Mask:
    """Return the mask (z, y, x) of what is not beyond the ribs, as far as these are known.

    In front bright blood lies before them.

    Args:
        cage: the rays of one side.
    """
    lung = cage.outermost >= 0
    flank = (cage.degrees >= np.where(lung, _RIBS_KNOWN[0], _NO_LUNG_KNOWN)) & (cage.degrees < _RIBS_KNOWN[1])
    known = flank & (cage.ribs >= cage.outermost) & (cage.ribs >= 0)
    ribs = np.where(known, cage.ribs + RIBS_SLACK, 10**6)
    return np.asarray((cage.step <= ribs[:, np.minimum(cage.ray, len(cage.degrees) - 1)]) | ~cage.outward)


def _share(covered: Mask, lung: Mask, cage: Cage, degrees: tuple[float, float], rows: int) -> NDArray[np.float64]:
    """Of the rays of a part of the wall that leave lung, how many are covered, (z,), over some height."""
    part = (cage.degrees >= degrees[0]) & (cage.degrees < degrees[1])
    many = ndimage.uniform_filter1d(lung[:, part].sum(axis=1).astype(np.float64), rows)
    return ndimage.uniform_filter1d(covered[:, part].sum(axis=1).astype(np.float64), rows) / np.maximum(many, 1.0)


def _medial(aerated: Mask, side: int) -> Mask:
    """Between the innermost aerated lung of each row and the midline."""
    outward = aerated[:, :, ::-1] if side == RIGHT else aerated
    begun = np.logical_or.accumulate(outward, axis=2)
    medial = ~begun & begun[:, :, -1:]
    return np.asarray(medial[:, :, ::-1] if side == RIGHT else medial)
