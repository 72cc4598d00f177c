"""In which attributes two versions of an object differ: what a person sees before deciding which one is right."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.tag import BaseTag, Tag

from dicomnode.words.numerals import plural

PIXELS = "PixelData"
#: What stands in place of the differences where a version cannot be read.
UNREADABLE = "(unreadable)"
_TRAILING_PADDING = 0xFFFCFFFC
_LONGEST = 64


@dataclass(frozen=True)
class Difference:
    """One attribute: its keyword (a tag where it has none) and both values as text. Values may name a patient."""

    attribute: str
    before: str
    after: str


def differences(before: Path, after: Path) -> tuple[Difference, ...]:
    """Return the attributes that differ, in the order of their tags; a difference within a sequence is the sequence's.

    Pixels count as the same where they decode to the same values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are what people correct
            return tuple(_differences(dcmread(before), dcmread(after)))
    except Exception:  # noqa: BLE001  (a damaged version provokes anything)
        return (Difference(UNREADABLE, "", ""),)


def _differences(x: Dataset, y: Dataset) -> list[Difference]:
    found = []
    for tag in sorted(_tags(x) | _tags(y)):
        same = tag in x and tag in y and _same(x, y, tag)
        if not same:
            name = keyword_for_tag(tag) or str(tag)
            found.append(Difference(name, _text(x, tag), _text(y, tag)))
    return found


def _tags(dataset: Dataset) -> set[BaseTag]:
    return {Tag(t) for t in dataset.keys() if t.element != 0 and t != _TRAILING_PADDING}  # noqa: SIM118  (iterating gives elements)


def _same(x: Dataset, y: Dataset, tag: BaseTag) -> bool:
    a, b = x[tag], y[tag]
    if a.value == b.value or (a.is_empty and b.is_empty):
        return True
    if a.keyword == PIXELS:
        return _same_pixels(x, y)
    if a.VR == "SQ" and b.VR == "SQ":
        return len(a.value) == len(b.value) and not any(
            _differences(p, q) for p, q in zip(a.value, b.value, strict=True)
        )
    return False


def _same_pixels(x: Dataset, y: Dataset) -> bool:
    try:
        return bool(np.array_equal(x.pixel_array, y.pixel_array))
    except Exception:  # noqa: BLE001  (a decoder may raise anything: what cannot be compared counts as different)
        return False


def _text(dataset: Dataset, tag: BaseTag) -> str:
    if tag not in dataset:
        return "(absent)"
    element: DataElement = dataset[tag]
    if element.VR == "SQ":
        return f"({plural(len(element.value), 'item')})"
    if isinstance(element.value, bytes):
        return f"({plural(len(element.value), 'byte')})"
    text = str(element.value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
