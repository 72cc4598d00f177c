"""The query/retrieve information models (PS3.4 C.6): which entities an identifier asks for, and the answers."""

from collections.abc import Iterator
from typing import Literal

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomnode.network.matching import matches, values
from dicomnode.reception.holdings import KEYS, LEVELS, Held, Level, QueryHoldings, is_code, patient_of

Root = Literal["patient", "study"]
#: Find, move, get (PS3.4 C.6.1.3 and C.6.2.3).
PATIENT_ROOT = tuple(UID(f"1.2.840.10008.5.1.4.1.2.1.{n}") for n in (1, 2, 3))
STUDY_ROOT = tuple(UID(f"1.2.840.10008.5.1.4.1.2.2.{n}") for n in (1, 2, 3))
UNIQUE: dict[Level, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


#: Keys of an identifier: UIDs of a list, values of another key, characters of a value.
MOST_UIDS, _MOST_VALUES, _LONGEST_KEY = 10_000, 100, 1024


class IdentifierError(ValueError):
    """The identifier does not fit its SOP class. The text names no value: it may be a patient's."""


def find(identifier: Dataset, root: Root, holdings: QueryHoldings, ae_title: str) -> Iterator[Dataset]:
    """Yield the answers to a C-FIND, one for each entity of the identifier's level.

    Raises:
        IdentifierError: no level, or a unique key of an upper level is missing, or a key is beyond all bounds.
        SpoolError: the catalogue failed.
    """
    level = _level(identifier, root)
    _require_keys(identifier, root, level, upper_only=True)
    _require_bounds(identifier)
    keys = [e for e in identifier if e.keyword in _known(level)]
    asked = {e.keyword for e in keys}
    unique = UNIQUE[level]
    for entity in _entities(identifier, level, holdings, asked):
        if entity.get(unique) is not None and matches(keys, entity):
            yield _answer(entity, keys, level, ae_title)


def retrieve(identifier: Dataset, root: Root, holdings: QueryHoldings) -> list[Held]:
    """Return the instances that a C-MOVE or C-GET asks for, by the unique keys alone (PS3.4 C.4.2.2.1).

    Raises:
        IdentifierError: no level, or a unique key of its own or of an upper level is missing.
        SpoolError: the catalogue failed.
    """
    level = _level(identifier, root)
    _require_keys(identifier, root, level, upper_only=False)
    _require_bounds(identifier)
    patient = values(identifier, "PatientID")
    series, instances = (set(values(identifier, UNIQUE[below])) for below in ("SERIES", "IMAGE"))
    found: list[Held] = []
    for study_uid, header in holdings.studies(values(identifier, "StudyInstanceUID")):
        if patient and values(header, "PatientID") != patient:
            continue
        found += [
            one
            for one in holdings.instances(study_uid)
            if one.can_be_sent
            and (not series or one.series_uid in series)
            and (not instances or one.sop_instance_uid in instances)
        ]
    return found


def _level(identifier: Dataset, root: Root) -> Level:
    stated = "".join(values(identifier, "QueryRetrieveLevel"))
    for level in LEVELS if root == "patient" else LEVELS[1:]:
        if level == stated:
            return level
    raise IdentifierError(f"its Query/Retrieve Level is none of the {root} root model's")


def _require_keys(identifier: Dataset, root: Root, level: Level, *, upper_only: bool) -> None:
    """PS3.4 C.4.1.2.1: one value of each unique key above the level; to retrieve, also of the level itself."""
    first = 0 if root == "patient" else 1
    for above in LEVELS[first : LEVELS.index(level)]:
        if len(values(identifier, UNIQUE[above])) != 1:
            raise IdentifierError(f"{UNIQUE[above]} needs one value at level {level}")
    if not upper_only and not values(identifier, UNIQUE[level]):
        raise IdentifierError(f"{UNIQUE[level]} needs a value to retrieve at level {level}")


def _require_bounds(identifier: Dataset) -> None:
    for element in identifier:
        if element.VR != "SQ":
            asked = values(identifier, element.keyword) if element.keyword else []
            most = MOST_UIDS if element.VR == "UI" else _MOST_VALUES
            if len(asked) > most or any(len(value) > _LONGEST_KEY for value in asked):
                raise IdentifierError(
                    f"{element.keyword} has more than {most} values, or one of more than {_LONGEST_KEY} characters"
                )


def _known(level: Level) -> set[str]:
    return {keyword for known in LEVELS[: LEVELS.index(level) + 1] for keyword in KEYS[known]}


def _entities(identifier: Dataset, level: Level, holdings: QueryHoldings, asked: set[str]) -> Iterator[Dataset]:
    """One dataset for each entity of the level, with what it has in common."""
    studies = holdings.studies(values(identifier, "StudyInstanceUID"))
    if level == "PATIENT":
        yield from {patient_of(header): header for _, header in studies}.values()
        return
    upper = [e for e in identifier if e.keyword in {*KEYS["PATIENT"], "StudyInstanceUID"}]
    for study_uid, header in studies:
        if not matches(upper, header):
            continue
        if level == "STUDY":
            yield _study(holdings, study_uid, header, asked)
            continue
        series = set(values(identifier, "SeriesInstanceUID"))
        held = [one for one in holdings.instances(study_uid) if not series or one.series_uid in series]
        if level == "IMAGE":
            yield from (one.header for one in held)
            continue
        yield from _series(held)


def _study(holdings: QueryHoldings, study_uid: str, header: Dataset, asked: set[str]) -> Dataset:
    counted = {"ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"}
    study = Dataset()
    study.update(header)
    if counted & asked:
        held = holdings.instances(study_uid)
        modalities = sorted({one.modality for one in held if is_code(one.modality)} - {""})
        _set(study, "ModalitiesInStudy", modalities)
        _set(study, "NumberOfStudyRelatedSeries", len({one.series_uid for one in held}))
        _set(study, "NumberOfStudyRelatedInstances", len(held))
    return study


def _set(dataset: Dataset, keyword: str, value: object) -> None:
    """Set an element with its own VR: one that is there already has whatever VR a sender gave it."""
    if keyword in dataset:
        del dataset[keyword]
    setattr(dataset, keyword, value)


def _series(held: list[Held]) -> Iterator[Dataset]:
    by_series: dict[str, list[Held]] = {}
    for one in held:
        by_series.setdefault(one.series_uid, []).append(one)
    for members in by_series.values():
        series = Dataset()
        series.update(members[0].header)
        _set(series, "NumberOfSeriesRelatedInstances", len(members))
        yield series


def _answer(entity: Dataset, keys: list[DataElement], level: Level, ae_title: str) -> Dataset:
    """Return what was asked for, empty where the entity has none."""
    answer = Dataset()
    if "SpecificCharacterSet" in entity:
        answer.SpecificCharacterSet = entity.SpecificCharacterSet
    for key in keys:
        answer[key.tag] = entity[key.tag] if key.tag in entity else DataElement(key.tag, key.VR, None)
    unique = tag_for_keyword(UNIQUE[level])
    assert unique is not None
    if unique in entity:
        answer[unique] = entity[unique]
    for keyword, value in (
        ("QueryRetrieveLevel", level),
        ("RetrieveAETitle", ae_title),
        ("InstanceAvailability", "ONLINE"),
    ):
        _set(answer, keyword, value)
    return answer
