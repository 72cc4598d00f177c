"""Enhanced multi-frame CT (PS3.3 A.38.1) and legacy-converted enhanced CT (A.70): each frame as a flat data set.

What a single-frame CT image says in attributes of its own stands here in functional groups (PS3.3 C.7.6.16), some
shared by all frames, some given for each one. The rest of the analysis knows single images only: so each frame becomes
a data set in which these attributes stand where a single-frame image has them.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dicomnode.analysis.series.values import Doubt, settle

ENHANCED_CT = frozenset((EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage))

#: Macro: {attribute in its item: attribute of a single-frame image}.
MACROS: dict[str, dict[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "FrameContentSequence": {
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "StackID": "StackID",
        "FrameComments": "ImageComments",
    },
    "CardiacSynchronizationSequence": {"NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase"},
}
#: Legacy conversion keeps what it found no place for in these (PS3.3 C.7.6.16.2.26 and 27).
UNASSIGNED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def read(path: Path, syntax: UID) -> tuple[Dataset, list[Dataset], tuple[Doubt, ...]]:
    """Return the multi-frame image without its pixels, and a flat data set for each frame, in the order of the file.

    And the doubts about its values (`values.settle`).

    Raises:
        ValueError, KeyError: there are no functional groups, or not one item for each frame.
        OSError: the file cannot be read.
    """
    with warnings.catch_warnings():
        # As in `headers`: odd values are judged later.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        image = dcmread(path, stop_before_pixels=True, force=True)
        image.file_meta.TransferSyntaxUID = syntax
        # A deflated file's inflated bytes would stay in memory, pixels too.
        image.buffer = None
        doubts = settle(image)
        return image, flatten(image), doubts


def flatten(image: Dataset) -> list[Dataset]:
    """Return a flat data set for each frame of an enhanced image, in the order of the frames.

    Raises:
        ValueError, KeyError: there are no functional groups, or not one item for each frame.
    """
    shared, frames = (image[keyword].value for keyword in GROUPS)
    if len(shared) != 1 or len(frames) != int(image.NumberOfFrames):
        raise ValueError(f"{len(frames)} items for {image.NumberOfFrames} frames")
    common = _common(image, shared[0])
    return [_frame(common, group) for group in frames]


def _common(image: Dataset, shared: Dataset) -> Dataset:
    common = Dataset()
    left_out = {*GROUPS, "NumberOfFrames"}
    for tag in image.keys():  # noqa: SIM118 - iterating over a Dataset itself converts its elements
        common[tag] = image.get_item(tag)
    for keyword in left_out:
        common.pop(keyword, None)
    # Enhanced CT names the agent by a code (PS3.3 C.7.6.4b), and the region too (C.8.15.3.x, Frame Anatomy).
    if common.get("ContrastBolusAgentSequence"):
        common.ContrastBolusAgent = "contrast"
    _take(common, shared)
    common.file_meta = image.file_meta
    return common


def _frame(common: Dataset, group: Dataset) -> Dataset:
    frame = Dataset()
    for tag in common.keys():  # noqa: SIM118 - as above
        frame[tag] = common.get_item(tag)
    _take(frame, group)
    frame.file_meta = common.file_meta
    return frame


def _take(flat: Dataset, group: Dataset) -> None:
    """Put the attributes of a functional group's macros into `flat`."""
    for unassigned in UNASSIGNED:
        for item in _items(group, unassigned):
            flat.update({tag: item.get_item(tag) for tag in item.keys()})  # noqa: SIM118 - as above
    for macro, attributes in MACROS.items():
        for item in _items(group, macro):
            for inner, outer in attributes.items():
                if inner in item:
                    setattr(flat, outer, item[inner].value)
    for anatomy in _items(group, "FrameAnatomySequence"):
        for region in _items(anatomy, "AnatomicRegionSequence"):
            if region.get("CodeMeaning") and not flat.get("BodyPartExamined"):
                flat.BodyPartExamined = str(region.CodeMeaning).upper()


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    if keyword in dataset:
        yield from dataset[keyword].value
