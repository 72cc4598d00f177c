"""Lungs by thresholds and morphology: needs no weights, and is the segmenter where lungmask's are not installed.

The way: shrink to about 2 mm; air inside the body; take the airways out; find cores of both lungs and of other gas;
let them grow into the air (a watershed, so that touching lungs part along the denser septum); add dense lung between
aerated lung and ribs; close each lung; refine at full resolution.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.findings import SegmenterFamily
from dicomnode.analysis.lungs import gap, gas
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, IN_PLANE, BodyGrid, air_inside, distance, shrink
from dicomnode.errors import RefusedError
from dicomnode.words.numerals import apart

CLOSING_MM = 8.0
SMALLEST_PART_ML = 15.0
SMALLEST_LUNGS_ML = 100.0
#: Largest area of trachea or both main bronchi in an axial slice, and how long a chain of such areas must be.
AIRWAY_CM2 = 7.0
AIRWAY_MM = 30.0
#: More than trachea and bronchi hold, ml.
AIRWAY_ML = 120.0
#: Airway walls are looked for this far above the median of all air in the body, HU.
ABOVE_LUNG_HU = 100
#: How far from the body's middle the trachea may lie.
AIRWAY_OFF_MM = 45.0
#: Depths below the air's surface at which the two lungs are looked for, until they are apart.
CORE_DEPTHS_MM = (3.0, 5.0, 7.0, 9.0, 12.0, 16.0)
#: Half the width of the band at the midline in which the septum of broadly touching lungs is looked for.
SEPTUM_BAND_MM = 15.0
#: A core with this share on one side of the midline belongs to that side.
ONE_SIDED = 0.8

_AIRWAY, _GAS = 3, 4


class ClassicalSegmenter:
    """Right and left lung by thresholds and morphology.

    In the mask: aerated lung (below -400 HU), however empty; by closing (8 mm) and hole filling the vessels, small
    airways, nodules and dense disease that aerated lung surrounds; fibrosis and consolidation between aerated lung and
    ribs, and a lobe without air where the other lung shows its place (`hull`); where dense lung lines the ribs, its
    layer along diaphragm and mediastinum too, as thick as there. Not in the mask: trachea and main bronchi, as far as
    walls divide them from lung; heart and hilar vessels wider than the closing; effusion (by its attenuation, -60 to 25
    HU, unless it lines the wall in front and behind alike: blood and pus denser than that count as lung, consolidation
    behind of exactly that density does not); gas without vessels behind walls of soft tissue (stomach, colon, hiatus
    hernia, oesophagus: `gas`); a base without any air. Lung that the edge of the field of view cuts is found as far as
    it is in the image; `lungs.check` flags it. `gap.left_out` tells what of the hull the mask leaves out.
    """

    name = "classical"
    version = "3"
    family: SegmenterFamily = "morphology"

    def __call__(self, volume: Volume) -> Labels:
        """Labels (z, y, x) of the volume's shape: 0 background, 1 right lung, 2 left lung.

        Raises:
            RefusedError: `no-lungs`, nothing in the volume looks like a lung.
        """
        grid = shrink(volume)
        air, midline = air_inside(grid)
        airways = _airways(grid, air, midline)
        labels = _grow(grid, air, _cores(grid, air, airways, midline))
        _refuse_unless_lungs(labels, grid)
        dense = gap.dense_lung(grid, labels, midline)
        closed = _close(grid, np.where(dense > 0, dense, labels))
        return _refine(volume, grid, closed, dense)

    def lobes(self, volume: Volume, lungs: Labels) -> None:
        """None: thresholds see no fissures."""


def _airways(grid: BodyGrid, air: Mask, midline: float) -> Mask:
    """Find the lumen of trachea and bronchi.

    A threshold near the lung's own density shows the walls longest; where it breaks the lung into crumbs that join the
    airways, the plain threshold is taken.
    """
    median_hu = np.median(grid.hu[air]) if air.any() else 0.0
    for threshold_hu in (min(AIR_BELOW_HU, median_hu + ABOVE_LUNG_HU), AIR_BELOW_HU):
        lumen = _narrow_chain(grid, air & (grid.hu < threshold_hu), midline)
        if lumen.sum() * grid.voxel_ml <= AIRWAY_ML:
            return lumen
    return np.zeros_like(air)


def _narrow_chain(grid: BodyGrid, air: Mask, midline: float) -> Mask:
    """Return the longest chain of air near the midline whose area is small in every axial slice.

    Airways, if long enough.
    """
    planes, n = ndimage.label(air, IN_PLANE)
    areas_cm2 = np.bincount(planes.ravel(), minlength=n + 1) * (grid.spacing_mm[1] * grid.spacing_mm[2] / 100.0)
    small = areas_cm2 < AIRWAY_CM2
    small[0] = False
    chains, _ = ndimage.label(small[planes])
    best, best_mm = 0, AIRWAY_MM
    for number, box in enumerate(ndimage.find_objects(chains), start=1):
        length_mm = (box[0].stop - box[0].start) * grid.spacing_mm[0]
        if length_mm < best_mm:
            continue
        x = np.nonzero(chains[box] == number)[2].mean() + box[2].start
        if abs(x - midline) * grid.spacing_mm[2] < AIRWAY_OFF_MM:
            best, best_mm = number, length_mm
    return np.asarray((chains == best) & (best > 0))


def _cores(grid: BodyGrid, air: Mask, airways: Mask, midline: float) -> NDArray[np.uint8]:
    """Markers: cores of right lung, left lung, airways and other gas."""
    lung_air = air & ~ndimage.binary_dilation(airways, ndimage.generate_binary_structure(3, 1))
    components, right_share, large = _parted(grid, lung_air, midline)
    kind = np.zeros(large.size, dtype=np.uint8)
    kind[large] = np.where(right_share[large] >= 0.5, RIGHT, LEFT)
    lung_hu = float(np.median(grid.hu[lung_air])) if lung_air.any() else 0.0
    for number in np.flatnonzero(large):
        if _is_gas(grid, lung_air, components == number, lung_hu):
            kind[number] = _GAS
    markers = kind[components]
    _mark_bubbles(grid, lung_air, markers)
    # What is gas for the most part is gas: the folds of a colon part it into bubbles and what lies between.
    sizes, as_gas = (np.bincount(components[m > 0], minlength=kind.size) for m in (components, markers == _GAS))
    markers[(as_gas > 0.5 * sizes)[components] & (components > 0)] = _GAS
    markers[airways] = _AIRWAY
    return markers


def _is_gas(grid: BodyGrid, air: Mask, core: Mask, lung_hu: float) -> bool:
    box = _padded_box(core, (1, 1, 1))
    depth = distance(~air[box], grid.spacing_mm)[core[box]]
    return gas.without_vessels(grid.hu[core], depth, grid.spacing_mm, lung_hu)


def _mark_bubbles(grid: BodyGrid, air: Mask, markers: NDArray[np.uint8]) -> None:
    """Mark gas that reaches lung through a wall too thin for the grid, in place; the watershed finds the wall."""
    for bubble in gas.bubbles(grid.hu, air, grid.spacing_mm):
        if bubble.is_gas:
            part = markers[bubble.box]
            part[ndimage.binary_dilation(bubble.mask, iterations=2)] = 0
            part[bubble.mask] = _GAS


def _parted(grid: BodyGrid, lung_air: Mask, midline: float) -> tuple[NDArray[np.int32], NDArray[np.float64], Mask]:
    """Numbered cores, each one's share right of the midline, and which are large enough for lung.

    Lungs that touch are parted by looking deeper and deeper below their surface; where they touch so broadly that no
    depth parts them, by leaving a band at the midline without a core, in which the watershed then finds the septum.
    """
    depth = distance(~lung_air, grid.spacing_mm)
    columns = np.arange(lung_air.shape[2])
    off_middle = np.abs(columns - midline) * grid.spacing_mm[2] > SEPTUM_BAND_MM
    for core in (*(depth >= mm for mm in CORE_DEPTHS_MM), (depth >= CORE_DEPTHS_MM[0]) & off_middle):
        components, n = ndimage.label(core)
        sizes = np.bincount(components.ravel(), minlength=n + 1)
        on_right = np.bincount(components[:, :, columns < midline].ravel(), minlength=n + 1)
        right_share = on_right / np.maximum(sizes, 1)
        large = sizes * grid.voxel_ml >= SMALLEST_PART_ML
        large[0] = False
        if not (large & (right_share > 1 - ONE_SIDED) & (right_share < ONE_SIDED)).any():
            break
    return components, right_share, large


def _grow(grid: BodyGrid, air: Mask, markers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the markers grown through the air that they are connected with, lowest HU first.

    They meet at walls and septa.
    """
    components, n = ndimage.label(air)
    reached = np.zeros(n + 1, dtype=bool)
    reached[components[markers > 0]] = True
    reached[0] = False
    region = reached[components]
    grown = np.zeros(markers.shape, np.uint8)
    if not region.any():
        return grown
    # What lies around is higher than all of the region, and flooded after it: it changes nothing, and takes time.
    box = _padded_box(region, (1, 1, 1))
    relief = np.where(region[box], grid.hu[box], np.int16(3000))
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(relief), sitk.GetImageFromArray(markers[box]), markWatershedLine=False
    )
    grown[box] = np.where(region[box], sitk.GetArrayFromImage(flooded), 0)
    return grown


def _refuse_unless_lungs(labels: NDArray[np.uint8], grid: BodyGrid) -> None:
    found_ml = np.isin(labels, (RIGHT, LEFT)).sum() * grid.voxel_ml
    if found_ml < SMALLEST_LUNGS_ML:
        raise RefusedError(
            "no-lungs",
            f"no lungs found: only {apart(found_ml, SMALLEST_LUNGS_ML)} ml of the volume look like aerated lung "
            f"(below {AIR_BELOW_HU} HU in "
            f"the body); at least {SMALLEST_LUNGS_ML:.0f} ml are needed. Check that the series shows the chest in HU.",
        )


def _close(grid: BodyGrid, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each lung closed and its holes filled; what belongs to the other lung, the airways or other gas stays theirs."""
    closed = labels.copy()
    found = [side for side in (RIGHT, LEFT) if (labels == side).any()]

    def filled(side: int) -> tuple[tuple[slice, ...], Mask]:
        lung = labels == side
        box = _padded_box(lung, tuple(math.ceil(CLOSING_MM / mm) + 1 for mm in grid.spacing_mm))
        near = distance(lung[box], grid.spacing_mm) <= CLOSING_MM
        return box, np.asarray(ndimage.binary_fill_holes(distance(~near, grid.spacing_mm) > CLOSING_MM))

    with ThreadPoolExecutor(2) as threads:  # filters run without Python's lock
        for side, (box, inside) in zip(found, threads.map(filled, found), strict=True):
            part = closed[box]
            part[inside & (part == 0)] = side
    return closed


def _padded_box(mask: Mask, pad: tuple[int, ...]) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, s.start - p), s.stop + p) for s, p in zip(box, pad, strict=True))


def _refine(volume: Volume, grid: BodyGrid, coarse: NDArray[np.uint8], dense: NDArray[np.uint8]) -> Labels:
    """At full resolution: the inside of each lung as it is, its rim (one coarse voxel in and out) by the threshold."""
    axes = np.array([factor > 1 for factor in grid.factors])
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in np.flatnonzero(~axes):
        cross[tuple(slice(None) if a != axis else [0, 2] for a in range(3))] = False
    inner, outer = np.zeros_like(coarse), coarse.copy()
    for side in (RIGHT, LEFT):
        lung = coarse == side
        inner[ndimage.binary_erosion(lung, cross, border_value=1) | (lung & (dense == side))] = side
        outer[ndimage.binary_dilation(lung, cross) & (outer == 0)] = side
    for array in (inner, outer):
        array[array > LEFT] = 0
    labels = np.zeros(volume.hu.shape, np.uint8)
    box = _fine_box(outer, grid.factors, volume.hu.shape)
    of_z, of_y, of_x = (
        np.minimum(np.arange(part.start, part.stop) // factor, small - 1)
        for part, factor, small in zip(box, grid.factors, coarse.shape, strict=True)
    )
    fine, hu = labels[box], volume.hu[box]
    for z in np.unique(of_z):
        core, rim = (array[z].take(of_x, axis=1).take(of_y, axis=0) for array in (inner, outer))
        for at in np.flatnonzero(of_z == z):
            fine[at] = core
            np.copyto(fine[at], rim, where=hu[at] < AIR_BELOW_HU)
    return labels


def _fine_box(mask: NDArray[np.uint8], factors: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the box of the mask at full resolution; an incomplete last block belongs to the block before it."""
    ((*box,),) = ndimage.find_objects((mask > 0).view(np.uint8))
    return tuple(
        slice(part.start * factor, full if part.stop == small else part.stop * factor)
        for part, factor, full, small in zip(box, factors, shape, mask.shape, strict=True)
    )
