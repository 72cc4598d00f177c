"""What lies between aerated lung and the walls of its half of the chest: dense lung, fluid, or what cannot be told.

The lung's hull are ribs, spine, mediastinum and diaphragm. Of these only the ribs can be seen whatever has become of
the lung (`rib_cage`); the others are known from where aerated lung meets them, from the other lung, and from a
difference in attenuation. Three steps, each on the one before:

1. *Along the ribs*: what lies between the last aerated lung and the ribs, and what a lobe without air leaves empty
   where the other lung has one.
2. *Told apart*: attenuation tells most; where it is that of fluid or of fat, shape tells: fluid gathers on one side,
   front or back, fibrosis lines the whole wall.
3. *Along mediastinum and diaphragm*: where a layer of dense lung lines the ribs, a layer of the same attenuation goes
   on around the aerated lung, if what lies behind it has another attenuation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Mask
from dicomnode.analysis.lungs import rib_cage
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, distance
from dicomnode.analysis.lungs.rib_cage import BONE_HU, STEP_MM, Cage

#: Thinner dense layers are left to the closing of the lung; deeper ones are not believed without the other lung.
THINNEST_MM, DEEPEST_MM = 5.0, 70.0
#: How far below or above lung that ends before the ribs the same is looked for, mm.
BESIDE_MM = 6.0
#: From here forwards, degrees from the flank, only so much is believed, mm.
IN_FRONT, DEEPEST_IN_FRONT_MM = -35.0, 22.0
#: Half the width of the band at the midline (spine, aorta, sternum) in which nothing is looked for.
MIDDLE_MM = 26.0
#: Mean attenuation of fat, and of fluid, HU.
FAT_HU, FLUID_HU = (-130.0, -60.0), (-60.0, 25.0)
#: A layer lines the wall if the smaller of its parts in front and behind is at least this share, and most of it is
#: thinner than this, mm.
LINING_SHARE, LINING_MM = 0.22, 40.0
#: A layer along the ribs that is no fat covers at least this share of the wall.
WALL_SHARE = 0.25
#: A piece of which so much is surely no fluid is none at its edges either.
MOSTLY_SURE = 0.4
SMALLEST_ML = 3.0
#: A layer along mediastinum and diaphragm is as thick as that along the ribs, and no thicker than this, mm.
THICKEST_LAYER_MM = 28.0
_MEAN_OVER_MM = 9.0
#: A ray meets the wall of aerated lung within this, mm.
TOUCHING_MM = 12.0
#: Degrees from the flank: where a wall is seen as lined; what is flank; from where on no heart lies, if low and high.
_FLANK_FRONT, _FLANK_BACK, _FLANK = (-50.0, 0.0), (0.0, 60.0), (-60.0, 30.0)
_NO_HEART_LOW, _NO_HEART_HIGH = -30.0, -75.0
#: From here backwards no dome is met, where lung is met so near the axis at the flank, mm.
_BEHIND, AXIS_IN_LUNG_MM = 0.0, 15.0
#: A lobe without air is looked for this far inside of where the other lung begins, and is at least so large.
LOBE_INSET_MM, LOBE_ML = 5.0, 60.0
#: Half the width of the band of attenuation of a layer, and how its depth is widened, mm.
BAND_HU, LAYER_SLACK_MM = 22.0, 3.0
NEAR_MM = 1.8
#: Tissue that is an organ and no layer is at least so wide, mm, and so large.
BULK_MM, BULK_ML = 10.0, 15.0


@dataclass(frozen=True)
class Between:
    """What was found between aerated lung and its walls, both (z, y, x): none of it is aerated lung.

    Attributes:
        dense: dense lung, 1 right, 2 left.
        untold: in the hull, and either fluid or nothing that could be told from lung: 1 right, 2 left.
    """

    dense: NDArray[np.uint8]
    untold: NDArray[np.uint8]


@dataclass(frozen=True)
class _Chest:
    spacing_mm: tuple[float, float, float]
    lungs: NDArray[np.uint8]
    cages: Mapping[int, Cage]
    solid: Mask
    mean_hu: NDArray[np.float32]
    near_hu: NDArray[np.float32]
    on_right: Mask

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing_mm)) / 1000.0

    def half(self, side: int) -> Mask:
        """Return the columns (x,) of one side."""
        return self.on_right == (side == RIGHT)


def find(
    hu: HuArray, spacing_mm: tuple[float, float, float], lungs: NDArray[np.uint8], other: Mask, midline: float
) -> Between:
    """Find dense lung, and what may be lung, around aerated lung.

    Args:
        hu: (z, y, x), HU, of 2 to 5 mm.
        spacing_mm: (z, y, x).
        lungs: (z, y, x), aerated lung: 0 background, 1 right, 2 left.
        other: (z, y, x), what is known to be no lung: airways, other gas.
        midline: x index of the body's middle.
    """
    dense, untold = np.zeros_like(lungs), np.zeros_like(lungs)
    if not lungs.any():
        return Between(dense, untold)
    cages = rib_cage.look(hu, spacing_mm, lungs, midline)
    solid = (lungs == 0) & ~other & (hu >= AIR_BELOW_HU) & (hu < BONE_HU)
    off_middle = np.abs(np.arange(hu.shape[2]) - midline) * spacing_mm[2] > MIDDLE_MM
    on_right = np.arange(hu.shape[2]) < midline
    chest = _Chest(spacing_mm, lungs, cages, solid, _mean(hu, solid, spacing_mm), _near(hu, spacing_mm), on_right)
    for side in (RIGHT, LEFT):
        if not cages[side].seen:
            continue
        sure, doubt = _told_apart(chest, _along_ribs(chest, side) & off_middle & chest.half(side), side)
        layer, like_layer = _around(chest, sure, side)
        dense[sure | layer] = side
        untold[(doubt | like_layer) & (dense == 0)] = side
    return Between(dense, untold)


def _mean(hu: HuArray, where: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Mean over about 9 mm of those voxels around that are in `where`."""
    size = [2 * int(_MEAN_OVER_MM / 2 / mm) + 1 for mm in spacing_mm]
    weight = ndimage.uniform_filter(where.astype(np.float32), size)
    total = ndimage.uniform_filter(np.where(where, hu, 0).astype(np.float32), size)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def _near(hu: HuArray, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Attenuation without much of its noise, and without much of what lies 5 mm away."""
    smoothed: NDArray[np.float32] = ndimage.gaussian_filter(hu.astype(np.float32), [NEAR_MM / mm for mm in spacing_mm])
    return smoothed


def _along_ribs(chest: _Chest, side: int) -> Mask:
    """Return what lies between lung and ribs."""
    cage = chest.cages[side]
    # A ray just beside lung that ends before the ribs sees what its neighbours see.
    around = ndimage.maximum_filter(cage.outermost, (2 * round(BESIDE_MM / chest.spacing_mm[0]) + 1, 5))
    outermost = np.where(cage.outermost < 0, around, cage.outermost)
    gap = np.where((outermost >= 0) & (cage.ribs >= 0), (cage.ribs - outermost) * STEP_MM, 0.0)
    # In front, heart, thymus and fat lie between lung and ribs.
    deepest = np.where(cage.degrees < IN_FRONT, DEEPEST_IN_FRONT_MM, DEEPEST_MM)
    near = cage.between(outermost, (gap >= THINNEST_MM) & (gap <= deepest)) & chest.solid
    return near | _pieces(_airless_lobe(chest, side) & chest.solid & ~near, chest, LOBE_ML)


def _airless_lobe(chest: _Chest, side: int) -> Mask:
    """Voxels where the other lung's mirror image has lung that reaches the ribs, and this side has none on the ray.

    So too behind lung in front, above the dome: lung reaches deepest behind. Not below the lung that this side still
    has at its flank (there lie liver and spleen), nor where the heart may lie.
    """
    cage, other = chest.cages[side], chest.cages[LEFT if side == RIGHT else RIGHT]
    lung, flank = cage.outermost >= 0, _within(cage, _FLANK)
    touching = _touching(cage)
    above = np.logical_or.accumulate(np.count_nonzero(touching & flank, axis=1) >= 3)
    levels = np.flatnonzero((lung | (other.outermost >= 0)).any(axis=1))
    high = np.arange(len(lung)) > levels[0] + 0.6 * (levels[-1] - levels[0])
    heart_free = cage.degrees > np.where(high, _NO_HEART_HIGH, _NO_HEART_LOW)[:, None]
    empty = ~lung | (cage.gap_mm > DEEPEST_MM)
    like_other = _touching(other) & above[:, None] & heart_free
    # Where the axis runs in lung, neither dome nor heart lies behind it.
    over_dome = (np.where(flank, cage.innermost, 10**6).min(axis=1) * STEP_MM <= AXIS_IN_LUNG_MM) & above
    behind = over_dome[:, None] & (cage.degrees > _BEHIND)
    expected = (like_other | behind) & empty & (cage.ribs >= 0)
    inset = round(LOBE_INSET_MM / STEP_MM)
    inner = np.where(lung, cage.outermost, np.where(behind, inset, other.innermost + inset))
    return cage.between(inner, ndimage.binary_opening(expected, np.ones((3, 3))))


def _touching(cage: Cage) -> Mask:
    return np.asarray((cage.outermost >= 0) & (cage.ribs >= 0) & (cage.gap_mm < TOUCHING_MM))


def _within(cage: Cage, degrees: tuple[float, float]) -> Mask:
    return np.asarray((cage.degrees >= degrees[0]) & (cage.degrees < degrees[1]))


def _told_apart(chest: _Chest, along_ribs: Mask, side: int) -> tuple[Mask, Mask]:
    """Dense lung, and fluid or what has its attenuation, of what lies along the ribs."""
    mean = chest.mean_hu
    fat = (mean >= FAT_HU[0]) & (mean < FAT_HU[1])
    fluid = (mean >= FLUID_HU[0]) & (mean <= FLUID_HU[1])
    if _lines_the_wall(chest, along_ribs & (fat | fluid), side):
        return _pieces(_opened(along_ribs, chest), chest), np.zeros_like(along_ribs)
    sure = along_ribs & ~fat & ~fluid
    # Between dense lung and what is less dense, the mean passes through that of fluid and fat.
    components, n = ndimage.label(along_ribs)
    all_of, sure_of = (np.bincount(components[mask], minlength=n + 1) for mask in (along_ribs, sure))
    sure |= (sure_of >= MOSTLY_SURE * np.maximum(all_of, 1))[components] & along_ribs
    doubt = along_ribs & fluid & ~sure
    return _pieces(_opened(sure, chest), chest), _pieces(_opened(doubt, chest), chest)


def _thickness_mm(chest: _Chest, mask: Mask, side: int) -> NDArray[np.float64]:
    """Of a mask along each ray (z, ray), mm."""
    return np.count_nonzero(chest.cages[side].along(mask), axis=2) * STEP_MM


def _lines_the_wall(chest: _Chest, mask: Mask, side: int) -> bool:
    """Whether the mask lines the wall in front and behind alike: fluid sinks to one of the two, fat lies in corners."""
    cage, thick = chest.cages[side], _thickness_mm(chest, mask, side)
    covered = thick >= THINNEST_MM
    levels = covered.mean(axis=1) >= 0.1
    if np.count_nonzero(levels) * chest.spacing_mm[0] < LINING_MM:
        return False
    shares = [covered[levels][:, _within(cage, part)].mean() for part in (_FLANK_FRONT, _FLANK_BACK)]
    return bool(min(shares) >= WALL_SHARE and np.percentile(thick[covered], 75) <= LINING_MM)


def _around(chest: _Chest, dense: Mask, side: int) -> tuple[Mask, Mask]:
    """Where dense lung lines the ribs: the layer along mediastinum and diaphragm, and what might be that layer."""
    nothing = np.zeros_like(dense)
    if not dense.any() or not _lines_the_wall(chest, dense, side):
        return nothing, nothing
    thick = _thickness_mm(chest, dense, side)
    depth_mm = min(float(np.percentile(thick[thick >= THINNEST_MM], 60)) + LAYER_SLACK_MM, THICKEST_LAYER_MM)
    levels = np.flatnonzero(dense.any(axis=(1, 2)))
    here = np.zeros(len(dense), bool)
    here[max(0, levels[0] - round(depth_mm / chest.spacing_mm[0])) : levels[-1] + 1] = True
    cage = chest.cages[side]
    inside = (cage.inside | ~cage.outward) & chest.half(side) & here[:, None, None]
    off = np.abs(chest.near_hu - float(np.median(chest.near_hu[dense])))
    alike = chest.solid & inside & (off <= BAND_HU)
    depth = distance(chest.lungs == side, chest.spacing_mm)
    bulk = _pieces(_opened(alike & ~dense & (depth > depth_mm), chest, BULK_MM), chest, BULK_ML)
    layer = alike & (depth <= depth_mm) & ~dense
    doubt = layer & (distance(bulk, chest.spacing_mm) <= depth_mm) if bulk.any() else nothing
    grown, doubt = _opened((layer & ~doubt) | dense, chest) & layer, _opened(doubt | dense, chest) & doubt
    return _joined(grown, dense), doubt


def _joined(mask: Mask, to: Mask) -> Mask:
    components, n = ndimage.label(mask | to)
    kept = np.zeros(n + 1, bool)
    kept[np.unique(components[to])] = True
    kept[0] = False
    return np.asarray(kept[components] & mask)


def _opened(mask: Mask, chest: _Chest, mm_wide: float = THINNEST_MM) -> Mask:
    """Without sheets thinner than this."""
    box = np.ones([max(1, round(mm_wide / mm)) for mm in chest.spacing_mm], bool)
    return np.asarray(ndimage.binary_opening(mask, box))


def _pieces(mask: Mask, chest: _Chest, smallest_ml: float = SMALLEST_ML) -> Mask:
    """Without pieces smaller than this."""
    components, n = ndimage.label(mask)
    large = np.bincount(components.ravel(), minlength=n + 1) * chest.voxel_ml >= smallest_ml
    large[0] = False
    return np.asarray(large[components])
