"""Serial scans of one synthetic patient, with a known progression."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.analysis.phantom import phantom
from tests.ct_files import ct_series, write

_SHAPE, _SPACING_MM = (110, 160, 160), (3.0, 2.3, 2.3)


@dataclass(frozen=True)
class Scan:
    """A scan in a folder, and what is in it: both lungs' volume, HAA and mean attenuation by the phantom's labels."""

    folder: Path
    study_uid: str
    volume_ml: float
    haa_percent: float
    mean_hu: float


def scan(
    folder: Path, study_date: str, severity: float, *, seed: int, issuer: str = "HOSPITAL", person: int = 3
) -> Scan:
    """Write a scan of the patient "FOLLOW-1"; the same person has the same anatomy, another seed other noise."""
    made = phantom.chest(
        seed, shape=_SHAPE, spacing_mm=_SPACING_MM, disease=phantom.Disease.of_severity(severity), person=person
    )
    dz, dy, dx = _SPACING_MM
    images = ct_series(
        made.volume.hu + 1024,
        step_mm=dz,
        lowest_mm=made.volume.origin_mm,
        PixelSpacing=[str(dy), str(dx)],
        BodyPartExamined="CHEST",
        StudyDate=study_date,
        StudyTime="101500",
        PatientID="FOLLOW-1",
        IssuerOfPatientID=issuer,
        PatientBirthDate="19600101",
        PatientSex="F",
        AccessionNumber=f"A{study_date}",
        StudyID="1",
        ReferringPhysicianName="",
        SeriesNumber=2,
        ManufacturerModelName="phantom",
        PositionReferenceIndicator="",
    )
    write(images, folder)
    hu = made.volume.hu[made.labels > 0]
    return Scan(
        folder,
        str(images[0].StudyInstanceUID),
        made.truth.right_ml + made.truth.left_ml,
        100.0 * float(np.mean((hu >= -600) & (hu <= -250))),
        float(hu.mean()),
    )
