"""Whether a scan shows the lungs at all, whatever its words say, and where in a longer scan the chest is.

A scan of the abdomen shows the bases of the lungs, and bowel; one of the pelvis bowel alone. Neither has lungs to
measure. A scan of the whole body has, and other gas far from them.
"""

import numpy as np
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.findings import Flag
from dicomnode.errors import RefusedError
from dicomnode.words.numerals import apart

#: Less than this is no pair of lungs, nor one lung, of anybody old enough for these measures, ml.
LEAST_ML = 300.0
#: Of lungs that the scan cuts off, less than this is too small a share of two lungs, ml, ...
LEAST_CUT_ML = 600.0
#: ... and so is less than this of their height, mm: lungs in shallow inspiration are 150 to 200 mm high.
LEAST_CUT_MM = 120.0
#: The largest slice of any lungs shows more than this of them, cm².
LEAST_CM2 = 40.0
#: Lungs are cut off where the first or last slice still shows this share of the largest one.
CUT_SHARE = 0.25
#: A slice belongs to the height of the lungs from this area on, cm².
_SLICE_CM2 = 5.0
#: Air farther than this above or below the larger lung is none of the lungs', mm; nearer, it may lie beyond a lobe that
#: holds none.
NEAR_MM = 100.0
_COARSE_MM = 4.0

CUT_TO_CHEST = Flag(
    "cut-to-chest",
    "info",
    f"The scan goes far beyond the chest: air more than {NEAR_MM:.0f} mm above or below the lungs was left out.",
)


def in_chest(volume: Volume, labels: Labels) -> Labels:
    """Return the labels without what lies far above or below the lungs: bowel, sinuses.

    Args:
        volume: the volume.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    steps = [max(1, round(_COARSE_MM / mm)) for mm in volume.spacing_mm]
    coarse = labels[tuple(slice(None, None, step) for step in steps)]
    spans = sorted((_largest_span(coarse == side) for side in (RIGHT, LEFT)), reverse=True)
    voxels, first, last = spans[0]
    if voxels == 0:
        return labels
    _, other_first, other_last = spans[1]
    # Both lungs lie side by side; what does not is no lung, however large.
    if min(last, other_last) - max(first, other_first) >= 0.5 * (other_last - other_first):
        first, last = min(first, other_first), max(last, other_last)
    near = round(NEAR_MM / volume.spacing_mm[0])
    low, high = max(0, first * steps[0] - near), (last + 1) * steps[0] + near
    if not labels[:low].any() and not labels[high:].any():
        return labels
    kept = labels.copy()
    kept[:low] = 0
    kept[high:] = 0
    return kept


def _largest_span(lung: Mask) -> tuple[int, int, int]:
    """Voxels of the largest connected piece, and its first and last slice; zeros where there is none."""
    pieces, n = ndimage.label(lung)
    if n == 0:
        return 0, 0, 0
    sizes = np.bincount(pieces.ravel())[1:]
    largest = int(sizes.argmax())
    rows = ndimage.find_objects(pieces)[largest][0]
    return int(sizes[largest]), int(rows.start), int(rows.stop) - 1


def refuse_unless_chest(volume: Volume, labels: Labels) -> None:
    """Refuse a scan that holds too little of the lungs to be one of the chest.

    Args:
        volume: the volume.
        labels: (z, y, x), 0 background, 1 right, 2 left.

    Raises:
        RefusedError: `lungs-not-covered`; the text says what was found and what is needed.
    """
    pixel_cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100.0
    areas_cm2 = np.array([np.count_nonzero(plane) for plane in labels]) * pixel_cm2
    ml = float(areas_cm2.sum()) * volume.spacing_mm[0] / 10.0
    largest_cm2 = float(areas_cm2.max())
    height_mm = np.count_nonzero(areas_cm2 > _SLICE_CM2) * volume.spacing_mm[0]
    cut = max(float(areas_cm2[0]), float(areas_cm2[-1])) > CUT_SHARE * largest_cm2
    if ml < LEAST_ML or largest_cm2 < LEAST_CM2:
        what, needed = "are", f"at least {LEAST_ML:.0f} ml and {LEAST_CM2:.0f} cm² in one slice"
    elif cut and (ml < LEAST_CUT_ML or height_mm < LEAST_CUT_MM):
        what = "are in the scan, which cuts them off,"
        needed = f"at least {LEAST_CUT_ML:.0f} ml and {LEAST_CUT_MM:.0f} mm of height"
    else:
        return
    raise RefusedError(
        "lungs-not-covered",
        f"only {apart(ml, LEAST_CUT_ML if what != 'are' else LEAST_ML)} ml of what looks like lung {what} "
        f"{height_mm:.0f} mm high, {largest_cm2:.0f} cm² in the "
        f"largest slice; needed are {needed}. This is no scan of the chest, whatever its words say: send one that "
        "covers both lungs.",
    )
