"""Parameters of a search (PS3.18 8.3.4, 10.6.1.2): keys, fields to include, page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicomnode.dicomweb.problems import WebError
from dicomnode.logs import is_uid
from dicomnode.reception.holdings import KEYS, LEVELS, Level

#: Answers where a client names no limit, and where it names a higher one.
_USUAL: Final[Mapping[Level, int]] = {"STUDY": 200, "SERIES": 1_000, "IMAGE": 5_000}
_MOST: Final[Mapping[Level, int]] = {"STUDY": 1_000, "SERIES": 5_000, "IMAGE": 10_000}
_MOST_UIDS, _LONGEST, _MOST_FIELDS, _MOST_OFFSET = 1_000, 256, 100, 10_000_000
_NOBODYS: Final = "2.25.0"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_DATE = re.compile(r"(?!-?$)([0-9]{8})?(?:(-)([0-9]{8})?)?")
NOT_MATCHED = frozenset(
    ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
)
NOT_FUZZY: Final = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
MORE: Final = "There are additional results that can be requested."


@dataclass(frozen=True)
class WebQuery:
    """A search. `keys`: values by keyword, those without a value left out; `include`: tags beside the usual ones."""

    level: Level
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    include: frozenset[int] = frozenset()
    include_all: bool = False
    limit: int = 0
    offset: int = 0
    fuzzy: bool = False

    def of_level(self, *levels: Level) -> dict[str, tuple[str, ...]]:
        """Return the keys that belong to these levels."""
        known = {keyword for level in levels for keyword in KEYS[level]}
        return {keyword: values for keyword, values in self.keys.items() if keyword in known}


def parse(level: Level, parameters: Iterable[tuple[str, str]], within: Mapping[str, str]) -> WebQuery:
    """Return what is asked for.

    Args:
        level: of the answers.
        parameters: of the URL, decoded.
        within: the UIDs that the path names, by keyword.

    Raises:
        WebError: 400: a parameter or a value that is none, or more than is answered.
    """
    keys: dict[str, tuple[str, ...]] = {}
    include: set[int] = set()
    given: dict[str, str] = {}
    for name, value in parameters:
        if len(value) > _LONGEST and not name.lower().endswith("uid") and name != "includefield":
            raise WebError(400, f"a value is longer than {_LONGEST} characters")
        if name == "includefield":
            fields = [one.strip() for one in value.split(",") if one.strip()]
            if "all" in fields:
                given["all"] = "true"
            include.update(tag for one in fields if (tag := _tag(one)) is not None)
        elif name in ("limit", "offset", "fuzzymatching"):
            given[name] = value
        elif name != "accept":
            keyword = _keyword(level, name)
            values = _values(keyword, value)
            if values:
                keys[keyword] = (*keys.get(keyword, ()), *values)
    if len(include) > _MOST_FIELDS:
        raise WebError(400, f"includefield names more than {_MOST_FIELDS} attributes")
    for keyword, uid in within.items():
        matches_both = is_uid(uid) and uid in keys.get(keyword, (uid,))
        keys[keyword] = (uid if matches_both else _NOBODYS,)
    most = _MOST[level]
    return WebQuery(
        level,
        keys,
        frozenset(include),
        "all" in given,
        min(_number(given, "limit", _USUAL[level]), most),
        min(_number(given, "offset", 0), _MOST_OFFSET),
        given.get("fuzzymatching", "").lower() == "true",
    )


def date_range(values: Sequence[str]) -> tuple[str, str]:
    """Return the first and the last date of a key; "" leaves a side open, as where several values are given."""
    found = _DATE.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        return "", ""
    first, dash, last = found[1] or "", found[2], found[3] or ""
    return (first, last) if dash else (first, first)


def _keyword(level: Level, name: str) -> str:
    """Return the keyword of a key that can be matched at this level or above it."""
    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    known = [one for above in LEVELS[: LEVELS.index(level) + 1] for one in KEYS[above]]
    if keyword in known and keyword not in NOT_MATCHED:
        return keyword
    if tag_for_keyword(keyword) is None:
        raise WebError(400, "a parameter of the query is no attribute and none of the service's own")
    can = ", ".join(one for one in known if one not in NOT_MATCHED)
    raise WebError(400, f"{keyword} cannot be searched by at this level. What can: {can}")


def _values(keyword: str, value: str) -> list[str]:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag)
    if "\0" in value:
        raise WebError(400, f"{keyword} has a character that no value has")
    if vr == "UI":
        values = [one.strip() for one in re.split(r"[,\\]", value) if one.strip()]
        if len(values) > _MOST_UIDS or not all(map(is_uid, values)):
            raise WebError(400, f"{keyword} is not a UID, or more than {_MOST_UIDS} of them")
        return values
    if keyword == "ModalitiesInStudy":
        return [one.strip() for one in re.split(r"[,\\]", value) if one.strip()][:32]
    value = value.strip()
    if vr == "DA" and value and not _DATE.fullmatch(value):
        raise WebError(400, f"{keyword} is no date and no range: 20260131, 20260101-20260131, 20260101- or -20260131")
    return [value] if value and value != "*" else []


def _tag(field_: str) -> int | None:
    """Return the tag that an includefield names; a part of a sequence stands for the sequence."""
    first = field_.split(".", maxsplit=1)[0]
    return int(first, 16) if _TAG.fullmatch(first) else tag_for_keyword(first)


def _number(given: Mapping[str, str], name: str, usual: int) -> int:
    text = given.get(name, "")
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise WebError(400, f"{name} is no number")
    return int(text)
