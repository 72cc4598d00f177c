"""What the objects say about this node, and the kinds of object that it makes."""

from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings

MANUFACTURER = "dicomnode"
MODEL_NAME = "dicomnode chest CT"


@dataclass(frozen=True)
class Context:
    """The circumstances of one result.

    Attributes:
        created: when the result was made, with its time zone. A repeated run gives the same time again, so that it
            makes the same bytes: nothing in the reports looks at the clock.
        software_version: the version of dicomnode.
        device_serial: this node's serial number (VR LO, at most 64 characters).
        station_name: this node's name (VR SH, at most 16 characters), or empty.
        institution: where this node stands (VR LO), or empty.
        previous: the findings of the earlier result that this one replaces. The reports name it as predecessor.
        version: counts the results of this study that a destination was given, this one included, from 1.
        highest_series_number: of the study's images; ours follow it.
        order: the worklist's item of this study, undecoded, where the images do not say which order they answer.

    Raises:
        ValueError: `created` has no time zone.
    """

    created: datetime
    software_version: str
    device_serial: str
    station_name: str = ""
    institution: str = ""
    previous: Findings | None = None
    order: Dataset | None = None
    highest_series_number: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        if self.created.utcoffset() is None:
            raise ValueError(f"Context.created is {self.created}, without a time zone: use one, e.g. datetime.now(UTC)")


@dataclass(frozen=True)
class Kind:
    """A kind of object. The label (at most 8 characters) begins its Series Description."""

    name: str
    series_number: int
    label: str

    def number_after(self, highest: int) -> int:
        """Return the Series Number in a study whose own go up to `highest`.

        Viewers open the series with the lowest number first, and that has to be the images. Where a fixed block is not
        high enough, ours begin at the next full thousand; where that would not fit into an IS (2^31 - 1), they stay.
        """
        thousands = -(-(highest + 1) // _BLOCK) * _BLOCK
        moved = max(thousands - _FIRST_BLOCK, 0)
        return self.series_number + moved if self.series_number + moved <= _LARGEST_IS else self.series_number


_FIRST_BLOCK, _BLOCK, _LARGEST_IS = 9000, 1000, (1 << 31) - 1
# A block of numbers, high enough to stand below the scanner's own series in most lists.
SEGMENTATION = Kind("segmentation", 9001, "Lungs")
MEASUREMENTS = Kind("measurements", 9002, "Measures")
RISK = Kind("risk", 9003, "Risk")
SUMMARY = Kind("summary", 9004, "Summary")
REFUSAL = Kind("refusal", 9005, "Refused")
REJECTION = Kind("rejection", 9006, "Rejected")
