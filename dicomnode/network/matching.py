"""Attribute matching of queries (PS3.4 C.2.2.2): single value, list of UIDs, universal, wild card, range. Pure."""

import re
from collections.abc import Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_RANGES = frozenset({"DA", "TM", "DT"})
_WITH_WILD_CARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


def matches(keys: Sequence[DataElement], entity: Dataset) -> bool:
    """Whether an entity has what the keys ask for. A key without a value, or a sequence, asks for nothing.

    A key with a value does not match an entity without one.
    """
    return all(_matches(key, entity.get(key.tag)) for key in keys)


def values(dataset: Dataset, keyword: str) -> list[str]:
    """Return an element's values as text; none where it is absent or empty."""
    return _values(dataset.get(Tag(keyword)))


def _values(element: DataElement | None) -> list[str]:
    if element is None or element.is_empty:
        return []
    return [str(value) for value in (element.value if element.VM > 1 else [element.value])]


def _matches(key: DataElement, element: DataElement | None) -> bool:
    wanted = _values(key)
    if key.VR == "SQ" or not wanted or wanted == ["*"]:
        return True
    found = _values(element)
    return any(_equal(key.VR, one, value) for one in wanted for value in found)


def _equal(vr: str, wanted: str, value: str) -> bool:
    if vr in _RANGES:
        return _in_range(wanted, value)
    if vr == "PN":
        # Each group of components by itself (alphabetic, ideographic, phonetic), without regard to case.
        groups = [value, *value.split("=")]
        return any(_like(wanted.rstrip("^=").casefold(), group.rstrip("^=").casefold()) for group in groups)
    if vr in _WITH_WILD_CARDS:
        return _like(wanted.strip(), value.strip())
    return wanted.strip() == value.strip()


def _like(pattern: str, value: str) -> bool:
    parts = [{"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern]
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


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
