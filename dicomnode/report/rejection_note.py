"""A Key Object Selection document that takes replaced results back (IHE RAD TF, Imaging Object Change Management).

Title and references follow TID 2010; the title says why (PS3.16 CID 7010). It carries the patient and study of the
objects that it rejects, as they were sent: under these the PACS has filed them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from dicomnode.analysis.findings import Findings
from dicomnode.report import source, stamp, uids
from dicomnode.report.context import MANUFACTURER, REJECTION, Context

_IMAGES: Final = (SegmentationStorage, SecondaryCaptureImageStorage)


@dataclass(frozen=True)
class RejectedObject:
    """One object of an earlier result."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


def encode(
    header: Dataset,
    rejected: Sequence[RejectedObject],
    title: Code,
    destination: str,
    findings: Findings,
    context: Context,
) -> Dataset:
    """Return the note.

    Args:
        header: of one of the rejected objects, else of an image of the study; it gives patient and study.
        rejected: at least one; all of one study.
        title: of `codes.REJECTIONS`.
        destination: where the objects are: another place may hold others, and gets another note.
        findings: of the result that takes their place.
        context: the circumstances of the note.
    """
    import highdicom as hd  # noqa: PLC0415  (half a second that no start needs)

    objects = [_reference(one, str(header.StudyInstanceUID)) for one in rejected]
    names = sorted(one.sop_instance_uid for one in rejected)
    about = (destination, title.value, str(header.StudyInstanceUID), context.created.isoformat(), *names)
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=hd.ko.KeyObjectSelection(title, objects),
        series_instance_uid=uids.derive("rejection series", *about),
        series_number=REJECTION.series_number,
        sop_instance_uid=uids.derive("rejection", *about),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    stamp.finish(note, REJECTION, header, findings, context)
    note.SeriesDescription = f"{REJECTION.label}: results replaced or withdrawn"
    return note


def _reference(one: RejectedObject, study_uid: str) -> Dataset:
    reference = source.placeholder(Dataset())
    reference.SOPClassUID, reference.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    reference.StudyInstanceUID, reference.SeriesInstanceUID = study_uid, one.series_uid
    if one.sop_class_uid in _IMAGES:
        reference.Rows = reference.Columns = 1  # by these highdicom tells images, which are referred to as such
    return reference
