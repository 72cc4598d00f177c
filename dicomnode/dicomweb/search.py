"""QIDO-RS (PS3.18 10.6): studies, series and instances that match, as DICOM JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicomnode.dicomweb import json_model
from dicomnode.dicomweb.files import read_head
from dicomnode.dicomweb.holdings import WebHoldings, modalities
from dicomnode.dicomweb.names import REMEMBERED
from dicomnode.dicomweb.query import MORE, NOT_FUZZY, WebQuery, date_range
from dicomnode.network.matching import value_matches, values
from dicomnode.reception.holdings import KEYS, Held, Level, is_code, read_header
from dicomnode.store.catalog.labels import Label
from dicomnode.store.catalog.web_holdings import WebFigures, WebStudy, WebWanted

#: Studies whose objects are looked at together.
_STUDIES_AT_ONCE: Final = 20
#: What a label knows of a study, by keyword.
_LABELLED: Final[Mapping[str, str]] = {
    "PatientID": "patient_id", "IssuerOfPatientID": "issuer", "PatientName": "patient_name",
    "PatientBirthDate": "birth_date", "PatientSex": "sex", "StudyDate": "study_date", "StudyTime": "study_time",
    "AccessionNumber": "accession_number", "StudyID": "study_id", "StudyDescription": "description",
    "ReferringPhysicianName": "referring_physician",
}  # fmt: skip
_WILD: Final = ("*", "?")


@dataclass(frozen=True)
class SearchResult:
    """The answers, and what a client should know of them."""

    found: list[json_model.Json]
    warnings: tuple[str, ...]


def search(holdings: WebHoldings, query: WebQuery, base: str) -> SearchResult:
    """Return what matches, the studies with the newest images first.

    Args:
        holdings: what is held.
        query: the question.
        base: the service's URL.

    Raises:
        SpoolError: the catalogue failed.
    """
    entities = _studies if query.level == "STUDY" else _parts
    page = list(islice(entities(holdings, query, base), query.offset, query.offset + query.limit + 1))
    more = len(page) > query.limit
    answers = [make() for make in page[: query.limit]]
    if query.level == "STUDY" and answers:
        answers = _with_figures(holdings, query, answers, base)
    told = ((NOT_FUZZY,) if query.fuzzy else ()) + ((MORE,) if more else ())
    return SearchResult(answers, told)


# Studies


def _studies(holdings: WebHoldings, query: WebQuery, _base: str) -> Iterator[Any]:
    for study in _matching(holdings, query):
        yield partial(str, study.study_uid)


def _matching(holdings: WebHoldings, query: WebQuery) -> Iterator[WebStudy]:
    """Yield the studies whose own keys match."""
    keys = query.of_level("PATIENT", "STUDY")
    wanted_modalities = keys.pop("ModalitiesInStudy", ())
    keys.pop("StudyInstanceUID", None)
    for study in holdings.catalog.web_studies(_wanted(holdings, query)):
        if not study.by_images and not _has_result(holdings, study.study_uid, wanted_modalities):
            continue
        if not keys or _matches(keys, _labelled(holdings, study, keys)):
            yield study


def _wanted(holdings: WebHoldings, query: WebQuery) -> WebWanted:
    keys = query.keys
    # By a whole number an index of the catalogue finds them, and a UID is nearest.
    indexed = {keyword for keyword in ("PatientID", "AccessionNumber") if _whole(keys.get(keyword, ()))}
    remembered = {keyword: keys[keyword] for keyword in keys.keys() & REMEMBERED.keys() - indexed}
    by_memory = remembered and not indexed and "StudyInstanceUID" not in keys
    return WebWanted(
        study_uids=keys.get("StudyInstanceUID", ()),
        patient_id=_whole(keys.get("PatientID", ())),
        accession_number=_whole(keys.get("AccessionNumber", ())),
        dates=date_range(keys.get("StudyDate", ())),
        modalities=tuple(keys.get("ModalitiesInStudy", ())),
        series_uids=() if "StudyInstanceUID" in keys else keys.get("SeriesInstanceUID", ()),
        instance_uids=() if "StudyInstanceUID" in keys else keys.get("SOPInstanceUID", ()),
        named=holdings.names.named(holdings.catalog, remembered) if by_memory else None,
    )


def _whole(given: Sequence[str]) -> str:
    """Return a value that an index finds: one, without wild cards."""
    return given[0] if len(given) == 1 and not any(letter in given[0] for letter in _WILD) else ""


def _has_result(holdings: WebHoldings, study_uid: str, wanted: Sequence[str]) -> bool:
    objects = holdings.of_studies([study_uid])[study_uid]
    return not modalities(objects).isdisjoint(wanted)


def _labelled(holdings: WebHoldings, study: WebStudy, keywords: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Return what is known of a study, from its label or, before it has one, from an image; of these keywords alone."""
    label: Label = study.label
    wanted = [keyword for keyword in keywords if keyword in _LABELLED]
    if label.patient_name is not None:
        # Several values stand in a label as DICOM writes them.
        return {keyword: str(getattr(label, _LABELLED[keyword]) or "").split("\\") for keyword in wanted}
    path = holdings.catalog.sample(study.study_uid)
    header = Dataset() if path is None else read_header(Path(path))
    return {keyword: values(header, keyword) for keyword in wanted}


def _matches(keys: Mapping[str, Sequence[str]], known: Mapping[str, Sequence[str]]) -> bool:
    return all(any(value_matches(_vr(k), wanted, one) for one in known.get(k, ())) for k, wanted in keys.items())


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Tag(tag)


@cache
def _vr(keyword: str) -> str:
    return dictionary_VR(_tag(keyword))


def _with_figures(
    holdings: WebHoldings, query: WebQuery, study_uids: Sequence[Any], base: str
) -> list[json_model.Json]:
    figures = holdings.catalog.web_figures(list(study_uids))
    found = [figures[uid] for uid in study_uids if uid in figures]
    results = holdings.results_of({one.study_uid for one in found if one.standing is not None})
    return [_study(query, one, results.get(one.study_uid, []), base) for one in found]


def _study(query: WebQuery, figures: WebFigures, results: Sequence[Held], base: str) -> json_model.Json:
    header = _header(query, Path(figures.path), "PATIENT", "STUDY")
    named = {one for one in figures.modalities if is_code(one)} | modalities(results)
    return _answer(
        header,
        f"{base}/studies/{figures.study_uid}",
        StudyInstanceUID=[figures.study_uid],
        ModalitiesInStudy=sorted(named - {""}),
        NumberOfStudyRelatedSeries=[figures.series + len({one.series_uid for one in results})],
        NumberOfStudyRelatedInstances=[figures.instances + len(results)],
    )


# Series and instances


def _parts(holdings: WebHoldings, query: WebQuery, base: str) -> Iterator[Any]:
    matching = _matching(holdings, query)
    while chunk := [study.study_uid for study in islice(matching, _STUDIES_AT_ONCE)]:
        for objects in holdings.of_studies(chunk).values():
            held = [one for one in objects if one.can_be_sent]
            yield from (_series if query.level == "SERIES" else _instances)(query, held, base)


def _series(query: WebQuery, objects: Iterable[Held], base: str) -> Iterator[Any]:
    by_series: dict[str, list[Held]] = {}
    for one in objects:
        by_series.setdefault(one.series_uid, []).append(one)
    keys = query.of_level("SERIES")
    for members in by_series.values():
        if _part_matches(keys, members[0]):
            yield partial(_one_series, query, members, base)


def _one_series(query: WebQuery, members: Sequence[Held], base: str) -> json_model.Json:
    first = members[0]
    header, known = _of(query, first, "PATIENT", "STUDY", "SERIES")
    url = f"{base}/studies/{first.study_uid}/series/{first.series_uid}"
    return _answer(header, url, **known, NumberOfSeriesRelatedInstances=[len(members)])


def _instances(query: WebQuery, objects: Iterable[Held], base: str) -> Iterator[Any]:
    keys = query.of_level("SERIES", "IMAGE")
    return (partial(_instance, query, one, base) for one in objects if _part_matches(keys, one))


def _instance(query: WebQuery, one: Held, base: str) -> json_model.Json:
    header, known = _of(query, one, "PATIENT", "STUDY", "SERIES", "IMAGE")
    named = {"SOPClassUID": [one.sop_class_uid], "SOPInstanceUID": [one.sop_instance_uid]}
    return _answer(header, instance_url(base, one), **known, **named)


def _part_matches(keys: Mapping[str, Sequence[str]], one: Held) -> bool:
    catalogued = {
        "SeriesInstanceUID": one.series_uid,
        "SOPInstanceUID": one.sop_instance_uid,
        "SOPClassUID": one.sop_class_uid,
    }
    known: dict[str, Sequence[str]] = {keyword: (uid,) for keyword, uid in catalogued.items()}
    if not all(_matches({k: keys[k]}, known) for k in keys if k in known):
        return False
    others = {keyword: wanted for keyword, wanted in keys.items() if keyword not in known}
    if not others:
        return True
    header = one.header
    return _matches(others, {keyword: values(header, keyword) for keyword in others})


def _of(query: WebQuery, one: Held, *levels: Level) -> tuple[Dataset, dict[str, list[str]]]:
    """Return what the file says of an object, and what the catalogue knows better."""
    header = _header(query, one.path, *levels)
    known = {"StudyInstanceUID": [one.study_uid], "SeriesInstanceUID": [one.series_uid]}
    if "Modality" not in header and is_code(one.modality):
        known["Modality"] = [one.modality]
    return header, known


def instance_url(base: str, one: Held) -> str:
    """Return where an object is retrieved from."""
    return f"{base}/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"


# Answers


def _header(query: WebQuery, path: Path, *levels: Level) -> Dataset:
    """Return what an answer tells of a file; nothing where it has gone or cannot be read."""
    kept = Dataset()
    known = read_header(path)
    for level in levels:
        for keyword in KEYS[level]:
            if (tag := _tag(keyword)) in known:
                kept[tag] = known[tag]
    if query.include_all or query.include:
        for element in read_head(path, None if query.include_all else query.include):
            if element.tag not in kept and element.VR not in ("OB", "OW", "OF", "OD", "UN"):
                kept[element.tag] = element
    return kept


def _answer(header: Dataset, url: str, **known: Sequence[str | int]) -> json_model.Json:
    """Return a header as JSON, with what the node knows by keyword: that is written past pydicom, which takes longer.

    Args:
        header: of a file.
        url: where it is retrieved from.
        known: values by keyword, in place of those of the header; none: the attribute is there, and empty.
    """
    told = json_model.model(header, lambda path: f"{url}/bulkdata/{path}")
    own = {"SpecificCharacterSet": ["ISO_IR 192"], "InstanceAvailability": ["ONLINE"], "RetrieveURL": [url], **known}
    for keyword, given in own.items():
        named = {"vr": _vr(keyword)}
        told[f"{_tag(keyword):08X}"] = {**named, "Value": list(given)} if given else named
    return dict(sorted(told.items()))
