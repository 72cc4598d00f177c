"""From an analysis to its row in the registry, and where wanted to a file with the lungs' voxels."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import ChosenSeries, Findings, Risk
from dicomnode.analysis.measures.change import studied_at
from dicomnode.analysis.pipeline import Analysis
from dicomnode.analysis.risk.predict import age_years
from dicomnode.analysis.risk.tabular import names_of
from dicomnode.analysis.series.headers import string
from dicomnode.registry.pseudonyms import Pseudonyms
from dicomnode.store.catalog.registry import RegistryRisk, RegistryScan

#: Stands outside the lungs: air, which no preprocessing looks at.
OUTSIDE_HU = -1024
#: What training takes: one header that is out of it must not make the whole registry unreadable.
_FIRST_DAY = date(1900, 1, 1)
_THICKNESS_MM = (0.01, 100.0)


def row(
    findings: Findings, header: Dataset, patient_hash: str, names: Pseudonyms, *, volume: str, now: float
) -> RegistryScan | None:
    """Return the registry's row of an analysed scan. None: the study has no usable date, so it has no place in time.

    Args:
        findings: of an analysed study.
        header: of any of its images.
        patient_hash: the catalogue's (`store.records.Instance`).
        names: the node's pseudonyms.
        volume: the file that `save_volume` wrote, or "".
        now: UTC seconds since 1970.
    """
    series, lungs = findings.series, findings.lungs
    if series is None or lungs is None:
        raise ValueError("a refused study has no row")
    patient = names.patient(patient_hash)
    day = _shifted(series, patient, names, now)
    if day is None:
        return None
    return RegistryScan(
        scan=names.scan(series.study_uid),
        patient=patient,
        date=day.isoformat(),
        age_years=age_years(findings, header),
        sex=_sex(header),
        manufacturer=series.manufacturer,
        model=series.manufacturer_model,
        kernel=series.kernel,
        kernel_family=series.kernel_family,
        slice_thickness_mm=_thickness_mm(series),
        spacing_z_mm=series.spacing_mm[0],
        segmenter=f"{lungs.segmenter} {lungs.segmenter_version}",
        software_version=findings.software_version,
        algorithm_digest=findings.algorithm_digest,
        doubts=" ".join(sorted({f.code for f in findings.flags if f.severity == "error"})),
        features=names_of(findings.quantities, {} if findings.radiomics is None else findings.radiomics.features),
        volume=volume,
        recorded_at=now,
    )


def risks(scan: RegistryScan, served: Risk | None, shadow: Risk | None, now: float) -> Iterator[RegistryRisk]:
    """Yield what the served bundle and the candidate beside it said of the scan."""
    for risk, is_served in ((served, True), (shadow, False)):
        if risk is not None:
            yield RegistryRisk(
                scan=scan.scan,
                bundle_sha256=risk.bundle_sha256,
                patient=scan.patient,
                bundle=risk.bundle,
                version=risk.version,
                served=is_served,
                risk={h.years: h.probability for h in risk.horizons},
                recorded_at=now,
            )


def _shifted(series: ChosenSeries, patient: str, names: Pseudonyms, now: float) -> date | None:
    """Return the study's date on the patient's calendar.

    None where it has none, one before 1900 or one still to come.
    """
    studied = studied_at(series)
    # A day of grace: the scanner's clock is in its own time zone.
    tomorrow = datetime.fromtimestamp(now, UTC).date() + timedelta(days=1)
    if studied is None or not _FIRST_DAY <= studied.date() <= tomorrow:
        return None
    return names.shifted(studied.date(), patient)


def _thickness_mm(series: ChosenSeries) -> float | None:
    low, high = _THICKNESS_MM
    stated = series.slice_thickness_mm
    return stated if stated is not None and low <= stated <= high else None


def _sex(header: Dataset) -> str:
    sex = string(header, "PatientSex").strip().upper()
    return sex if sex in ("F", "M", "O") else ""


def lungs_alone(volume: Volume, labels: Labels) -> tuple[NDArray[np.int16], Labels, tuple[float, float, float]]:
    """Return the box around the lungs, `OUTSIDE_HU` outside of them: nothing of face or body is kept.

    Returns:
        Hounsfield units and labels of the box, (z, y, x), and the box's origin in the patient (x, y, z), mm.
    """
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    inside = labels[box]
    hu = np.where(inside > 0, volume.hu[box], np.int16(OUTSIDE_HU))
    steps = np.array([b.start for b in box]) * volume.spacing_mm
    x, y, z = np.array(volume.origin_mm) + steps @ np.array(volume.axes)
    return hu, inside, (float(x), float(y), float(z))


def save_volume(analysis: Analysis, path: Path) -> None:
    """Write the lungs' voxels of an analysed study, whole or not at all: `hu`, `labels`, `spacing_mm`, `origin_mm`."""
    if analysis.volume is None or analysis.labels is None:
        raise ValueError("a refused study has no volume")
    hu, labels, origin_mm = lungs_alone(analysis.volume, analysis.labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            hu=hu,
            labels=labels,
            spacing_mm=np.array(analysis.volume.spacing_mm),
            origin_mm=np.array(origin_mm),
        )
    temporary.replace(path)
