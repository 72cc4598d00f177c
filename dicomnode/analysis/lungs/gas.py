"""Gas that is not in the lungs, told by its shape: stomach, colon, a hernia, an oesophagus full of air, air at the arm.

Attenuation does not decide: gas measures from -1000 to about -940 HU, and so does lung with emphysema. What decides is
that vessels run through the emptiest lung and none through gas; that soft tissue walls gas off on nearly all sides,
where a bulla lies open to lung or behind a wall thinner than a voxel; and that gas above fluid has a flat, horizontal
border.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import HuArray, Mask
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, distance

#: Denser than any gas is measured, HU: only what is thinner is looked at.
NEVER_GAS_HU = -900
#: Vessels are this much denser than the median around them, HU, and than the noise (SD) by this factor.
VESSEL_ABOVE_HU, VESSEL_ABOVE_SD = 100, 4.0
#: Of the inside of gas at most this share is as dense as vessels are; of lungs it is from 3 to 9 %. Food and the folds
#: of a stomach or a colon are as dense: more is allowed in what is by so much thinner than the lungs, HU.
VESSELS_IN_GAS, FOLDS_IN_GAS, THINNER_HU = 0.005, 0.03, 60
#: The inside begins this far below the surface, mm, and farther than the edge is blurred, in voxels; it must hold this
#: much to be judged, ml, and this share of the piece: what is dense all over has hardly any, and is no gas.
INSIDE_MM, INSIDE_VOXELS, INSIDE_ML, INSIDE_SHARE = 5.0, 1.7, 1.0, 0.02
#: A bubble is clear of all that is denser than this, HU, in cubes of this half width, mm, and at least this large, ml.
CLEAR_BELOW_HU, CLEAR_MM, SMALLEST_ML = -750, 6.0, 4.0
#: So far around the cubes that fit into it the bubble reaches, mm, at most: to its wall.
GROWN_MM = 4.0
#: The noise (SD) is at most this times what the lower half tells, which the scanner may cut off at -1024 HU.
LOWER_HALF = 1.5
#: No connected piece of gas in a body is larger, ml; lungs are.
MOST_GAS_ML = 3000.0
#: A bubble is smaller than this, ml, or at most this share of a connected piece of air: a lung is larger.
LARGEST_ML, LARGEST_SHARE = 600.0, 0.5
#: Openings between gas and lung are thinner than this, HU: thin walls in thick slices measure up to it.
OPEN_BELOW_HU = -500
#: How far around a bubble its wall is looked at, mm; what lies nearer than the first is the edge of the gas itself.
WALL_MM = (2.1, 6.1)
#: A bubble that is open to lung over more of its surface than this belongs to the lung: a bulla, a pneumothorax. With a
#: fluid level more may be open: the wall of a hernia is thin.
OPEN, OPEN_WITH_LEVEL = 0.18, 0.35
#: More open than this is plainly lung: no doubt to tell a reader of.
DOUBTFULLY_OPEN = 0.5
#: At least this share of the lower side of gas above fluid lies on fluid at one height; fluid is denser than this, HU.
LEVEL, FLUID_ABOVE_HU = 0.5, -200

_CROSS = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class Bubble:
    """A piece of air that is deep and clear: where it is, how much of its surface is open to lung.

    Attributes:
        box: where `mask` (z, y, x) lies in the volume.
        level: share of its front or back (patients lie) that is a flat border with fluid.
        vessels: whether something in it is as dense as vessels: folds of a stomach are, too.
    """

    box: tuple[slice, ...]
    mask: Mask
    open_share: float
    level: float
    vessels: bool
    ml: float

    @property
    def is_gas(self) -> bool:
        """Whether soft tissue walls it off, and neither vessels nor the lack of a fluid level speak for lung."""
        on_fluid = self.level >= LEVEL
        walled = self.open_share <= (OPEN_WITH_LEVEL if on_fluid else OPEN)
        return walled and (not self.vessels or (on_fluid and self.ml <= LARGEST_ML))


def without_vessels(
    hu: HuArray, depth_mm: NDArray[np.float32], spacing_mm: tuple[float, float, float], lung_hu: float
) -> bool:
    """Tell whether a connected piece of air is gas: nothing inside it is as dense as a vessel.

    Args:
        hu: of the piece's voxels, (n,).
        depth_mm: how far below the surface of the air each lies, (n,).
        spacing_mm: (z, y, x).
        lung_hu: median of all air in the body, which the lungs outweigh.
    """
    voxel_ml = math.prod(spacing_mm) / 1000.0
    inside = hu[depth_mm >= max(INSIDE_MM, INSIDE_VOXELS * max(spacing_mm))]
    if inside.size < max(INSIDE_ML / voxel_ml, INSIDE_SHARE * hu.size):
        return False
    low, median, high = np.percentile(inside, (16, 50, 84))
    if median >= NEVER_GAS_HU or hu.size * voxel_ml > MOST_GAS_ML:
        return False
    # Dense disease in many places widens the upper half: it is no noise, and must not raise the limit above itself.
    noise_hu = min((high - low) / 2, LOWER_HALF * (median - low))
    vessel_hu = median + max(VESSEL_ABOVE_HU, VESSEL_ABOVE_SD * noise_hu)
    thin = median <= lung_hu - THINNER_HU and hu.size * voxel_ml <= LARGEST_ML
    return float(np.mean(inside > vessel_hu)) <= (FOLDS_IN_GAS if thin else VESSELS_IN_GAS)


def bubbles(hu: HuArray, air: Mask, spacing_mm: tuple[float, float, float]) -> Iterator[Bubble]:
    """Yield the deep, clear pieces of `air` that are too small for a lung.

    Args:
        hu: (z, y, x), voxels of about 2 mm.
        air: (z, y, x), where to look.
        spacing_mm: (z, y, x).
    """
    if not air.any():
        return
    (around,) = ndimage.find_objects(air.view(np.uint8))
    hu, air = hu[around], air[around]
    clear = air & (hu <= CLEAR_BELOW_HU)
    width = [2 * int((CLEAR_MM + 0.1) / mm) + 1 for mm in spacing_mm]
    # Beyond an end of the scan the gas goes on: scipy mirrors it.
    deep, n = ndimage.label(ndimage.minimum_filter(clear.view(np.uint8), width))
    if n == 0:
        return
    voxel_ml, lung_hu = math.prod(spacing_mm) / 1000.0, float(np.median(hu[air]))
    pieces, _ = ndimage.label(air)
    sizes = np.bincount(pieces.ravel())
    margin = [int((CLEAR_MM + WALL_MM[1]) / mm) + 3 for mm in spacing_mm]
    for number, core in enumerate(ndimage.find_objects(deep), start=1):
        box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(core, margin, strict=True))
        seed = deep[box] == number
        if np.median(hu[box][seed]) >= NEVER_GAS_HU:
            continue
        opened = ndimage.maximum_filter(seed.view(np.uint8), width).view(bool) & clear[box]
        piece_ml = float(sizes[pieces[box][seed][0]]) * voxel_ml
        if not SMALLEST_ML <= np.count_nonzero(opened) * voxel_ml <= max(LARGEST_ML, LARGEST_SHARE * piece_ml):
            continue
        grown = max(1, round(GROWN_MM / spacing_mm[2]))
        mask = ndimage.binary_dilation(opened, _CROSS, iterations=grown, mask=air[box])
        filled = np.asarray(ndimage.binary_fill_holes(mask))
        empty = without_vessels(hu[box][filled], distance(~filled, spacing_mm)[filled], spacing_mm, lung_hu)
        corner = [whole.start + part.start for whole, part in zip(around, box, strict=True)]
        yield Bubble(
            tuple(slice(start, start + size) for start, size in zip(corner, mask.shape, strict=True)),
            mask,
            _open_share(hu[box], mask, spacing_mm),
            _level(hu[box], mask),
            not empty,
            np.count_nonzero(mask) * voxel_ml,
        )


def in_mask(hu: HuArray, lungs: Mask, spacing_mm: tuple[float, float, float]) -> tuple[Mask, float]:
    """Find what in a lung mask looks like gas that is not in the lungs, whichever segmenter made the mask.

    Args:
        hu: (z, y, x), voxels of about 2 mm.
        lungs: (z, y, x), the mask.
        spacing_mm: (z, y, x).

    Returns:
        Where it is (z, y, x), and how much, ml.
    """
    air, found = lungs & (hu < AIR_BELOW_HU), np.zeros(lungs.shape, dtype=bool)
    for bubble in bubbles(hu, air, spacing_mm):
        if bubble.is_gas or (bubble.open_share <= DOUBTFULLY_OPEN and not bubble.vessels):
            found[bubble.box] |= bubble.mask
    lung_hu = float(np.median(hu[air])) if air.any() else 0.0
    pieces, _ = ndimage.label(air)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[box] == number
        if np.count_nonzero(piece) * math.prod(spacing_mm) / 1000.0 < SMALLEST_ML:
            continue
        padded = np.pad(piece, 1)
        depth = distance(~padded, spacing_mm)[padded]
        if without_vessels(hu[box][piece], depth, spacing_mm, lung_hu):
            found[box] |= piece
    return found, np.count_nonzero(found) * math.prod(spacing_mm) / 1000.0


def _open_share(hu: HuArray, gas: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Of the layer around the gas, the share that is lung which is reached from the gas through no wall."""
    from_gas = distance(gas, spacing_mm)
    layer = (from_gas > WALL_MM[0]) & (from_gas <= WALL_MM[1])
    reached = ndimage.binary_dilation(gas, _CROSS, iterations=3, mask=hu < OPEN_BELOW_HU)
    return float(np.count_nonzero(layer & reached) / max(1, int(np.count_nonzero(layer))))


def _level(hu: HuArray, gas: Mask) -> float:
    """Of the back or the front of the gas, the larger share that lies on fluid at one height (two voxels)."""
    columns = gas.any(axis=1)
    shares: list[int] = []
    for to_back in (slice(None), slice(None, None, -1)):
        gas_to, fluid_to = gas[:, to_back], hu[:, to_back] > FLUID_ABOVE_HU
        last = gas.shape[1] - 1 - gas_to[:, ::-1].argmax(axis=1)
        # The voxel between is gas and fluid in one.
        beyond = np.minimum(last + 2, gas.shape[1] - 1)
        fluid = np.take_along_axis(fluid_to, beyond[:, None], axis=1)[:, 0]
        rows = last[columns & fluid]
        shares.append(int(np.convolve(np.bincount(rows), (1, 1)).max()) if rows.size else 0)
    return float(max(shares) / max(1, int(np.count_nonzero(columns))))
