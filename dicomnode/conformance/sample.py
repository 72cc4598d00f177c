"""A small study and its findings, from which the objects of the statement are encoded: in memory, nobody's data.

Each variant differs in one thing (`VARIANTS`). What changes in an object with it has its value from there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

from dicomnode.analysis.arrays import LOBES, Labels
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.measures.attenuation import AREAS
from dicomnode.conformance import sample_findings
from dicomnode.report.attributes import CARRIED
from dicomnode.report.context import Context
from dicomnode.results import encode

_SLICES, _ROWS, _COLUMNS = 4, 12, 16
_CLASSES: Final = (CTImageStorage, PositronEmissionTomographyImageStorage)
_STUDY, _SERIES, _FRAME = "1.2.3", "1.2.3.4", "1.2.3.5"
#: 1 January 2026, 12:00 UTC, in seconds since 1970.
_MADE_AT: Final = 1_767_268_800.0
#: Values of the source's attributes by VR; a variant has the second one.
_VALUES: Final[Mapping[str, tuple[object, object]]] = {
    "AS": ("066Y", "067Y"),
    "CS": ("YES", "NO"),
    "DA": ("20260101", "20260102"),
    "DS": ("1.5", "2.5"),
    "DT": ("20260101101112", "20260102101112"),
    "FD": (1.5, 2.5),
    "TM": ("101112", "111213"),
    "UI": ("1.2.3.6", "1.2.3.7"),
    "US": (1, 2),
}
_SPECIAL: Final[Mapping[str, tuple[object, object]]] = {
    "SpecificCharacterSet": ("ISO_IR 192", "ISO_IR 100"),
    "TimezoneOffsetFromUTC": ("+0100", "+0200"),
    "PatientSex": ("F", "M"),
    "StudyInstanceUID": (_STUDY, "1.2.4"),
    "SmokingStatus": ("NO", "YES"),
    "TypeOfPatientID": ("TEXT", "RFID"),
}


@dataclass(frozen=True)
class Sample:
    """What the encoders are given.

    Attributes:
        headers: the source images without pixels.
        findings, refused: of them, analysed and refused.
        context: as the node makes it for a result.
        labels, lobes, areas: (frame, row, column), 1 right and 2 left lung, lobes numbered as in `arrays.LOBES`,
            areas by attenuation as in `attenuation.AREAS`.
        at: when a step began or ended, UTC seconds.
        ae_title: of this node.
        step_uid, transaction_uid: UIDs that the node draws.
    """

    headers: tuple[Dataset, ...]
    findings: Findings
    refused: Findings
    context: Context
    labels: Labels
    lobes: NDArray[np.uint8] | None
    areas: NDArray[np.uint8]
    at: float = _MADE_AT
    ae_title: str = "DICOMNODE"
    step_uid: str = "2.25.1"
    transaction_uid: str = "2.25.2"


@dataclass(frozen=True)
class Variant:
    """One change of the sample, and what of an object it stands for. `of_sparse`: of the sparse one."""

    name: str
    change: Callable[[Sample], Sample] = field(repr=False)
    of_sparse: bool = False


def complete(*, parts: bool = True) -> Sample:
    """Return a sample in which nothing lacks: every attribute that is taken over, every finding.

    Without `parts` it has no lobes, thirds and the like: the groups of a report take most of the time.
    """
    return _sample(0, sample_findings.complete(parts=parts))


def terse(*, parts: bool = True) -> Sample:
    """Return the complete sample with images that name their order by its ID alone."""
    sample = complete(parts=parts)
    request = Dataset()
    request.RequestedProcedureID = "RP"
    for header in sample.headers:
        header.RequestAttributesSequence = [request]
        header.AccessionNumber = ""
    return replace(sample, headers=tuple(map(read_again, sample.headers)))


def sparse() -> Sample:
    """Return a sample whose images hold what type 1 demands, and whose findings hold the least of an analysis."""
    sample = _sample(None, sample_findings.least())
    refused = sample_findings.refused_at_least()
    return replace(sample, lobes=None, refused=refused, context=replace(sample.context, station_name=""))


def _sample(which: int | None, findings: Findings) -> Sample:
    context = encode.context(_MADE_AT, "DICOMNODE")
    return Sample(_headers(which), findings, sample_findings.refused(), context, _labels(0), _lobes(0), _areas(0))


def _another_source(sample: Sample) -> Sample:
    context = replace(sample.context, highest_series_number=9500)
    return replace(sample, headers=_headers(1), labels=_labels(1), lobes=_lobes(1), areas=_areas(1), context=context)


def _another_analysis(sample: Sample) -> Sample:
    found, refused = sample_findings.other(sample.findings), sample_findings.refused(1)
    labels, areas = (np.roll(array, 1, axis=2) for array in (sample.labels, sample.areas))
    return replace(sample, findings=found, refused=refused, labels=labels, areas=areas)


def _with_order(sample: Sample) -> Sample:
    return replace(sample, context=replace(sample.context, order=_order("ORDER-2", "RP-2")))


def _later(sample: Sample) -> Sample:
    created = sample.context.created + timedelta(days=1, seconds=3661.5)
    return replace(sample, context=replace(sample.context, created=created), at=sample.at + 90_061)


def _configured(sample: Sample) -> Sample:
    context = replace(sample.context, device_serial="OTHER", station_name="OTHER", institution="OTHER")
    return replace(sample, context=context, ae_title="OTHER")


def _released(sample: Sample) -> Sample:
    context = replace(sample.context, software_version="0.0.0")
    return replace(sample, context=context, findings=replace(sample.findings, software_version="0.0.0"))


def _replacing(sample: Sample) -> Sample:
    earlier = replace(sample.findings, input_digest="99" * 32)
    return replace(sample, context=replace(sample.context, previous=earlier, version=2))


SOURCE, ORDER, ANALYSIS, CONFIGURATION, TIME, RELEASE, VERSION, DRAWN = (
    "source image", "order", "analysis", "configuration", "time", "release", "earlier results", "generated",
)  # fmt: skip
VARIANTS: Final = (
    Variant(SOURCE, _another_source),
    Variant(ORDER, _with_order, of_sparse=True),
    Variant(ANALYSIS, _another_analysis),
    Variant(CONFIGURATION, _configured),
    Variant(TIME, _later),
    Variant(RELEASE, _released),
    Variant(VERSION, _replacing),
    Variant(DRAWN, lambda s: replace(s, step_uid="2.25.3", transaction_uid="2.25.4")),
)


def _headers(which: int | None) -> tuple[Dataset, ...]:
    return tuple(read_again(_header(k, which)) for k in range(_SLICES + (which or 0)))


def _header(k: int, which: int | None) -> Dataset:
    """Return one CT image without pixels. `which` of the values; None: without what may lack."""
    made = Dataset()
    shift = which or 0
    made.SOPClassUID, made.SOPInstanceUID = _CLASSES[shift], f"{_SERIES}.{k + 1 + 10 * shift}"
    made.StudyInstanceUID = _SPECIAL["StudyInstanceUID"][shift]
    made.SeriesInstanceUID, made.FrameOfReferenceUID = f"{_SERIES}{shift or ''}", f"{_FRAME}{shift or ''}"
    made.Modality, made.Rows, made.Columns = "CT", _ROWS + shift, _COLUMNS + shift
    made.PixelSpacing = [str(2.0 + shift)] * 2
    made.ImageOrientationPatient = ["1", "0", "0", "0", "-1" if shift else "1", "0"]
    made.ImagePositionPatient = [str(-20 - shift), "-20", str(4 * k)]
    if which is None:
        return made
    made.SliceThickness = str(1.0 + which)
    for keyword in CARRIED:
        if keyword != "StudyInstanceUID":
            setattr(made, keyword, _value(keyword, which))
    made.RequestAttributesSequence = [_request(f"ORDER-{which}", f"RP-{which}")]
    return made


def _value(keyword: str, which: int) -> object:
    if keyword in _SPECIAL:
        return _SPECIAL[keyword][which]
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag)
    if vr == "SQ":
        return [_code(f"C{which}")]
    return _VALUES[vr][which] if vr in _VALUES else f"VALUE {which}"


def _code(value: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, f"99{value}", f"Local code {value}"
    return code


def _request(accession: str, procedure: str) -> Dataset:
    """Return an item of Request Attributes Sequence."""
    order = Dataset()
    order.AccessionNumber, order.RequestedProcedureID = accession, procedure
    order.RequestedProcedureDescription, order.ScheduledProcedureStepID = f"CT {procedure}", f"SPS {procedure}"
    order.RequestedProcedureCodeSequence = [_code(procedure)]
    return order


def _order(accession: str, procedure: str) -> Dataset:
    """Return the worklist's item of the study."""
    order = _request(accession, procedure)
    order.PlacerOrderNumberImagingServiceRequest = f"P {procedure}"
    order.FillerOrderNumberImagingServiceRequest = f"F {procedure}"
    return order


def read_again(dataset: Dataset) -> Dataset:
    """Return the data set as its receiver reads it, its elements not yet decoded."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    dcmwrite(content, dataset)
    return dcmread(BytesIO(content.getvalue()), force=True)


def _labels(larger: int) -> Labels:
    labels = np.zeros((_SLICES + larger, _ROWS + larger, _COLUMNS + larger), np.uint8)
    labels[1:, 2:9, 1:6] = 1
    labels[1:, 3:10, 9:14] = 2
    return labels


def _areas(larger: int) -> NDArray[np.uint8]:
    labels = _labels(larger)
    areas = np.zeros_like(labels)
    for lung, name in ((1, "right"), (2, "left")):
        inside = np.cumsum(labels == lung, axis=2) * (labels == lung)  # columns of the lung, counted from its edge
        areas[inside == 1], areas[inside == 2] = AREAS[f"{name}_high"], AREAS[f"{name}_low"]
    return areas


def _lobes(larger: int) -> NDArray[np.uint8]:
    lobes = np.zeros((_SLICES + larger, _ROWS + larger, _COLUMNS + larger), np.uint8)
    for number, name in enumerate(("right_upper_lobe", "right_middle_lobe", "right_lower_lobe"), start=1):
        lobes[number, 2:9, 1:6] = LOBES[name]
    lobes[1:3, 3:10, 9:14], lobes[3, 3:10, 9:14] = LOBES["left_upper_lobe"], LOBES["left_lower_lobe"]
    return lobes
