"""The same result for a PACS that takes label maps: one number a voxel (PS3.3 A.51, LABELMAP), RLE-compressed.

It is another object than the binary one, of another SOP class, with UIDs of its own; so is the measurement report that
refers to it. Their UIDs derive from those of the objects that they stand for, predecessors and prior reports included:
who gets label maps gets them of every study.
"""

import copy
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicomnode.analysis.arrays import Labels
from dicomnode.analysis.findings import Findings
from dicomnode.report import segmentation, uids
from dicomnode.report.context import Context
from dicomnode.report.structures import LOBES_OF_LUNG


def can_show(findings: Findings) -> bool:
    """Whether a label map can: lobes overlap the lungs, and a voxel has one number."""
    return not findings.quantities.keys() & LOBES_OF_LUNG.keys()


def encode(headers: Sequence[Dataset], labels_in_source: Labels, findings: Findings, context: Context) -> Dataset:
    """Return the segmentation of lungs as a label map.

    Args:
        headers: as of `segmentation.encode`.
        labels_in_source: shape (frame, row, column), 0 background, 1 right lung, 2 left lung, in the source's own rows
            and columns.
        findings: of these images, without lobes (`can_show`).
        context: the result's circumstances.

    Raises:
        ValueError: as `segmentation.encode`.
    """
    # GDCM, which comes first, ends the whole process at frames of an odd number of pixels.
    is_odd = labels_in_source[0].size % 2 == 1
    made = segmentation.encode(
        headers,
        labels_in_source,
        findings,
        context,
        segmentation_type="LABELMAP",
        transfer_syntax_uid=ExplicitVRLittleEndian if is_odd else RLELossless,
    )
    if is_odd:
        made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    _rename(made)
    organization = uids.dimension_organization(str(made.SOPInstanceUID))
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    return made


def referring(report: Dataset, binary: Dataset, labelmap: Dataset) -> Dataset:
    """Return a measurement report that refers to the label map where `report` refers to the binary segmentation."""
    made = copy.deepcopy(report)
    mine = str(report.SOPClassUID)
    for item in _references(made):
        uid = str(item.get("ReferencedSOPInstanceUID", ""))
        if uid == str(binary.SOPInstanceUID):
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = labelmap.SOPClassUID, labelmap.SOPInstanceUID
        elif str(item.get("ReferencedSOPClassUID", "")) == mine:
            item.ReferencedSOPInstanceUID = _variant(uid)
        if str(item.get("SeriesInstanceUID", "")) == str(binary.SeriesInstanceUID):
            item.SeriesInstanceUID = labelmap.SeriesInstanceUID
        elif any(str(one.ReferencedSOPClassUID) == mine for one in item.get("ReferencedSOPSequence", ())):
            item.SeriesInstanceUID = _variant(str(item.SeriesInstanceUID))
    _rename(made)
    return made


def _rename(made: Dataset) -> None:
    made.SOPInstanceUID = _variant(str(made.SOPInstanceUID))
    made.SeriesInstanceUID = _variant(str(made.SeriesInstanceUID))
    if hasattr(made, "file_meta"):
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID


def _variant(uid: str) -> str:
    return uids.derive("labelmap", uid)


def _references(report: Dataset) -> Iterator[Dataset]:
    """Yield every item that may refer to another object; the patient's and the order's own elements stay untouched."""
    waiting = [
        item
        for keyword in (
            "ContentSequence",
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
            "PredecessorDocumentsSequence",
        )
        for item in report.get(keyword, ())
    ]
    while waiting:
        item = waiting.pop()
        yield item
        for keyword in ("ContentSequence", "ReferencedSOPSequence", "ReferencedSeriesSequence"):
            waiting += item.get(keyword, ())
