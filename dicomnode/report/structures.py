"""The structures that the segmentation shows and the measurements describe: lungs, and lobes where there are any."""

from dataclasses import dataclass
from typing import Final

from pydicom.sr.coding import Code

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT
from dicomnode.analysis.findings import Findings
from dicomnode.report import codes, uids


@dataclass(frozen=True)
class Structure:
    """One segment. `name` is its label and tracking identifier; `value` its number in the array of lungs or of lobes.

    Attributes:
        kind, laterality: codes of the segmented property and its modifier; in the measurements, of the finding site.
        colour: recommended, RGB. The lungs' two can be told apart by colour-blind readers (Okabe and Ito).
    """

    name: uids.Structure
    kind: Code
    laterality: Code
    value: int
    colour: tuple[int, int, int]


#: By their names in `Findings.quantities`, in the order of the segments.
LUNGS: Final = {
    "right": Structure("right lung", codes.LUNG, codes.RIGHT, RIGHT, (230, 159, 0)),
    "left": Structure("left lung", codes.LUNG, codes.LEFT, LEFT, (86, 180, 233)),
}
_LOBES: Final[tuple[tuple[str, uids.Structure, Code, Code, tuple[int, int, int]], ...]] = (
    ("right_upper_lobe", "right upper lobe", codes.UPPER_LOBE, codes.RIGHT, (240, 228, 66)),
    ("right_middle_lobe", "right middle lobe", codes.MIDDLE_LOBE, codes.RIGHT, (213, 94, 0)),
    ("right_lower_lobe", "right lower lobe", codes.LOWER_LOBE, codes.RIGHT, (204, 121, 167)),
    ("left_upper_lobe", "left upper lobe", codes.UPPER_LOBE, codes.LEFT, (0, 158, 115)),
    ("left_lower_lobe", "left lower lobe", codes.LOWER_LOBE, codes.LEFT, (0, 114, 178)),
)
LOBES_OF_LUNG: Final = {
    name: Structure(structure, kind, laterality, LOBES[name], colour)
    for name, structure, kind, laterality, colour in _LOBES
}


def segments(findings: Findings) -> dict[str, int]:
    """Segment Number of each structure that was found, by its name in the quantities.

    They count from 1 without a gap (PS3.3 C.8.20.2): of a patient with one lung, that lung is segment 1.
    """
    found = [name for name in (*LUNGS, *LOBES_OF_LUNG) if name in findings.quantities]
    return {name: number for number, name in enumerate(found, start=1)}
