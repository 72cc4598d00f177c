"""What the node holds, as the entities of the query/retrieve information models (PS3.4 C.3, C.6).

Patients, studies, series and instances, from the catalogue and from the headers of the files; results stand beside the
images of their study. A header is read once, and kept for the next query as long as its file does not change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from dicomnode.network.matching import values
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import report_files, results_folder

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
#: The keys of each level that can be matched and returned: the required and unique ones, and what people look for.
KEYS: Final[dict[Level, tuple[str, ...]]] = {
    "PATIENT": ("PatientID", "PatientName", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    "STUDY": (
        "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
        "ReferringPhysicianName", "ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    ),
    "SERIES": (
        "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
        "BodyPartExamined", "NumberOfSeriesRelatedInstances",
    ),
    "IMAGE": (
        "SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ContentDate", "ContentTime", "ImageType", "Rows", "Columns",
        "NumberOfFrames",
    ),
}  # fmt: skip
LEVELS: Final[tuple[Level, ...]] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
_READ: Final = [Tag(keyword) for keywords in KEYS.values() for keyword in keywords] + [Tag("SpecificCharacterSet")]
#: About 13 kB each: the receiving process stays small.
_KEPT_HEADERS: Final = 4_000


@dataclass(frozen=True)
class Held:
    """One instance that the node holds, image or result."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    modality: str
    path: Path

    @property
    def header(self) -> Dataset:
        """What queries can ask for of it; empty where its file has gone."""
        return read_header(self.path)


class QueryHoldings:
    """Looks into one catalogue and, where there is one, the folder of the results."""

    def __init__(self, catalog: Catalog, results: Path | None) -> None:
        self._catalog, self._results = catalog, results

    def studies(self, study_uids: Sequence[str] = ()) -> Iterator[tuple[str, Dataset]]:
        """(UID, header of any image) of all studies, or of those named."""
        for study in self._catalog.held_studies(study_uids):
            path = self._catalog.sample(study.study_uid)
            if path is not None:
                yield study.study_uid, read_header(Path(path))

    def instances(self, study_uid: str) -> list[Held]:
        """Return a study's images, and the results that stand."""
        images = [
            Held(i.study_uid, i.series_uid, i.sop_class_uid, i.sop_instance_uid, i.modality, Path(i.path))
            for i in self._catalog.instances(study_uid)
        ]
        return [*images, *self._of_results(study_uid)]

    def _of_results(self, study_uid: str) -> Iterator[Held]:
        if self._results is None:
            return
        generation = self._catalog.standing_generation(study_uid)
        if generation is None:
            return
        for path in report_files(results_folder(self._results, study_uid, generation)):
            header = read_header(path)
            if header.get("SOPInstanceUID"):
                yield Held(
                    study_uid,
                    str(header.SeriesInstanceUID),
                    str(header.SOPClassUID),
                    str(header.SOPInstanceUID),
                    str(header.Modality),
                    path,
                )


def read_header(path: Path) -> Dataset:
    """Return the elements of `KEYS` in a file; none where it has gone or cannot be read."""
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except (OSError, InvalidDicomError):
        return Dataset()


@lru_cache(maxsize=_KEPT_HEADERS)
def _read_header(path: Path, _changed: int) -> Dataset:
    header = dcmread(path, specific_tags=_READ, stop_before_pixels=True)
    header.decode()  # here, and not in several threads at once
    return header


def patient_of(header: Dataset) -> tuple[str, ...]:
    """Return what makes two patients one: Patient ID and its issuer."""
    return tuple("".join(values(header, keyword)) for keyword in ("PatientID", "IssuerOfPatientID"))
