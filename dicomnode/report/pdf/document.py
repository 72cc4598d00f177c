"""The PDF as a DICOM object: Encapsulated PDF (PS3.3 A.45.1)."""

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode.analysis.findings import Findings
from dicomnode.report import codes, source, stamp, uids
from dicomnode.report.context import PDF, Context
from dicomnode.report.file_meta import file_meta
from dicomnode.report.pdf.content import TITLE


def encode(header: Dataset, pdf: bytes, findings: Findings, context: Context) -> Dataset:
    """Return the encapsulated report of one study.

    Args:
        header: of an image of the study, for patient, study and order.
        pdf: made by `typesetting.pdf_bytes` with the same header.
        findings: of these images, also of a refused study.
        context: the result's circumstances.
    """
    study_uid = str(header.StudyInstanceUID)
    report = Dataset()
    report.SOPClassUID = EncapsulatedPDFStorage
    report.SOPInstanceUID = uids.sop_instance(PDF, study_uid, findings)
    report.SeriesInstanceUID = uids.series(PDF, study_uid, findings)
    report.Modality = "DOC"
    report.ConversionType = "WSD"
    report.InstanceNumber = 1
    report.AcquisitionDateTime = None
    # Patient and date stand in it.
    report.BurnedInAnnotation = "YES"
    report.DocumentTitle = TITLE
    report.ConceptNameCodeSequence = [codes.item(codes.IMAGING_MEASUREMENT_REPORT)]
    report.SourceInstanceSequence = [_reference(header)]
    report.MIMETypeOfEncapsulatedDocument = "application/pdf"
    report.EncapsulatedDocumentLength = len(pdf)
    report.add_new("EncapsulatedDocument", "OB", pdf + b"\0" * (len(pdf) % 2))
    report.preamble = b"\0" * 128
    report.file_meta = file_meta(report)
    stamp.finish(report, PDF, header, findings, context)
    return report


def pdf_of(report: Dataset) -> bytes:
    """Return the PDF that an encapsulated report holds."""
    content: bytes = report.EncapsulatedDocument
    return content[: int(report.EncapsulatedDocumentLength)]


def _reference(header: Dataset) -> Dataset:
    bare = source.uids_of(header)
    reference = Dataset()
    reference.ReferencedSOPClassUID = bare.SOPClassUID
    reference.ReferencedSOPInstanceUID = bare.SOPInstanceUID
    return reference
