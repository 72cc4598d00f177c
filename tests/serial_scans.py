"""Serial scans of one synthetic person, small enough to be analysed in a second, with the truth of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom import phantom
from dicomnode.report.uids import derive
from tests.ct_files import ct_series, write

#: (z, y, x): the whole chest at 4 mm.
SHAPE, SPACING_MM = (78, 96, 96), (4.0, 3.8, 3.8)


@dataclass(frozen=True)
class Scan:
    """A scan on disk; volume and high-attenuation share as the phantom's own mask has them."""

    study_uid: str
    folder: Path
    volume_ml: float
    haa_percent: float


def scan(folder: Path, name: str, severity: float, date: str, **attributes: object) -> Scan:
    """Write the scan of that day of the person, whose disease has reached this severity (0 to 1)."""
    made = phantom.chest(
        int(date), shape=SHAPE, spacing_mm=SPACING_MM, disease=phantom.Disease.of_severity(severity), person=7
    )
    stored = (made.volume.hu.astype(np.int32) + 1024).clip(0, 4095).astype(np.int16)
    values: dict[str, object] = {
        "PixelSpacing": [str(SPACING_MM[1]), str(SPACING_MM[2])],
        "StudyInstanceUID": derive("serial study", name),
        "SeriesInstanceUID": derive("serial series", name),
        "FrameOfReferenceUID": derive("serial frame", name),
        "StudyDate": date,
        "StudyTime": "101500",
        "StudyID": "1",
        "StudyDescription": "CT thorax",
        "SeriesDescription": "Thorax 4.0",
        "BodyPartExamined": "CHEST",
        "PatientBirthDate": "19600102",
        "PatientSex": "F",
        **attributes,
    }
    images = ct_series(stored, step_mm=SPACING_MM[0], lowest_mm=made.volume.origin_mm, **values)
    for number, image in enumerate(images):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = derive("serial", name, str(number))
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    write(images, folder)
    truth = quantify.by_region(made.volume, made.labels)["lungs"]
    return Scan(str(values["StudyInstanceUID"]), folder, made.truth.right_ml + made.truth.left_ml, truth.haa_percent)
