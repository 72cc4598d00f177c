"""A scan's row, and how it follows from an analysis: the same for received images and for files."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta

from pydicom import Dataset

from dicomnode.analysis.findings import ChosenSeries, Findings
from dicomnode.analysis.measures.change import studied_at
from dicomnode.analysis.risk.predict import age_years
from dicomnode.analysis.risk.scan_inputs import read_mm
from dicomnode.analysis.risk.tabular import names_of
from dicomnode.analysis.series.headers import string
from dicomnode.registry_format.pseudonyms import Pseudonyms

#: Dates before are typing errors: no CT is older, and nobody who has one was last seen before.
FIRST_DAY = date(1900, 1, 1)
OUTCOME_COLUMNS = ("patient", "death_date", "last_contact_date", "transplant_date")


@dataclass(frozen=True)
class ScanRow:
    """A row of scans.csv; what is not known is None or "".

    Attributes:
        patient, scan: pseudonyms.
        date: of the study, ISO, on the patient's shifted calendar.
        age_years: at the study; 90 stands for everybody older.
        sex: F, M, O or "".
        spacing_z_mm: between the slices of the volume.
        segmenter: name and version.
        algorithm_digest: SHA-256 of the method (`analysis.pipeline.Method.digest`).
        volume: path below the registry, "" where none is kept.
    """

    patient: str
    scan: str
    date: str
    age_years: float | None
    sex: str
    manufacturer: str
    model: str
    kernel: str
    kernel_family: str
    slice_thickness_mm: float | None
    spacing_z_mm: float
    segmenter: str
    software_version: str
    algorithm_digest: str
    volume: str


SCAN_COLUMNS = tuple(f.name for f in fields(ScanRow))


def scan_row(
    findings: Findings, header: Dataset, patient_hash: str, names: Pseudonyms, *, volume: str, today: date
) -> ScanRow | None:
    """Make the row of an analysed study.

    Args:
        findings: of an analysed study.
        header: of any of its images.
        patient_hash: whose it is (`identity.one_patient`).
        names: the registry's pseudonyms.
        volume: the path that goes into the row.
        today: in UTC.

    Returns:
        None where the study has no usable date, and so no place in time.
    """
    series, lungs = findings.series, findings.lungs
    if series is None or lungs is None:
        raise ValueError("a refused study has no row")
    day = study_day(series, today)
    if day is None:
        return None
    patient = names.patient(patient_hash)
    return ScanRow(
        patient=patient,
        scan=names.scan(series.study_uid),
        date=names.shifted(day, patient).isoformat(),
        age_years=age_years(findings, header),
        sex=_sex(header),
        manufacturer=series.manufacturer,
        model=series.manufacturer_model,
        kernel=series.kernel,
        kernel_family=series.kernel_family,
        slice_thickness_mm=read_mm(series.slice_thickness_mm),
        spacing_z_mm=series.spacing_mm[0],
        segmenter=f"{lungs.segmenter} {lungs.segmenter_version}",
        software_version=findings.software_version,
        algorithm_digest=findings.algorithm_digest,
        volume=volume,
    )


def measured(findings: Findings) -> Mapping[str, float]:
    """List what was measured of a scan, by the names of features.parquet."""
    return names_of(findings.quantities, {} if findings.radiomics is None else findings.radiomics.features)


def study_day(series: ChosenSeries, today: date) -> date | None:
    """Give the study's date; None where it has none, one before 1900 or one still to come.

    Tomorrow is let pass: the scanner's clock is in its own time zone.
    """
    studied = studied_at(series)
    if studied is None or not FIRST_DAY <= studied.date() <= today + timedelta(days=1):
        return None
    return studied.date()


def _sex(header: Dataset) -> str:
    sex = string(header, "PatientSex").strip().upper()
    return sex if sex in ("F", "M", "O") else ""
