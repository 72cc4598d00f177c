"""What lies between aerated lung and the walls of its half of the chest: dense lung, fluid, or what cannot be told.

The walls are ribs, spine, mediastinum and diaphragm. Of these only the ribs can be seen whatever has become of the lung
(`rib_cage`); the others are known from where aerated lung meets them, from the other lung, and from dense lung along
the ribs. Three steps, each on the one before:

1. *Along the ribs*: what lies between the last aerated lung and the ribs, and what a lobe without air leaves empty
   where the other lung has one.
2. *Told apart*: attenuation tells most; where it is that of fluid, shape tells: fluid gathers on one side, front or
   back, fibrosis lines the whole wall.
3. *Along mediastinum and diaphragm*: dense lung that lines the ribs goes on as a layer of the same thickness around
   the aerated lung (`lining`), if what lies there is as uniform as that layer.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Mask
from dicomnode.analysis.lungs import lining, rib_cage
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, distance
from dicomnode.analysis.lungs.lining import Wall
from dicomnode.analysis.lungs.rib_cage import BONE_HU, STEP_MM, Cage

#: Thinner dense layers are left to the closing of the lung; deeper ones are not believed without the other lung.
THINNEST_MM, DEEPEST_MM = 5.0, 70.0
#: How far below or above lung that ends before the ribs the same is looked for, mm.
BESIDE_MM = 6.0
#: From here forwards, degrees from the flank, only so much is believed, mm.
IN_FRONT, DEEPEST_IN_FRONT_MM = -35.0, 22.0
#: How far around aerated lung dense lung is looked for, mm (z, y, x): a lobe without air leaves much.
AROUND_MM = (50.0, 70.0, 45.0)
#: Half the width of the band at the midline (spine, aorta, sternum) in which nothing is looked for.
MIDDLE_MM = 26.0
#: Mean attenuation of fat, and of fluid, HU.
FAT_HU, FLUID_HU = (-130.0, -60.0), (-60.0, 25.0)
#: So much fluid along the ribs, ml and share of the aerated lung, is followed to where no rib is beside it: within this
#: of its median, HU, so far below aerated lung, and where it is so wide, mm.
MUCH_FLUID_ML, MUCH_FLUID_SHARE = 60.0, 0.1
ALIKE_HU, BELOW_MM, FLUID_WIDE_MM = 15.0, 30.0, 9.0
#: A piece of which so much is surely no fluid is none at its edges either.
MOSTLY_SURE = 0.4
SMALLEST_ML = 3.0
_MEAN_OVER_MM = 9.0
#: A ray meets the wall of aerated lung within this, mm.
TOUCHING_MM = 12.0
#: Degrees from the flank: what is flank; from where on no heart lies, if low and high.
_FLANK = (-60.0, 30.0)
_NO_HEART_LOW, _NO_HEART_HIGH = -30.0, -75.0
#: From here backwards no dome is met, where lung is met so near the axis at the flank, mm.
_BEHIND, AXIS_IN_LUNG_MM = 0.0, 15.0
#: A lobe without air is looked for this far inside of where the other lung begins, and is at least so large.
LOBE_INSET_MM, LOBE_ML = 5.0, 60.0


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
        hu: (z, y, x), HU, of 2 to 4 mm.
        spacing_mm: (z, y, x).
        lungs: (z, y, x), aerated lung: 0 background, 1 right, 2 left.
        other: (z, y, x), what is known to be no lung: airways, other gas.
        midline: x index of the body's middle.
    """
    if not lungs.any():
        return Between(np.zeros_like(lungs), np.zeros_like(lungs))
    box = _box(lungs, spacing_mm)
    found = _in_box(hu[box], spacing_mm, lungs[box], other[box], midline - box[2].start)
    whole = Between(np.zeros_like(lungs), np.zeros_like(lungs))
    whole.dense[box], whole.untold[box] = found.dense, found.untold
    return whole


def _box(lungs: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    ((z, y, x),) = ndimage.find_objects((lungs > 0).view(np.uint8))
    around = (
        slice(max(0, part.start - round(mm / size)), part.stop + round(mm / size))
        for part, mm, size in zip((z, y, x), AROUND_MM, spacing_mm, strict=True)
    )
    dz, dy, dx = around
    return dz, dy, dx


def _in_box(
    hu: HuArray, spacing_mm: tuple[float, float, float], lungs: NDArray[np.uint8], other: Mask, midline: float
) -> Between:
    dense, untold = np.zeros_like(lungs), np.zeros_like(lungs)
    solid = (lungs == 0) & ~other & (hu >= AIR_BELOW_HU) & (hu < BONE_HU)
    with ThreadPoolExecutor(1) as beside:
        mean_hu = beside.submit(_mean, hu, solid, spacing_mm)
        cages = rib_cage.look(hu, spacing_mm, lungs, midline)
    off_middle = np.abs(np.arange(hu.shape[2]) - midline) * spacing_mm[2] > MIDDLE_MM
    on_right = np.arange(hu.shape[2]) < midline
    chest = _Chest(spacing_mm, lungs, cages, solid, mean_hu.result(), on_right)
    seen = [side for side in (RIGHT, LEFT) if cages[side].seen]

    def found(side: int) -> tuple[Mask, Mask]:
        sure, doubt = _of_side(chest, hu, side, _along_ribs(chest, side) & off_middle & chest.half(side))
        return sure, _all_fluid(chest, hu, side, doubt)

    with ThreadPoolExecutor(2) as threads:  # filters run without Python's lock
        for side, (sure, doubt) in zip(seen, threads.map(found, seen), strict=True):
            dense[sure] = side
            untold[doubt & (dense == 0)] = side
    return Between(dense, untold)


def _mean(hu: HuArray, where: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Mean over about 9 mm of those voxels around that are in `where`."""
    size = [2 * int(_MEAN_OVER_MM / 2 / mm) + 1 for mm in spacing_mm]
    weight = ndimage.uniform_filter(where.astype(np.float32), size)
    total = ndimage.uniform_filter(np.where(where, hu, 0).astype(np.float32), size)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


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


def _of_side(chest: _Chest, hu: HuArray, side: int, along_ribs: Mask) -> tuple[Mask, Mask]:
    """Dense lung of one side, and fluid or what has its attenuation."""
    cage, aerated = chest.cages[side], chest.lungs == side
    if not along_ribs.any():
        return along_ribs, along_ribs
    # Rays run aslant: a layer is no thicker than the farthest of it is from aerated lung.
    deep_mm = np.where(along_ribs, distance(aerated, chest.spacing_mm), np.float32(0))
    on_rays = cage.along(deep_mm)
    thick_mm = np.minimum(np.count_nonzero(on_rays, axis=2) * STEP_MM, on_rays.max(axis=2))
    depth_mm = lining.depth_mm(thick_mm, aerated, cage, chest.spacing_mm[0])
    lined = along_ribs & (depth_mm > 0)[:, None, None]
    if not lined.any():
        return _told_apart(chest, along_ribs)
    clear = lined & lining.middle(deep_mm, depth_mm[:, None, None], chest.spacing_mm)
    lining_hu = float(np.median(hu[clear if clear.any() else lined]))
    sure, doubt = _told_apart(chest, along_ribs & ~lined)
    if FAT_HU[0] <= lining_hu < FAT_HU[1]:
        return sure, doubt | _opened(lined, chest)
    wall = Wall(aerated, lined, chest.solid, hu, chest.spacing_mm)
    return sure | lined | lining.layer(wall, depth_mm, lining_hu, cage, side, chest.half(side)), doubt


def _told_apart(chest: _Chest, along_ribs: Mask) -> tuple[Mask, Mask]:
    """Dense lung, and fluid or what has its attenuation, of what lies along the ribs without lining them."""
    if not along_ribs.any():
        return along_ribs, along_ribs
    mean = chest.mean_hu
    fluid = (mean >= FLUID_HU[0]) & (mean <= FLUID_HU[1])
    sure = along_ribs & ~fluid & ~((mean >= FAT_HU[0]) & (mean < FAT_HU[1]))
    # Between dense lung and what is less dense, the mean passes through that of fluid and fat.
    components, n = ndimage.label(along_ribs)
    all_of, sure_of = (np.bincount(components[mask], minlength=n + 1) for mask in (along_ribs, sure))
    sure |= (sure_of >= MOSTLY_SURE * np.maximum(all_of, 1))[components] & along_ribs
    doubt = along_ribs & fluid & ~sure
    return _pieces(_opened(sure, chest), chest), _pieces(_opened(doubt, chest), chest)


def _all_fluid(chest: _Chest, hu: HuArray, side: int, doubt: Mask) -> Mask:
    """Where there is much fluid along the ribs: with all that hangs together with it, also where no ray leaves lung."""
    lung = chest.lungs == side
    doubt_ml, lung_ml = (np.count_nonzero(mask) * chest.voxel_ml for mask in (doubt, lung))
    if doubt_ml < max(MUCH_FLUID_ML, MUCH_FLUID_SHARE * lung_ml):
        return doubt
    like = chest.solid & (np.abs(chest.mean_hu - float(np.median(hu[doubt]))) <= ALIKE_HU) & chest.half(side)
    like &= lining.before_ribs(chest.cages[side])
    levels = np.flatnonzero((lung | doubt).any(axis=(1, 2)))
    like[: max(0, levels[0] - round(BELOW_MM / chest.spacing_mm[0]))] = False
    like[levels[-1] + 1 :] = False
    components, n = ndimage.label(_opened(like, chest, FLUID_WIDE_MM) | doubt)
    joined = np.bincount(components[doubt], minlength=n + 1) > 0
    joined[0] = False
    return np.asarray(joined[components])


def _opened(mask: Mask, chest: _Chest, mm_wide: float = THINNEST_MM) -> Mask:
    """Without sheets thinner than this."""
    width = [max(1, round(mm_wide / mm)) for mm in chest.spacing_mm]
    opened = np.zeros_like(mask)
    for box in ndimage.find_objects(mask.view(np.uint8)):
        # Two separable filters cost a fraction of a binary opening; the second is mirrored, for boxes of even width.
        worn = ndimage.minimum_filter(mask[box].view(np.uint8), width, mode="constant")
        back = ndimage.maximum_filter(worn, width, mode="constant", origin=[-1 if n % 2 == 0 else 0 for n in width])
        opened[box] = back > 0
    return opened


def _pieces(mask: Mask, chest: _Chest, smallest_ml: float = SMALLEST_ML) -> Mask:
    """Without pieces smaller than this."""
    kept = np.zeros_like(mask)
    for box in ndimage.find_objects(mask.view(np.uint8)):
        components, n = ndimage.label(mask[box])
        large = np.bincount(components.ravel(), minlength=n + 1) * chest.voxel_ml >= smallest_ml
        large[0] = False
        kept[box] = large[components]
    return kept
