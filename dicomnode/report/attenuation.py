"""High- and low-attenuation areas inside the lungs as a second segmentation: what the percentages of the report count.

Its voxels are those of the measurements, each by its own value: nothing is smoothed, and vessels count as they do
there. Of a tilted or uneven series, which is measured on a straight grid, each source voxel has its nearest one's area.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.findings import Findings, Lungs
from dicomnode.analysis.measures.attenuation import AREAS
from dicomnode.report import codes, segmentation, source, uids
from dicomnode.report.context import ATTENUATION, MANUFACTURER, Context
from dicomnode.report.wording import DEMO, is_demo, plain


@dataclass(frozen=True)
class Area:
    """One segment. `colour`: recommended, RGB; warm is dense, cold is emphysematous (Okabe and Ito)."""

    name: uids.Structure
    kind: Code
    laterality: Code
    colour: tuple[int, int, int]


#: By their names in `attenuation.AREAS`, in the order of the segments.
_AREAS: Final = {
    "right_high": Area("right high-attenuation area", codes.HIGH_ATTENUATION_AREA, codes.RIGHT, (213, 94, 0)),
    "left_high": Area("left high-attenuation area", codes.HIGH_ATTENUATION_AREA, codes.LEFT, (230, 159, 0)),
    "right_low": Area("right low-attenuation area", codes.LOW_ATTENUATION_AREA, codes.RIGHT, (0, 114, 178)),
    "left_low": Area("left low-attenuation area", codes.LOW_ATTENUATION_AREA, codes.LEFT, (86, 180, 233)),
}


def encode(
    headers: Sequence[Dataset], areas_in_source: NDArray[np.uint8], findings: Findings, context: Context
) -> Dataset | None:
    """Return the map of one analysis as a segmentation; None where no voxel is in any area.

    Args:
        headers: as of `segmentation.encode`.
        areas_in_source: shape (frame, row, column), numbers as in `AREAS`, in the source's own rows and columns.
        findings: of these images, with `lungs` and `series`.
        context: the result's circumstances.

    Raises:
        ValueError: the findings have no lungs, or the number of frames differs.
    """
    if findings.lungs is None:
        raise ValueError(f"no map to encode: the findings ({findings.status}) have no lungs")
    present = np.bincount(areas_in_source.ravel(), minlength=1 + len(AREAS))
    found = [name for name in _AREAS if present[AREAS[name]]]
    if not found:
        return None
    # Segment numbers count from 1 without a gap (PS3.3 C.8.20.2).
    numbers = np.zeros(1 + len(AREAS), np.uint8)
    for number, name in enumerate(found, start=1):
        numbers[AREAS[name]] = number
    return segmentation.assemble(
        ATTENUATION,
        headers,
        numbers[areas_in_source],
        [_describe(number, _AREAS[name], headers[0], findings.lungs) for number, name in enumerate(found, start=1)],
        findings,
        context,
        label="ATTENUATION",
        description=f"{DEMO}, research use only"
        if is_demo(findings)
        else "Areas by attenuation, not smoothed; research use only",
    )


def _describe(number: int, area: Area, header: Dataset, lungs: Lungs) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=area.name.capitalize(),
        segmented_property_category=codes.SPATIAL_CONCEPT,
        segmented_property_type=area.kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(f"{lungs.segmenter} and attenuation thresholds"),
            version=plain(lungs.segmenter_version),
            family=codes.ALGORITHM_FAMILIES[lungs.family],
            source=MANUFACTURER,
            parameters={"high": "-600 to -250 HU, both included", "low": "below -950 HU", "smoothing": "none"},
        ),
        tracking_id=area.name.capitalize(),
        tracking_uid=uids.tracking(source.patient_key(header), area.name),
        anatomic_regions=[codes.LUNG],
        display_color=hd.color.CIELabColor.from_rgb(*area.colour),
    )
    description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [codes.item(area.laterality)]
    return description
