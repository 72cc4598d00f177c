"""The objects that the node makes, each with how it is encoded from a sample.

A new kind of object (`report.context.Kind`, `config.ObjectName`) belongs into `CREATED`: a test compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicomnode.config import ObjectName
from dicomnode.conformance.sample import Sample, read_again
from dicomnode.network import commitment, mpps, ups
from dicomnode.network.contexts import STORAGE_COMMITMENT
from dicomnode.outbound.procedure_steps import progress
from dicomnode.report import attenuation, codes, context, labelmap, rejection_note, segmentation, uids
from dicomnode.report.context import Kind
from dicomnode.report.page import summary
from dicomnode.report.pdf import document
from dicomnode.report.rejection_note import RejectedObject
from dicomnode.report.sr import measurements, refusal, risk

_SENT: Final = ((context.SEGMENTATION, SegmentationStorage), (context.MEASUREMENTS, Comprehensive3DSRStorage))
#: What an earlier result may have been.
_REJECTED: Final = (
    *_SENT,
    (context.ATTENUATION, SegmentationStorage),
    (context.RISK, Comprehensive3DSRStorage),
    (context.SUMMARY, SecondaryCaptureImageStorage),
    (context.PDF, EncapsulatedPDFStorage),
)
#: The Scheduled Workitem Code of the configuration's default.
IMAGE_PROCESSING: Final = ("110001", "DCM", "Image Processing")


@dataclass(frozen=True)
class CreatedObject:
    """An object that leaves the node, or a message about one.

    Attributes:
        title: what people call it.
        when: when it is made, and where it goes.
        kind: of a composite object. None: the data set of a DIMSE-N message.
        encode: makes it of a sample.
        config_name: what `objects` of a destination calls it.
        sop_class: of a message; a composite object names its own.
        modules: keys of the standard's modules where no IOD names them (highdicom's spelling).
        sources: where values come from that no variant of a sample shows, by keyword.
        has_tree: it is a structured document.
        is_labelmap: it can show no lobes.
    """

    title: str
    when: str
    kind: Kind | None
    encode: Callable[[Sample], Dataset] = field(repr=False)
    config_name: ObjectName | None = None
    sop_class: UID | None = None
    modules: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    has_tree: bool = False
    is_labelmap: bool = False

    @property
    def has_parts(self) -> bool:
        """Whether its attributes are those of a sample with lobes and regions; of a document, its tree tells."""
        return not (self.has_tree or self.is_labelmap)

    def made(self, sample: Sample) -> Dataset:
        """Return the object as its receiver reads it."""
        return read_again(self.encode(sample))


def _segmentation(sample: Sample) -> Dataset:
    return segmentation.encode(sample.headers, sample.labels, sample.findings, sample.context, sample.lobes)


def _attenuation(sample: Sample) -> Dataset:
    made = attenuation.encode(sample.headers, sample.areas, sample.findings, sample.context)
    assert made is not None  # each sample has such areas
    return made


def _labelmap(sample: Sample) -> Dataset:
    return labelmap.encode(sample.headers, sample.labels, sample.findings, sample.context)


def _measurements(sample: Sample) -> Dataset:
    return measurements.encode(sample.headers, sample.findings, _segmentation(sample), sample.context)


# Drawing the true ones would take a second each, and change no attribute.
_PAGE: Final = np.zeros((4, 6, 3), np.uint8)
_PDF: Final = b"%PDF-1.7"


def _summary(sample: Sample) -> Dataset:
    return summary.encode(sample.headers, _PAGE, sample.findings, sample.context)


def _refusal_summary(sample: Sample) -> Dataset:
    return summary.encode(sample.headers[:1], _PAGE, sample.refused, sample.context)


def _pdf(sample: Sample) -> Dataset:
    return document.encode(sample.headers[0], _PDF, sample.findings, sample.context)


def _refusal_pdf(sample: Sample) -> Dataset:
    return document.encode(sample.headers[0], _PDF, sample.refused, sample.context)


def _rejection(sample: Sample) -> Dataset:
    earlier = sample.context.previous or replace(sample.findings, input_digest="98" * 32)
    study_uid = str(sample.headers[0].StudyInstanceUID)
    old = [
        RejectedObject(sop_class, uids.sop_instance(kind, study_uid, earlier), uids.series(kind, study_uid, earlier))
        for kind, sop_class in _REJECTED
    ]
    title = codes.REJECTIONS["113001" if sample.context.previous is None else "113037"]
    return rejection_note.encode(sample.headers[0], old, title, "archive", sample.findings, sample.context)


def _images(sample: Sample) -> list[ups.Reference]:
    """Return references to the source images."""
    return [
        ups.Reference(
            str(one.StudyInstanceUID),
            str(one.SeriesInstanceUID),
            str(one.SOPClassUID),
            str(one.SOPInstanceUID),
            (sample.ae_title,),
        )
        for one in sample.headers
    ]


def _results(sample: Sample) -> list[ups.Reference]:
    """Return references to a segmentation and a report of the sample."""
    study_uid, found = str(sample.headers[0].StudyInstanceUID), sample.findings
    return [
        ups.Reference(
            study_uid,
            uids.series(kind, study_uid, found),
            sop_class,
            uids.sop_instance(kind, study_uid, found),
            (sample.ae_title,),
        )
        for kind, sop_class in _SENT
    ]


def _mpps_begun(sample: Sample) -> Dataset:
    return mpps.begun(sample.headers[0], sample.step_uid, sample.ae_title, sample.at)


def _mpps_completed(sample: Sample) -> Dataset:
    return mpps.completed(sample.at, _results(sample))


def _mpps_discontinued(sample: Sample) -> Dataset:
    series_uid = uids.derive("series of a discontinued step", sample.step_uid)
    return mpps.discontinued(sample.at, _reason(sample), progress.UNSPECIFIED, series_uid)


def _ups_created(sample: Sample) -> Dataset:
    return ups.scheduled(sample.headers[0], _images(sample), IMAGE_PROCESSING, "dicomnode", sample.at)


def _ups_completed(sample: Sample) -> Dataset:
    return ups.completion(sample.ae_title, IMAGE_PROCESSING, sample.at, sample.at, _results(sample))


def _ups_cancelled(sample: Sample) -> Dataset:
    return ups.cancellation(_reason(sample), sample.at, progress.UNSPECIFIED)


def _reason(sample: Sample) -> str:
    rejected = sample.refused.rejected
    return f"refused: {rejected[0].reasons[0].text}" if rejected else "refused"


def _commitment(sample: Sample) -> Dataset:
    named = [(str(one.sop_class_uid), one.sop_instance_uid) for one in _results(sample)]
    return commitment.asked(sample.transaction_uid, named)


_REPORTS: Final = "with `objects` of a destination"
_REFUSED: Final = "for a study that is not analysed, where a destination has `refused_report = true`"
_PAGE_SOURCES: Final = {"PixelData": "analysis", "Rows": "fixed by the page", "Columns": "fixed by the page"}
_PDF_SOURCES: Final = dict.fromkeys(
    ("EncapsulatedDocument", "EncapsulatedDocumentLength"), "source image, analysis, release, time"
)
_TIMEZONE: Final = {"TimezoneOffsetFromUTC": "time zone of this machine"}
_MPPS_MODULES: Final = (
    "sop-common",
    "performed-procedure-step-relationship",
    "performed-procedure-step-information",
    "image-acquisition-results",
)
_UPS_MODULES: Final = (
    "sop-common",
    "unified-procedure-step-scheduled-procedure-information",
    "unified-procedure-step-relationship",
    "unified-procedure-step-progress-information",
    "unified-procedure-step-performed-procedure-information",
)
CREATED: Final = (
    CreatedObject(
        "Segmentation", f"with each result, {_REPORTS} (`seg`)", context.SEGMENTATION, _segmentation,
        config_name="seg",
    ),
    CreatedObject(
        "Label map",
        'in the place of the segmentation, where a destination has `segmentation = "labelmap"`, and no lobes are found',
        context.SEGMENTATION, _labelmap, is_labelmap=True,
    ),
    CreatedObject(
        "Areas by attenuation", f"with each result where `results.attenuation_maps = true`, {_REPORTS} (`attenuation`)",
        context.ATTENUATION, _attenuation, config_name="attenuation",
    ),
    CreatedObject(
        "Measurement report", f"with each result, {_REPORTS} (`measurements`)", context.MEASUREMENTS, _measurements,
        config_name="measurements", has_tree=True,
    ),
    CreatedObject(
        "Risk report", f"with each result that has a risk, {_REPORTS} (`risk`)", context.RISK,
        lambda s: risk.encode(s.headers, s.findings, s.context), config_name="risk", has_tree=True,
    ),
    CreatedObject(
        "Summary page", f"with each result, {_REPORTS} (`summary`)", context.SUMMARY, _summary, config_name="summary",
        sources=_PAGE_SOURCES,
    ),
    CreatedObject(
        "Report as PDF", f"with each result, {_REPORTS} (`pdf`)", context.PDF, _pdf, config_name="pdf",
        sources=_PDF_SOURCES,
    ),
    CreatedObject(
        "Refusal report", _REFUSED, context.REFUSAL, lambda s: refusal.encode(s.headers[0], s.refused, s.context),
        has_tree=True,
    ),
    CreatedObject(
        "Refusal page", f"{_REFUSED} and `summary` in `objects`", context.SUMMARY, _refusal_summary,
        sources=_PAGE_SOURCES,
    ),
    CreatedObject(
        "Refusal as PDF", f"{_REFUSED} and `pdf` in `objects`", context.PDF, _refusal_pdf, sources=_PDF_SOURCES,
    ),
    CreatedObject(
        "Rejection note",
        "when a result replaces another or is withdrawn, where a destination has `reject_old = true`",
        context.REJECTION, _rejection, has_tree=True,
    ),
    CreatedObject(
        "Performed procedure step, N-CREATE", "when an analysis begins, with a table `[mpps]`", None, _mpps_begun,
        sop_class=mpps.MPPS, modules=_MPPS_MODULES, sources=_TIMEZONE,
    ),
    CreatedObject(
        "Performed procedure step, N-SET COMPLETED", "when its results have been delivered", None, _mpps_completed,
        sop_class=mpps.MPPS, modules=_MPPS_MODULES,
    ),
    CreatedObject(
        "Performed procedure step, N-SET DISCONTINUED", "when it has ended without a result", None,
        _mpps_discontinued, sop_class=mpps.MPPS, modules=_MPPS_MODULES,
    ),
    CreatedObject(
        "Unified procedure step, N-CREATE", "for each accepted study, with `create = true` in `[ups]`", None,
        _ups_created, sop_class=ups.PUSH, modules=_UPS_MODULES,
    ),
    CreatedObject(
        "Unified procedure step, final N-SET before COMPLETED", "when the results have been delivered", None,
        _ups_completed, sop_class=ups.PUSH, modules=_UPS_MODULES,
    ),
    CreatedObject(
        "Unified procedure step, final N-SET before CANCELED", "when the work has ended without a result", None,
        _ups_cancelled, sop_class=ups.PUSH, modules=_UPS_MODULES,
    ),
    CreatedObject(
        "Storage commitment request, N-ACTION", "after each delivery, with `commitment = true` of a destination",
        None, _commitment, sop_class=STORAGE_COMMITMENT, modules=("storage-commitment",),
    ),
)  # fmt: skip
