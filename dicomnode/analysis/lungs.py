"""The lungs in a volume: what a segmenter is, how much the lungs hold, and whether the mask can be believed."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.classical_segmenter import ClassicalSegmenter
from dicomnode.analysis.findings import Flag, VolumeMl

__all__ = ["ClassicalSegmenter", "Segmenter", "check", "volumes"]

_CHECK_MM = 2.0


class Segmenter(Protocol):
    """Finds the lungs. `name` and `version` stand in SEG and SR: together they say what made the mask."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, volume: Volume) -> Labels:
        """Labels (z, y, x) of the volume's shape: 0 background, 1 right lung, 2 left lung.

        Raises:
            RefusedError: `no-lungs`, nothing in the volume looks like a lung.
        """
        ...


def volumes(volume: Volume, labels: Labels) -> VolumeMl:
    """Lung volumes: labelled voxels times voxel volume."""
    right, left = (int(np.count_nonzero(labels == side)) * volume.voxel_ml for side in (RIGHT, LEFT))
    return VolumeMl(total=right + left, left=left, right=right)


def check(volume: Volume, labels: Labels) -> tuple[Flag, ...]:
    """Doubts about a lung mask, for an adult's CT; none when all is plausible. The limits stand in the texts.

    Args:
        volume: the volume that was segmented.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    ml = volumes(volume, labels)
    lungs = (labels == RIGHT) | (labels == LEFT)
    if ml.total == 0:
        return (Flag("lung-volume-low", "error", "The lung mask is empty: none of the measurements has a meaning."),)
    mean_hu = float(volume.hu[lungs].mean(dtype=np.float64))
    return (
        *_size(ml, mean_hu),
        *_sides(labels, ml),
        *_coverage(volume, lungs),
        *_shape(volume, lungs),
    )


def _size(ml: VolumeMl, mean_hu: float) -> Iterator[Flag]:
    if ml.total < 1000:
        yield Flag(
            "lung-volume-low",
            "error" if ml.total < 500 else "warning",
            f"The segmented lungs hold {ml.total:.0f} ml, less than the 1000 ml expected of any adult: lung is missing "
            "from the mask or from the scan. Look at the segmentation before using the measurements.",
        )
    if ml.total > 10_000:
        yield Flag(
            "lung-volume-high",
            "warning",
            f"The segmented lungs hold {ml.total:.0f} ml, more than 10000 ml: the mask probably holds other gas. Look "
            "at the segmentation before using the measurements.",
        )
    if mean_hu > -500:
        yield Flag(
            "lungs-dense",
            "warning",
            f"The mean attenuation in the mask is {mean_hu:.0f} HU, denser than -500 HU: extensive disease, or a mask "
            "that holds tissue other than lung.",
        )
    if ml.total < 3000 and mean_hu > -750:
        yield Flag(
            "low-inspiration",
            "info",
            f"Small, dense lungs ({ml.total:.0f} ml, mean {mean_hu:.0f} HU): shallow inspiration, restrictive disease "
            "or a small person; this scan alone cannot tell which. Shallow inspiration raises attenuation and %HAA: "
            "compare with scans of similar lung volume only.",
        )


def _sides(labels: Labels, ml: VolumeMl) -> Iterator[Flag]:
    smaller, name = min((ml.right, "right"), (ml.left, "left"))
    if smaller < 0.1 * ml.total:
        yield Flag(
            "one-lung",
            "warning",
            f"The {name} lung holds {smaller:.0f} of {ml.total:.0f} ml: removed, collapsed, filled, or missed by the "
            "segmentation. The measurements describe mainly the other lung.",
        )
    elif not 0.5 <= ml.left / ml.right <= 1.5:
        yield Flag(
            "lungs-unequal",
            "warning",
            f"Left to right lung volume is {ml.left / ml.right:.2f} ({ml.left:.0f} to {ml.right:.0f} ml), outside 0.5 "
            "to 1.5: volume loss, a raised hemidiaphragm or effusion on one side, or lung missed by the segmentation.",
        )
    if ml.right and ml.left and _mean_x(labels, RIGHT) > _mean_x(labels, LEFT):
        yield Flag(
            "sides-swapped",
            "error",
            "The lung labelled right lies on the patient's left: sides are swapped, or the segmentation failed.",
        )


def _mean_x(labels: Labels, side: int) -> float:
    columns = np.count_nonzero(labels == side, axis=(0, 1))
    return float(np.average(np.arange(columns.size), weights=columns))


def _coverage(volume: Volume, lungs: Mask) -> Iterator[Flag]:
    pixel_cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100.0
    for index, code, end, where in ((0, "cut-off-base", "lowest", "base"), (-1, "cut-off-apex", "highest", "apex")):
        area_cm2 = int(np.count_nonzero(lungs[index])) * pixel_cm2
        if area_cm2 > 10:
            yield Flag(
                code,
                "warning",
                f"The {end} slice still shows {area_cm2:.0f} cm² of lung (over 10 cm²): the lungs' {where} is not "
                "covered. Volumes are too small, and the other measurements leave that part out.",
            )


def _shape(volume: Volume, lungs: Mask) -> Iterator[Flag]:
    levels = lungs.any(axis=(1, 2))
    # Lung disease denser than -400 HU counts twice in the denominator: a small error on a wide margin.
    body = int(np.count_nonzero(volume.hu[levels] > -400)) + int(np.count_nonzero(lungs))
    share = int(np.count_nonzero(lungs)) / body
    if not 0.05 <= share <= 0.75:
        yield Flag(
            "lung-share-of-body",
            "warning",
            f"The mask fills {100 * share:.0f} % of the body at the level of the lungs, outside 5 to 75 %: it probably "
            "holds air outside the lungs, or misses much of them.",
        )
    holes_percent = _holes_percent(volume, lungs)
    if holes_percent > 1:
        yield Flag(
            "mask-holes",
            "warning",
            f"Holes inside the mask make up {holes_percent:.1f} % of it (over 1 %): dense lung may be missing from the "
            "measurements.",
        )


def _holes_percent(volume: Volume, lungs: Mask) -> float:
    """Volume of background that the mask encloses, in percent of the mask, on a grid of about 2 mm."""
    z, y, x = (max(1, round(_CHECK_MM / mm)) for mm in volume.spacing_mm)
    coarse = lungs[::z, ::y, ::x]
    if not coarse.any():
        return 0.0
    filled = ndimage.binary_fill_holes(coarse)
    return 100.0 * float(np.count_nonzero(filled) / np.count_nonzero(coarse) - 1.0)
