"""The lungs in a volume: what a segmenter is, how much the lungs hold, and whether the mask can be believed."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Labels, Mask, Volume
from dicomnode.analysis.findings import Flag, SegmenterFamily, VolumeMl
from dicomnode.analysis.lungs import gas
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, IN_PLANE, OUT_OF_FIELD_HU
from dicomnode.words.numerals import apart

_CHECK_MM = 2.0
_SKIN_MM = 4.0
#: Emptier than emphysema is over 12 mm without a vessel, HU.
_GAS_BELOW_HU = -965
#: More gas that looks like bowel's than this is worth a word, ml.
_OTHER_GAS_ML = 10.0


class Segmenter(Protocol):
    """Finds the lungs. `name`, `version` and `family` are in SEG and SR: together they say what made the mask."""

    @property
    def name(self) -> str:
        """What it is called, for SEG and SR."""
        ...

    @property
    def version(self) -> str:
        """Which version of it, weights included, for SEG and SR."""
        ...

    @property
    def family(self) -> SegmenterFamily:
        """What kind of algorithm it is, for SEG and SR."""
        ...

    def __call__(self, volume: Volume) -> Labels:
        """Labels (z, y, x) of the volume's shape: 0 background, 1 right lung, 2 left lung.

        Raises:
            RefusedError: `no-lungs`, nothing in the volume looks like a lung.
        """
        ...

    def lobes(self, volume: Volume, lungs: Labels) -> NDArray[np.uint8] | None:
        """Return the lobes of the `lungs` that it labelled, (z, y, x), numbers as in `arrays.LOBES`.

        None: it knows none.
        """
        ...


def volumes(volume: Volume, labels: Labels) -> VolumeMl:
    """Return the lung volumes in ml: labelled voxels, (z, y, x), times voxel volume."""
    right, left = (int(np.count_nonzero(labels == side)) * volume.voxel_ml for side in (RIGHT, LEFT))
    return VolumeMl(total=right + left, left=left, right=right)


def check(volume: Volume, labels: Labels) -> tuple[Flag, ...]:
    """Return the doubts about a lung mask of an adult; none if it is plausible. The texts state the limits.

    Args:
        volume: the volume that was segmented.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    ml = volumes(volume, labels)
    if ml.total == 0:
        return (Flag("lung-volume-low", "error", "The lung mask is empty: the measurements are not meaningful."),)
    # Only volumes and ends need every voxel: the rest is judged on a grid of about 2 mm.
    steps = tuple(max(1, round(_CHECK_MM / mm)) for mm in volume.spacing_mm)
    coarse = tuple(slice(None, None, step) for step in steps)
    z, y, x = (mm * step for mm, step in zip(volume.spacing_mm, steps, strict=True))
    hu, sides = volume.hu[coarse], labels[coarse]
    lungs = sides > 0
    mean_hu = float(hu[lungs].mean(dtype=np.float64)) if lungs.any() else 0.0
    other_gas, other_gas_ml = gas.in_mask(hu, lungs, (z, y, x))
    gas_cm2 = tuple(float(np.count_nonzero(other_gas[end])) * y * x / 100.0 for end in (0, -1))
    return (
        *_size(ml, mean_hu),
        *_sides(sides, ml),
        *_coverage(volume, labels, gas_cm2),
        *_cut_sides(hu, lungs, (z, y, x)),
        *_shape(hu, lungs),
        *_leaks(hu, sides, (z, y, x), other_gas_ml),
    )


def _size(ml: VolumeMl, mean_hu: float) -> Iterator[Flag]:
    if ml.total < 1000:
        yield Flag(
            "lung-volume-low",
            "error" if ml.total < 500 else "warning",
            f"The segmented lung volume is {apart(ml.total, 1000)} ml, below the 1000 ml expected of any adult: "
            f"lung is missing "
            "from the mask or the scan. Review the segmentation before using the measurements.",
        )
    if ml.total > 10_000:
        yield Flag(
            "lung-volume-high",
            "warning",
            f"The segmented lung volume is {apart(ml.total, 10_000)} ml, above 10000 ml: the mask probably "
            f"includes other gas. "
            "Review the segmentation before using the measurements.",
        )
    if mean_hu > -500:
        yield Flag(
            "lungs-dense",
            "warning",
            f"The mean attenuation in the mask is {apart(mean_hu, -500)} HU, denser than -500 HU: extensive "
            f"disease, or a mask "
            "that includes tissue other than lung.",
        )
    if ml.total < 3000 and mean_hu > -750:
        yield Flag(
            "low-inspiration",
            "info",
            f"Small, dense lungs ({ml.total:.0f} ml, mean {mean_hu:.0f} HU): shallow inspiration, restrictive disease "
            "or a small person; one scan cannot tell which. Shallow inspiration raises attenuation and %HAA: compare "
            "only with scans of similar lung volume.",
        )


def _sides(labels: Labels, ml: VolumeMl) -> Iterator[Flag]:
    smaller, name = min((ml.right, "right"), (ml.left, "left"))
    if smaller < 0.1 * ml.total:
        yield Flag(
            "one-lung",
            "warning",
            f"The {name} lung has {smaller:.0f} of {ml.total:.0f} ml: resected, collapsed, opacified or missed by the "
            "segmentation. The measurements mainly describe the other lung.",
        )
    elif not 0.5 <= (ratio := ml.left / ml.right) <= 1.5:
        yield Flag(
            "lungs-unequal",
            "warning",
            f"The left/right lung volume ratio is {apart(ratio, 1.5 if ratio > 1 else 0.5, 2)} ({ml.left:.0f} "
            f"to {ml.right:.0f} ml), not "
            "0.5 to 1.5: unilateral volume loss, raised hemidiaphragm or effusion, or lung missed by the segmentation.",
        )
    if (labels == RIGHT).any() and (labels == LEFT).any() and _mean_x(labels, RIGHT) > _mean_x(labels, LEFT):
        yield Flag(
            "sides-swapped",
            "error",
            "The lung labelled right lies on the patient's left: the sides are swapped or the segmentation failed.",
        )


def _mean_x(labels: Labels, side: int) -> float:
    columns = np.count_nonzero(labels == side, axis=(0, 1))
    return float(np.average(np.arange(columns.size), weights=columns))


def _coverage(volume: Volume, labels: Labels, gas_cm2: tuple[float, ...]) -> Iterator[Flag]:
    """Lung in the first or last slice. Error: more than a quarter of the largest slice, so that much is missing.

    `gas_cm2` is what is gas in the two slices of the mask: that the stomach is cut says nothing of the lung.
    """
    pixel_cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100.0
    areas_cm2 = np.array([np.count_nonzero(plane) for plane in labels]) * pixel_cm2
    for index, code, end, where in ((0, "cut-off-base", "lowest", "base"), (-1, "cut-off-apex", "highest", "apex")):
        area_cm2 = float(areas_cm2[index]) - gas_cm2[index]
        share = area_cm2 / float(areas_cm2.max())
        if area_cm2 > 10:
            yield Flag(
                code,
                "error" if share > 0.25 else "warning",
                f"The {end} slice still shows {apart(area_cm2, 10)} cm² of lung (over 10 cm²; {100 * share:.0f} "
                f"% of the "
                f"largest slice): the {where} of the lungs is not covered. Volumes are too small, and the other "
                "measurements exclude that part.",
            )


def _cut_sides(hu: HuArray, lungs: Mask, spacing_mm: tuple[float, float, float]) -> Iterator[Flag]:
    """Lung at the edge of the image, or of a round field of view in it."""
    z_mm, y_mm, x_mm = spacing_mm
    nothing = hu <= OUT_OF_FIELD_HU
    lateral = _at_end(lungs, nothing) + _at_end(lungs[..., ::-1], nothing[..., ::-1])
    lungs, nothing = lungs.swapaxes(1, 2), nothing.swapaxes(1, 2)
    frontal = _at_end(lungs, nothing) + _at_end(lungs[..., ::-1], nothing[..., ::-1])
    area_cm2 = (lateral * y_mm + frontal * x_mm) * z_mm / 100.0
    if area_cm2 > 10:
        yield Flag(
            "cut-off-side",
            "error" if area_cm2 > 150 else "warning",
            f"The field of view truncates the lungs over {apart(area_cm2, 10)} cm² of their surface (limit 10 "
            f"cm²). Volumes "
            "are too small, and the periphery, where interstitial disease begins, is missing.",
        )


def _at_end(lungs: Mask, nothing: Mask) -> int:
    """Lung voxels that are the last of the image along the last axis, or have nothing but out-of-field beyond them."""
    # Single voxels of thin air are as low by noise: only what goes on for three voxels is out of the field.
    beyond = nothing[..., 1:-2] & nothing[..., 2:-1] & nothing[..., 3:]
    return int(np.count_nonzero(lungs[..., -1])) + int(np.count_nonzero(lungs[..., :-3] & beyond))


def _shape(hu: HuArray, lungs: Mask) -> Iterator[Flag]:
    if not lungs.any():
        return
    levels = lungs.any(axis=(1, 2))
    # Lung disease denser than -400 HU counts twice in the denominator: a small error on a wide margin.
    body = int(np.count_nonzero(hu[levels] > -400)) + int(np.count_nonzero(lungs))
    share = int(np.count_nonzero(lungs)) / body
    if not 0.05 <= share <= 0.75:
        yield Flag(
            "lung-share-of-body",
            "warning",
            f"The mask fills {apart(100 * share, 75 if share > 0.5 else 5)} % of the body at the level of the "
            f"lungs, outside 5 to 75 %: it probably "
            "includes air outside the lungs or misses much of them.",
        )
    holes_percent = _holes_percent(lungs)
    if holes_percent > 1:
        yield Flag(
            "mask-holes",
            "warning",
            f"Holes inside the mask make up {apart(holes_percent, 1, 1)} % of it (over 1 %): dense lung may be "
            f"missing from the "
            "measurements.",
        )


def _leaks(hu: HuArray, sides: Labels, spacing_mm: tuple[float, float, float], other_gas_ml: float) -> Iterator[Flag]:
    """Mask where no lung is: at the skin, in pure gas (trachea, stomach, bowel), in pieces apart from the lung."""
    lungs = sides > 0
    count = int(np.count_nonzero(lungs))
    if count == 0:
        return
    leaked = 100.0 * _near_skin(hu, lungs, spacing_mm) / count
    if leaked > 1:
        yield Flag(
            "mask-leak",
            "error" if leaked > 10 else "warning",
            f"{apart(leaked, 1, 1)} % of the mask (over 1 %) is within {_SKIN_MM:.0f} mm of the air around the "
            f"patient, outside "
            "the rib cage: the mask has leaked. Review the segmentation before using the measurements.",
        )
    pure = 100.0 * _solid(hu, lungs, spacing_mm) / count
    if pure > 2 or other_gas_ml > _OTHER_GAS_ML:
        yield Flag(
            "mask-gas",
            "warning",
            f"{apart(pure, 2, 1)} % of the mask (limit 2 %) is pure gas, more than 12 mm wide without vessels, and "
            f"{apart(other_gas_ml, _OTHER_GAS_ML)} ml (limit {_OTHER_GAS_ML:.0f} ml) are gas largely behind "
            f"walls: trachea, stomach or "
            "bowel in the mask, pneumothorax, bullae or very severe emphysema. %LAA-950 includes it.",
        )
    pieces = 100.0 * sum(_apart(sides == side) for side in (RIGHT, LEFT)) / count
    if pieces > 5:
        yield Flag(
            "mask-pieces",
            "warning",
            f"{apart(pieces, 5, 1)} % of the mask (over 5 %) is not connected to the rest of its lung: other "
            f"gas in the mask, or "
            "dense lung missing from it.",
        )


def _near_skin(hu: HuArray, lungs: Mask, spacing_mm: tuple[float, ...]) -> int:
    """Voxels of the mask within `_SKIN_MM` of air that is not in the mask and reaches the edge of its axial slice."""
    voxels = round(_SKIN_MM / max(spacing_mm[1:]))
    if voxels == 0:
        return 0
    planes, n = ndimage.label((hu < AIR_BELOW_HU) & ~lungs, IN_PLANE)
    room = np.zeros(n + 1, dtype=bool)
    room[np.concatenate([planes[:, [0, -1]].ravel(), planes[:, :, [0, -1]].ravel()])] = True
    room[0] = False
    return int(np.count_nonzero(ndimage.binary_dilation(room[planes], IN_PLANE, iterations=voxels) & lungs))


def _solid(hu: HuArray, lungs: Mask, spacing_mm: tuple[float, ...]) -> int:
    """Voxels of the mask that lie in cubes of 12 mm full of gas."""
    boxes = ndimage.find_objects(lungs.view(np.uint8))
    hu, lungs = hu[boxes[0]], lungs[boxes[0]]
    empty = (ndimage.uniform_filter(hu, 3) < _GAS_BELOW_HU) & lungs
    width = [2 * max(1, round(6 / mm)) + 1 for mm in spacing_mm]
    inside = ndimage.minimum_filter(empty.view(np.uint8), width)
    return int(np.count_nonzero(ndimage.maximum_filter(inside, width))) if inside.any() else 0


def _apart(lung: Mask) -> int:
    """Voxels that are not of the largest component."""
    components, n = ndimage.label(lung)
    if n <= 1:
        return 0
    sizes = np.bincount(components.ravel())[1:]
    return int(sizes.sum() - sizes.max())


def _holes_percent(lungs: Mask) -> float:
    """Volume of background that the mask encloses, in percent of the mask."""
    (box,) = ndimage.find_objects(lungs.view(np.uint8))
    filled = ndimage.binary_fill_holes(lungs[box])
    return 100.0 * float(np.count_nonzero(filled) / np.count_nonzero(lungs) - 1.0)
