"""Inputs that the tests of the reports share: source headers, labels by thresholding, findings with round numbers."""

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.analysis.findings import (
    ArmExplanation,
    Change,
    ChosenSeries,
    Contribution,
    Delta,
    Findings,
    Flag,
    HeatMap,
    Horizon,
    IntendedUse,
    Lungs,
    Quantities,
    Radiomics,
    Reason,
    RejectedSeries,
    Risk,
    RiskExplanation,
    SegmenterFamily,
    TrendPoint,
    VolumeMl,
)
from dicomnode.report import codes
from dicomnode.report.context import Context

CONTEXT = Context(
    created=datetime(2026, 1, 2, 10, 11, 12, tzinfo=UTC),
    software_version="0.1.0",
    device_serial="node-0001",
    station_name="LUNGNODE",
)


def quantities(shift: float = 0.0) -> Quantities:
    return Quantities(
        mean_hu=-800.0 + shift,
        sd_hu=150.0,
        skewness=2.0,
        kurtosis=5.0,
        p05_hu=-960.0 + shift,
        p15_hu=-930.0 + shift,
        p50_hu=-850.0 + shift,
        p85_hu=-700.0 + shift,
        p95_hu=-400.0 + shift,
        haa_percent=12.5,
        laa950_percent=3.25,
        dense_percent=1.75,
    )


def risk(intended_use: IntendedUse = "synthetic-demo") -> Risk:
    return Risk(
        bundle="example-bundle",
        bundle_sha256="ab" * 32,
        intended_use=intended_use,
        horizons=(Horizon(1, 0.1, 0.05, 0.2), Horizon(3, 0.2, 0.1, 0.4), Horizon(5, 0.3, 0.15, 0.6)),
        version="1.2.3",
        interval="Spread of 5 models, not the certainty of the risk",
    )


def explanation() -> RiskExplanation:
    """Of a linear arm, one of networks, one that is not told, and one without a say."""
    added = {"covariates.age_years": (71.0, "years", 0.4), "quantities.lower_third_rim.haa_percent": (12.5, "%", 0.3),
             "covariates.fvc_l": (None, "l", -0.2), "change.haa_percent": (1.5, "%/year", 0.1),
             "radiomics.lungs.original_glcm_Idm": (0.123, "", -0.05)}  # fmt: skip
    told = tuple(Contribution(name, *one) for name, one in added.items())
    heat = HeatMap(38.0, 5, 8, 0.23, ((0.0, 0.0, 1.0), (0.0, 0.2, 0.4)), (48.0, 72.0))
    return RiskExplanation(
        5,
        (
            ArmExplanation("radiomics", 0.5, 5, 5, 0.57, told, 12, 0.02),
            ArmExplanation("resnet18", 0.3, 5, 5, heat=heat),
            ArmExplanation("clinical", 0.2, 5, 0, not_explained="Not explained: boosted trees, not linear."),
            ArmExplanation("volume", 0.0, 5, 5, 0.1, told[:1], 0, 0.0),
        ),
    )


def explained() -> Risk:
    return replace(risk("research"), explanation=explanation())


def analysed(
    series_uid: str = "1.2.3.4",
    study_uid: str = "1.2.3",
    slices: int = 6,
    spacing_mm: tuple[float, float, float] = (4.0, 2.0, 2.0),
    segmenter: str = "classical",
    predicted: Risk | None = None,
    change: Change | None = None,
    trend: tuple[TrendPoint, ...] = (),
    family: SegmenterFamily = "morphology",
) -> Findings:
    return Findings(
        status="analysed",
        series=ChosenSeries(
            study_uid, series_uid, slices, spacing_mm, "B60f", "the thinnest complete axial series", "", "20260101"
        ),
        flags=(
            Flag("thick", "warning", "slices are 4.0 mm apart, more than 1.5 mm"),
            Flag("contrast", "info", "no contrast agent was recorded"),
        ),
        lungs=Lungs(segmenter, "1", VolumeMl(4321.0, 2000.0, 2321.0), family, VolumeMl(12.0, 5.0, 7.0)),
        quantities={
            **{"lungs": quantities(), "right": quantities(5.0), "left": quantities(-5.0)},
            **{region: quantities(float(k)) for k, region in enumerate(codes.REGIONS)},
        },
        radiomics=Radiomics({}, {"lungs": {"original_firstorder_Mean": -800.0}}),
        risk=predicted,
        software_version="0.1.0",
        input_digest="12" * 32,
        algorithm_digest="34" * 32,
        change=change,
        trend=trend,
    )


def changed(days: float = 365.25) -> Change:
    names = ("volume_ml", "haa_percent", "laa950_percent", "mean_hu", "lower_third_rim.haa_percent")
    return Change(
        prior_study_uid="1.2.1",
        prior_series_uid="1.2.1.1",
        prior_study_date="20250101",
        interval_days=days,
        measures={name: Delta(10.0, 12.5, 2.5, 25.0, 2.5 if days >= 90 else None) for name in names},
        flags=(Flag("change-scanner", "warning", "Different scanner: was A, now B."),),
        prior_input_digest="56" * 32,
        prior_algorithm_digest="34" * 32,
    )


def scanned_before(count: int, last_days: float = 365.25) -> tuple[TrendPoint, ...]:
    """Scans a year apart, the last one `last_days` before; the first came from another scanner."""
    return tuple(
        TrendPoint(
            study_uid=f"1.2.{k}",
            series_uid=f"1.2.{k}.1",
            study_date=f"{2025 - count + k}0101",
            days_before=last_days + 365.25 * (count - k),
            volume_ml=5200.0 - 240.0 * k,
            haa_percent=4.0 + 2.5 * k,
            mean_hu=-845.0 + 12.0 * k,
            horizons=tuple(replace(h, probability=h.probability * (0.4 + 0.1 * k)) for h in risk().horizons),
            bundle_sha256=risk().bundle_sha256,
            doubts=("change-scanner",) if k == 1 else (),
            version=(f"{k}6" * 32, "34" * 32, "0.1.0", ""),
        )
        for k in range(1, count + 1)
    )


def refused() -> Findings:
    return Findings(
        status="refused",
        rejected=(
            RejectedSeries("1.2.3.9", "", 2, (Reason("no-modality", "the images state no modality"),)),
            RejectedSeries("1.2.3.8", "SR", 1, ()),
        ),
        software_version="0.1.0",
        algorithm_digest="34" * 32,
    )


def synthetic(slices: int = 6, rows: int = 32, columns: int = 48) -> list[Dataset]:
    """A CT series with an order, in UTF-8 and Explicit VR, as it is read from files."""
    headers = []
    for k in range(slices):
        d = Dataset()
        d.SpecificCharacterSet = "ISO_IR 192"
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, f"1.2.3.4.{k + 1}"
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        d.StudyDate, d.StudyTime, d.AccessionNumber, d.StudyID = "20260101", "101112", "ACC0001", "77"
        d.Modality, d.Manufacturer = "CT", "Hersteller GmbH & Söhne"
        d.PatientName, d.PatientID, d.IssuerOfPatientID = "Müller^Änne", "PAT-0001", "HOSPITAL"
        d.PatientBirthDate, d.PatientSex, d.PatientAge = "19600101", "F", "066Y"
        d.ReferringPhysicianName, d.StudyDescription = "Überweiser^Ö", "CT Thorax für SSc"
        d.SeriesNumber, d.InstanceNumber, d.PatientPosition, d.PositionReferenceIndicator = 4, k + 1, "HFS", ""
        d.SliceThickness, d.PixelSpacing = "1.0", ["2.0", "2.0"]
        d.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        d.ImagePositionPatient = ["-48", "-32", str(4 * k)]
        d.Rows, d.Columns = rows, columns
        d.RequestAttributesSequence = [_order()]
        d.ProcedureCodeSequence = [_local_procedure()]
        headers.append(d)
    return [reread(d) for d in headers]


def _order() -> Dataset:
    order = Dataset()
    order.AccessionNumber, order.RequestedProcedureID = "ACC0001", "RP-1"
    order.RequestedProcedureDescription = "CT Thorax hochauflösend"
    order.ScheduledProcedureStepID = "SPS-1"
    order.ReferencedStudySequence = []
    return order


def _local_procedure() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTTHX", "99KLINIK", "CT Thorax für SSc"
    return code


def to_bytes(dataset: Dataset) -> bytes:
    """The dataset as a file (a dataset made by hand gets its file meta group here)."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(to_bytes(dataset)))


def reread_as_implicit(header: Dataset) -> Dataset:
    """The header as it is read from an Implicit VR file with the same bytes in its text elements."""
    for tag in list(header.keys()):
        if header.get_item(tag).VR == "SQ":
            header[tag]  # parses the sequence: its raw bytes would be explicit VR
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    header.set_original_encoding(True, True)
    return reread(header)


def boxes(slices: int = 6, rows: int = 32, columns: int = 48) -> NDArray[np.uint8]:
    """Labels with a right and a left box that differ in every direction, and empty frames at both ends."""
    labels = np.zeros((slices, rows, columns), np.uint8)
    labels[1:-1, 5:20, 4:18] = 1
    labels[2:-1, 8:26, 25:40] = 2
    return labels


def read_series(folder: Path) -> tuple[list[Dataset], NDArray[np.int16]]:
    """Headers (untouched, without pixels) and HU of an axial series, by position from feet to head."""
    images = sorted(
        (pydicom.dcmread(path) for path in folder.iterdir() if path.suffix == ".dcm" or path.is_symlink()),
        key=lambda d: float(d.ImagePositionPatient[2]),
    )
    hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in images])
    paths = [d.filename for d in images]
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths], hu.astype(np.int16)


def threshold_lungs(hu: NDArray[np.int16], x_to_left: bool = True) -> NDArray[np.uint8]:
    """Air within the body, split at the middle column into right and left: crude, real in shape, and not ours."""
    air = sitk.GetImageFromArray((hu < -400).astype(np.uint8))
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(air))
    faces = [components[:, 0], components[:, -1], components[:, :, 0], components[:, :, -1]]
    outside = np.unique(np.concatenate([face.ravel() for face in faces]))
    inside = np.where(np.isin(components, outside), 0, components)
    counts = np.bincount(inside.ravel())
    counts[0] = 0
    lungs = np.isin(inside, np.flatnonzero(counts > 0.05 * counts.max()))
    middle = int(np.median(np.flatnonzero(lungs.any(axis=(0, 1)))))
    labels = np.zeros(hu.shape, np.uint8)
    first, second = (1, 2) if x_to_left else (2, 1)
    labels[:, :, :middle][lungs[:, :, :middle]] = first
    labels[:, :, middle:][lungs[:, :, middle:]] = second
    return labels


def findings_of(headers: Sequence[Dataset], **changes: object) -> Findings:
    """The findings with the identity and spacing of these headers."""
    z = [float(d.ImagePositionPatient[2]) for d in headers]
    y, x = (float(v) for v in headers[0].PixelSpacing)
    return analysed(
        str(headers[0].SeriesInstanceUID),
        str(headers[0].StudyInstanceUID),
        len(headers),
        (round((z[-1] - z[0]) / (len(z) - 1), 6), y, x),
        **changes,  # type: ignore[arg-type]
    )
