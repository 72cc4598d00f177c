"""Attribute matching of queries (PS3.4 C.2.2.2): single value, list of UIDs, universal, wild card, range. Pure."""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_RANGES = frozenset({"DA", "TM", "DT"})
_PADDING = " \0"
_WITH_WILD_CARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


def matches(keys: Sequence[DataElement], entity: Dataset) -> bool:
    """Whether an entity has what the keys ask for. A key without a value, or a sequence, asks for nothing.

    A key with a value does not match an entity without one.
    """
    return all(_matches(key, entity.get(key.tag)) for key in keys)


def values(dataset: Dataset, keyword: str) -> list[str]:
    """Return an element's values as text; none where it is absent or empty."""
    return _values(dataset.get(Tag(keyword)))


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element as one text, "" where there is none; several values as DICOM writes them, behind backslashes.

    A name or a number with a backslash in it has several values to pydicom, whatever its multiplicity should be.
    """
    return "\\".join(values(dataset, keyword)).strip()


def _values(element: DataElement | None) -> list[str]:
    if element is None or element.is_empty:
        return []
    return [str(value) for value in (element.value if element.VM > 1 else [element.value])]


def _matches(key: DataElement, element: DataElement | None) -> bool:
    if key.VR == "SQ":
        return True
    wanted = _values(key)
    if not wanted or wanted == ["*"]:
        return True
    found = _values(element)
    if key.VR == "UI":  # a list may be long
        return not {one.strip(_PADDING) for one in wanted}.isdisjoint(one.strip(_PADDING) for one in found)
    return any(_equal(key.VR, one, value) for one in wanted for value in found)


def value_matches(vr: str, wanted: Sequence[str], found: str) -> bool:
    """Whether one value, as text, is what one of `wanted` asks for; "" is no value."""
    return bool(found) and any(_equal(vr, one, found) for one in wanted)


def _equal(vr: str, wanted: str, value: str) -> bool:
    if vr in _RANGES:
        return _in_range(wanted, value)
    if has_wild_cards(vr):
        sought = pattern(vr, wanted)
        return any(like(sought, form) for form in forms(vr, value))
    return wanted.strip() == value.strip()


def has_wild_cards(vr: str) -> bool:
    """Whether values of this representation are matched as text: `forms` and `pattern` by `like`."""
    return vr in _WITH_WILD_CARDS


def forms(vr: str, value: str) -> list[str]:
    """Return the texts by which a value is found, as `like` compares them with a `pattern`; "" is no value.

    Of a name each group of components by itself (alphabetic, ideographic, phonetic), without regard to case.
    """
    if vr != "PN":
        return [value.strip()]
    groups = [value, *value.split("=")] if "=" in value else [value]
    return [pattern(vr, group) for group in groups]


def pattern(vr: str, wanted: str) -> str:
    """Return what `like` looks for."""
    return wanted.rstrip("^=").casefold() if vr == "PN" else wanted.strip()


def like(pattern: str, value: str) -> bool:
    """Match with wild cards in one pass over the value, however many there are: a pattern is a stranger's program.

    A set of bits says up to which letters of the pattern the value read so far may stand for.
    """
    if "*" not in pattern and "?" not in pattern:
        return pattern == value
    steps, anything, stays, end = _compiled(pattern)
    reached = 1
    for letter in value:
        reached = (reached & steps.get(letter, anything)) << 1 | reached & stays
        if not reached:
            return False
    return bool(reached & end)


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> tuple[dict[str, int], int, int, int]:
    """Of the pattern without its stars: where each letter may stand, where any, where a star is, and the end."""
    letters: dict[str, int] = defaultdict(int)
    anything = stays = 0
    bit = 1
    for letter in pattern:
        if letter == "*":
            stays |= bit
            continue
        if letter == "?":
            anything |= bit
        else:
            letters[letter] |= bit
        bit <<= 1
    return {letter: bits | anything for letter, bits in letters.items()}, anything, stays, bit


def _in_range(wanted: str, value: str) -> bool:
    """Dates and times as digits; what a bound leaves out (the seconds of 1015) is open to that side."""
    value = _digits(value)
    first, dash, last = wanted.partition("-")
    if not dash:
        return value.startswith(_digits(first))
    low, high = _digits(first), _digits(last)
    return value[: len(low)] >= low and (not high or value[: len(high)] <= high)


def _digits(text: str) -> str:
    """Without the fraction of a second, and the separators of ACR-NEMA."""
    return re.sub(r"[^0-9]", "", text.partition(".")[0] if text.count(".") == 1 else text)
