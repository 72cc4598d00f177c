"""The hull on its own grid: dense lung for the segmenter, and what any lung mask leaves out of the hull."""

import math

import numpy as np

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Labels, Volume
from dicomnode.analysis.block_means import block_means
from dicomnode.analysis.findings import Flag, Quantities, VolumeMl
from dicomnode.analysis.lungs import hull
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, BodyGrid, body_midline
from dicomnode.words.numerals import apart

#: What is left out is a volume and no mask: a coarser grid than the segmenter's does.
GRID_MM = 3.0
#: Flagged: more left out than this, percent of both lungs, or of one.
LEFT_OUT_PERCENT, LEFT_OUT_OF_ONE_PERCENT = 3.0, 8.0
#: Flagged: so much of one lung's mask is dense, percent. Vessels alone are up to 5.
DENSE_PERCENT = 10.0


def dense_lung(grid: BodyGrid, labels: Labels, midline: float) -> Labels:
    """Return dense lung around aerated lung (`hull.find`): 1 right, 2 left, of the grid's shape.

    Args:
        grid: the shrunken volume.
        labels: (z, y, x), aerated lung: 0 background, 1 right, 2 left, above: what is neither.
        midline: x index of the body's middle.
    """
    lungs = np.where(labels > LEFT, 0, labels).astype(np.uint8)
    dense = hull.find(grid.hu, grid.spacing_mm, lungs, labels > LEFT, midline).dense
    return np.where(labels == 0, dense, 0).astype(np.uint8)


def _steps(spacing_mm: tuple[float, ...], shape: tuple[int, ...]) -> list[int]:
    return [max(1, min(round(GRID_MM / mm), n)) for mm, n in zip(spacing_mm, shape, strict=True)]


def _shrunk(
    hu: HuArray, steps: list[int], spacing_mm: tuple[float, float, float]
) -> tuple[HuArray, tuple[slice, ...], tuple[float, float, float]]:
    """Return the means of blocks, where their middles lie, and the new spacing."""
    small = block_means(hu, steps)
    middle = tuple(
        slice(step // 2, step // 2 + (n - 1) * step + 1, step) for step, n in zip(steps, small.shape, strict=True)
    )
    z, y, x = (mm * step for mm, step in zip(spacing_mm, steps, strict=True))
    return small, middle, (z, y, x)


def left_out(volume: Volume, labels: Labels) -> VolumeMl:
    """Return the volume, ml, that lies in the hull of the lungs and not in their mask.

    Measured on a grid of about 3 mm from the aerated part of the mask (`hull.find`): dense lung, fluid, and what
    cannot be told from either. Lung that has no aerated lung and no ribs beside it is not seen.

    Args:
        volume: in HU.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    hu, middle, spacing_mm = _shrunk(volume.hu, _steps(volume.spacing_mm, volume.hu.shape), volume.spacing_mm)
    mask = labels[middle]
    aerated = np.where(hu < AIR_BELOW_HU, mask, 0).astype(np.uint8)
    between = hull.find(hu, spacing_mm, aerated, np.zeros(mask.shape, bool), body_midline(hu))
    outside = np.where(mask > 0, 0, np.maximum(between.dense, between.untold))
    voxel_ml = math.prod(spacing_mm) / 1000.0
    right, left = (float(np.count_nonzero(outside == side) * voxel_ml) for side in (RIGHT, LEFT))
    return VolumeMl(total=right + left, left=left, right=right)


def flags(left_out_ml: VolumeMl, found_ml: VolumeMl) -> tuple[Flag, ...]:
    """Return the doubt about a mask that leaves much of the hull out; none if it does not. The text states the limits.

    Args:
        left_out_ml: see `left_out`.
        found_ml: the volumes of the mask.
    """
    total, right, left = (
        100.0 * out / max(found, 1.0)
        for out, found in zip(
            (left_out_ml.total, left_out_ml.right, left_out_ml.left),
            (found_ml.total, found_ml.right, found_ml.left),
            strict=True,
        )
    )
    if total <= LEFT_OUT_PERCENT and max(right, left) <= LEFT_OUT_OF_ONE_PERCENT:
        return ()
    text = (
        f"At least {left_out_ml.total:.0f} ml between aerated lung and chest wall are not in the mask (right "
        f"{left_out_ml.right:.0f}, left {left_out_ml.left:.0f} ml; {apart(right, LEFT_OUT_OF_ONE_PERCENT)} and "
        f"{apart(left, LEFT_OUT_OF_ONE_PERCENT)} % of the lung; limits {LEFT_OUT_PERCENT:.0f} % of both or "
        f"{LEFT_OUT_OF_ONE_PERCENT:.0f} % of one): effusion, or consolidation or "
        "dense fibrosis that the measurements do not include. Look at the outlines."
    )
    return (Flag("lung-left-out", "warning", text),)


def dense_flags(right: Quantities | None, left: Quantities | None) -> tuple[Flag, ...]:
    """Return the doubt about a mask with much dense lung: where that meets an organ, its border cannot be seen."""
    percent = {name: of.dense_percent or 0.0 for name, of in (("right", right), ("left", left)) if of is not None}
    if max(percent.values(), default=0.0) <= DENSE_PERCENT:
        return ()
    shares = ", ".join(f"{name} {apart(share, DENSE_PERCENT)} %" for name, share in percent.items())
    text = (
        f"Much of the mask is denser than -250 HU ({shares}; limit {DENSE_PERCENT:.0f} % of one lung): "
        "consolidation or dense fibrosis. Where it meets heart, liver or spleen its border cannot be seen, and more of "
        "it may be missing from the mask. Look at the outlines; read the dense share beside %HAA."
    )
    return (Flag("lung-dense-share", "warning", text),)
