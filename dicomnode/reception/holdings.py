"""What the node holds, as the entities of the query/retrieve information models (PS3.4 C.3, C.6).

Patients, studies, series and instances, from the catalogue and from the headers of the files; results stand beside the
images of their study. A header is read once, and kept for the next query as long as its file does not change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.logs import is_uid
from dicomnode.network.matching import values
from dicomnode.reception.held_header import read_elements
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
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
_READ: Final = frozenset(Tag(keyword) for keywords in KEYS.values() for keyword in keywords)
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
    size: int | None = None  # bytes, where it was recorded

    @property
    def header(self) -> Dataset:
        """What queries can ask for of it; where its file cannot be read, what the catalogue knows."""
        known = Dataset()
        known.Modality = self.modality if is_code(self.modality) else ""
        return _named(
            known,
            read_header(self.path),
            StudyInstanceUID=self.study_uid,
            SeriesInstanceUID=self.series_uid,
            SOPClassUID=self.sop_class_uid,
            SOPInstanceUID=self.sop_instance_uid,
        )

    @property
    def can_be_sent(self) -> bool:
        """Whether a peer could be told its name; what older versions took may have none."""
        return is_uid(self.sop_class_uid) and is_uid(self.sop_instance_uid)


class QueryHoldings:
    """Looks into one catalogue and, where there is one, the folder of the results."""

    def __init__(self, catalog: Catalog, results: Path | None) -> None:
        self._catalog, self._results = catalog, results

    def studies(self, study_uids: Sequence[str] = ()) -> Iterator[tuple[str, Dataset]]:
        """(UID, header of any image) of all studies, or of those named."""
        for study in self._catalog.held_studies(study_uids):
            path = self._catalog.sample(study.study_uid)
            if path is not None:
                yield study.study_uid, _named(Dataset(), read_header(Path(path)), StudyInstanceUID=study.study_uid)

    def instances(self, study_uid: str) -> list[Held]:
        """Return a study's images, and the results that stand."""
        return [*map(of_image, self._catalog.instances(study_uid)), *self._of_results(study_uid)]

    def _of_results(self, study_uid: str) -> Iterator[Held]:
        if self._results is None:
            return
        generation = self._catalog.standing_generation(study_uid)
        if generation is not None:
            yield from of_results(self._results, study_uid, generation)


def of_image(one: Instance) -> Held:
    """Return a received image as what it is for queries."""
    path = Path(one.path)
    return Held(one.study_uid, one.series_uid, one.sop_class_uid, one.sop_instance_uid, one.modality, path, one.size)


def of_results(results: Path, study_uid: str, generation: int) -> Iterator[Held]:
    """Yield the results of one generation of a study; `results`: the folder of all."""
    for path in report_files(results_folder(results, study_uid, generation)):
        header = read_header(path)
        names = [header.get(keyword) for keyword in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")]
        if all(names):
            series, sop_class, instance = map(str, names)
            yield Held(study_uid, series, sop_class, instance, str(header.get("Modality") or ""), path)


def read_header(path: Path) -> Dataset:
    """Return the elements of `KEYS` in a file; none where it has gone or cannot be read."""
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except OSError:
        return Dataset()


@lru_cache(maxsize=_KEPT_HEADERS)
def _read_header(path: Path, _changed: int) -> Dataset:
    return read_elements(path, _READ)


def _named(known: Dataset, header: Dataset, **uids: str) -> Dataset:
    """Return a header that has these UIDs, as far as they are any."""
    known.update(header)
    for keyword, uid in uids.items():
        if keyword not in known and is_uid(uid):
            setattr(known, keyword, uid)
    return known


def is_code(text: str) -> bool:
    """Say whether this is a value of VR CS (PS3.5 6.2)."""
    return len(text) <= 16 and all("A" <= c <= "Z" or c in "0123456789_ " for c in text)


def patient_of(header: Dataset) -> tuple[str, ...]:
    """Return what makes two patients one: Patient ID and its issuer."""
    return tuple("".join(values(header, keyword)) for keyword in ("PatientID", "IssuerOfPatientID"))
