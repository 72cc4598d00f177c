"""The one-page summary as a Secondary Capture (PS3.3 A.8), for any PACS, also one that shows neither SEG nor SR."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.analysis.findings import Findings
from dicomnode.report import codes, stamp, uids
from dicomnode.report.context import SUMMARY, Context
from dicomnode.report.file_meta import file_meta
from dicomnode.report.page import explained, layout, trend
from dicomnode.report.page.views import Views


def picture(views: Views, findings: Findings) -> NDArray[np.uint8]:
    """Return the page, shape (row, column, RGB). Nothing in it tells who the patient is.

    It is as high as its words need; where prior scans are known, a strip shows the numbers over time.

    Raises:
        ValueError: the findings hold no lungs.
    """
    if findings.lungs is None or findings.series is None:
        raise ValueError(f"no summary to draw: the findings ({findings.status}) have no lungs")
    relevance = findings.risk.slice_relevance if findings.risk is not None else ()
    strips = [layout.head(findings), layout.pictures(views, relevance), layout.numbers(findings)]
    if (weighed := explained.strip(findings, views)) is not None:
        strips.append(weighed)
    if findings.trend:
        strips.append(trend.strip(findings))
    elif findings.change is not None:
        strips.append(trend.words(findings))
    return _pixels([*strips, layout.provenance(findings)])


def refusal_picture(findings: Findings, studied: str = "") -> NDArray[np.uint8]:
    """Return the page of a refused study, shape (row, column, RGB): that it was not analysed, and why.

    Args:
        findings: with status "refused".
        studied: the study's date (DA), which the findings of a study without a chosen series do not have.
    """
    return _pixels([layout.head(findings, studied), layout.refusal(findings), layout.provenance(findings)])


def _pixels(strips: Sequence[Figure]) -> NDArray[np.uint8]:
    """Return the strips below one another, shape (row, column, RGB)."""
    drawn = []
    for figure in strips:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3])
    return np.concatenate(drawn)


def encode(headers: Sequence[Dataset], picture: NDArray[np.uint8], findings: Findings, context: Context) -> Dataset:
    """Return the page as an 8-bit RGB Secondary Capture image.

    Args:
        headers: the source images without pixel data; the first gives patient, study and order.
        picture: shape (row, column, RGB).
        findings: of these images.
        context: the result's circumstances.

    Raises:
        ValueError: the picture has another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"the picture must be uint8 of shape (row, column, 3), not {picture.dtype} {picture.shape}")
    first = headers[0]
    study_uid = str(first.StudyInstanceUID)
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uids.sop_instance(SUMMARY, study_uid, findings)
    image.SeriesInstanceUID = uids.series(SUMMARY, study_uid, findings)
    image.Modality = "OT"
    image.InstanceNumber = 1
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = "Summary page drawn from the analysis of the source images"
    image.SourceImageSequence = [_reference(header) for header in headers]
    image.BodyPartExamined = "CHEST"
    # Nothing on the page identifies the patient (PS3.3 C.7.6.1): the viewer shows the name from the header.
    image.BurnedInAnnotation = "NO"
    # Type 2C, and the page has no one orientation: each view on it is labelled.
    image.PatientOrientation = ""
    _set_pixels(image, picture)
    image.preamble = b"\0" * 128
    image.file_meta = file_meta(image)
    stamp.finish(image, SUMMARY, first, findings, context)
    return image


def _reference(header: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
    return reference


def _set_pixels(image: Dataset, picture: NDArray[np.uint8]) -> None:
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    pixels = np.ascontiguousarray(picture).tobytes()
    image.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))
