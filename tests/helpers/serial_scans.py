"""Serial scans of one synthetic person, small enough to be analysed in a second, with the truth of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom import phantom
from dicomnode.report.uids import derive
from tests.helpers.ct_files import ct_series, write


@dataclass(frozen=True)
class Grid:
    """(z, y, x) of the whole chest."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


COARSE, FINE = Grid((78, 96, 96), (4.0, 3.8, 3.8)), Grid((110, 160, 160), (3.0, 2.3, 2.3))


@dataclass(frozen=True)
class Scan:
    """A scan on disk; both lungs' volume, high-attenuation share and mean as the phantom's own mask has them."""

    study_uid: str
    folder: Path
    volume_ml: float
    haa_percent: float
    mean_hu: float


def scan(
    folder: Path,
    name: str,
    severity: float,
    date: str,
    *,
    grid: Grid = COARSE,
    seed: int | None = None,
    person: int = 7,
    **attributes: object,
) -> Scan:
    """Write the scan of that day of the person, whose disease has reached this severity (0 to 1).

    The same person has the same anatomy, another seed (else: the date) other noise; `name` makes the UIDs.
    """
    made = phantom.chest(
        int(date) if seed is None else seed,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        disease=phantom.Disease.of_severity(severity),
        person=person,
    )
    stored = (made.volume.hu.astype(np.int32) + 1024).clip(0, 4095).astype(np.int16)
    dz, dy, dx = grid.spacing_mm
    values: dict[str, object] = {
        "PixelSpacing": [str(dy), str(dx)],
        "StudyInstanceUID": derive("serial study", name),
        "SeriesInstanceUID": derive("serial series", name),
        "FrameOfReferenceUID": derive("serial frame", name),
        "StudyDate": date,
        "StudyTime": "101500",
        "StudyID": "1",
        "StudyDescription": "CT thorax",
        "SeriesDescription": f"Thorax {dz}",
        "BodyPartExamined": "CHEST",
        "PatientBirthDate": "19600102",
        "PatientSex": "F",
        **attributes,
    }
    images = ct_series(stored, step_mm=dz, lowest_mm=made.volume.origin_mm, **values)
    for number, image in enumerate(images):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = derive("serial", name, str(number))
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    write(images, folder)
    truth = quantify.by_region(made.volume, made.labels)["lungs"]
    return Scan(
        str(values["StudyInstanceUID"]),
        folder,
        made.truth.right_ml + made.truth.left_ml,
        truth.haa_percent,
        float(made.volume.hu[made.labels > 0].mean()),
    )
