"""Tiny studies for the fault tests: the 64 x 64 chest CT of the test data under new UIDs, so that many can arrive."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from dicomnode.report.uids import derive


def study_uid(name: str) -> str:
    """The UID of the study that `make_study` gives this name."""
    return derive("test study", name)


def make_study(source: Path, folder: Path, name: str, every: int = 1) -> list[Path]:
    """Write the study called `name`, of every so many slices (of 79); the files in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    datasets = [pydicom.dcmread(path) for path in sorted(source.glob("*.dcm"))]
    written = []
    for number, dataset in enumerate(sorted(datasets, key=lambda d: float(d.ImagePositionPatient[2]))[::every]):
        dataset.StudyInstanceUID = study_uid(name)
        dataset.SeriesInstanceUID = derive("test series", name)
        dataset.FrameOfReferenceUID = derive("test frame of reference", name)
        dataset.PatientID = f"TEST-{name}"
        written.append(write(dataset, folder / f"{number:03}.dcm", derive("test instance", name, str(number))))
    return written


def write(dataset: Dataset, path: Path, sop_instance_uid: str) -> Path:
    """Write `dataset` as another instance."""
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_instance_uid
    dataset.save_as(path)
    return path


def localizer(source: Path, path: Path, name: str) -> Path:
    """One more image of the study, in a series of its own that no analysis chooses."""
    dataset = pydicom.dcmread(source)
    dataset.SeriesInstanceUID = derive("test localizer series", name)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return write(dataset, path, derive("test localizer", name))
