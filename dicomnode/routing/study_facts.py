"""A study as rules see it: the headers of all its images, read from the disk without pixels."""

import warnings
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from pydicom import Dataset
from pydicom.multival import MultiValue

from dicomnode.analysis.series.headers import ImageHeader, read_headers, string, strings
from dicomnode.routing.rules import RuleSet, SeriesFacts, StudyFacts


def keywords(rules: RuleSet) -> frozenset[str]:
    """Return the attributes that the rules ask for."""
    return frozenset(c.keyword for rule in rules.rules for c in rule.conditions)


def facts(
    study_uid: str, paths: Sequence[Path], callers: Collection[tuple[str, str]], wanted: Collection[str]
) -> StudyFacts:
    """Return the facts of one study. Of an enhanced multi-frame image, each frame's attributes count (`headers`).

    A file that cannot be read is left out: it has nothing that a rule could look at. Where rules look at AE titles
    alone, no file is opened, and the study has no series.
    """
    return of_headers(study_uid, read_headers(paths)[0] if wanted else [], callers, wanted)


def of_headers(
    study_uid: str, headers: Sequence[ImageHeader], callers: Collection[tuple[str, str]], wanted: Collection[str]
) -> StudyFacts:
    """Return the same of headers that have been read."""
    by_series: dict[str, list[Dataset]] = defaultdict(list)
    for header in headers:
        by_series[string(header.dataset, "SeriesInstanceUID")].append(header.dataset)
    series = tuple(_series(uid, datasets, sorted(wanted)) for uid, datasets in sorted(by_series.items()))
    return StudyFacts(study_uid, tuple(sorted(set(callers))), series)


def _series(series_uid: str, datasets: Sequence[Dataset], wanted: Sequence[str]) -> SeriesFacts:
    values = {k: tuple(dict.fromkeys(v for d in datasets for v in _values(d, k))) for k in wanted}
    return SeriesFacts(series_uid, len(datasets), values)


def _values(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of one attribute as text, in the file's character set; [] where it is absent or empty."""
    if keyword not in dataset:
        return []
    try:
        with warnings.catch_warnings():
            # What nobody can read is not there any more (`values.settle`); text is compared as it stands.
            warnings.simplefilter("ignore")
            element = dataset[keyword]
        if element.VR == "SQ":
            return []  # no rule compares sequences
        value = element.value
    except Exception:  # noqa: BLE001  (whatever a damaged element provokes: its bytes are compared)
        return strings(dataset, keyword)
    if value is None:
        return []
    many = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [text for text in (str(one).strip(" \0") for one in many) if text]
