"""Data sets in the DICOM JSON model (PS3.18 annex F)."""

import base64
from collections.abc import Callable
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

#: Binary values longer than this are fetched by themselves, bytes.
_LONGEST_INLINE: Final = 1024
_BINARY: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_UTF_8: Final = {"vr": "CS", "Value": ["ISO_IR 192"]}
#: Sequences within each other; what is deeper is left out.
_DEEPEST: Final = 40

Json = dict[str, Any]


def model(dataset: Dataset, bulk_uri: Callable[[str], str], path: str = "", depth: int = 0) -> Json:
    """Return a data set as JSON has it, long binary values by reference.

    Args:
        dataset: without group 2; a value that cannot be decoded is given as empty.
        bulk_uri: makes the URI of a value of its path: the tag, within sequences "TAG-ITEM-TAG", items from 0.
        path: of the sequence item that the data set is, with a hyphen behind it.
        depth: of it.
    """
    found: Json = {}
    for tag in sorted(dataset.keys()):
        key = f"{tag:08X}"
        if tag.element == 0 or tag.group == 2:
            continue
        try:
            element = dataset[tag]
            found[key] = _element(element, bulk_uri, path + key, depth)
        except Exception:  # noqa: BLE001  (whatever one value provokes: the others are told)
            raw = dataset.get_item(tag)
            found[key] = {"vr": str(getattr(raw, "VR", None) or "UN")}
    if not path and "00080005" in found:
        found["00080005"] = dict(_UTF_8)
    return found


def _element(element: DataElement, bulk_uri: Callable[[str], str], path: str, depth: int) -> Json:
    if element.VR == "SQ":
        if depth >= _DEEPEST:
            return {"vr": "SQ"}
        items = [model(item, bulk_uri, f"{path}-{n}-", depth + 1) for n, item in enumerate(element.value or ())]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BINARY and isinstance(element.value, bytes):
        if len(element.value) > _LONGEST_INLINE:
            return {"vr": element.VR, "BulkDataURI": bulk_uri(path)}
        inline = base64.b64encode(element.value).decode()
        return {"vr": element.VR, "InlineBinary": inline} if inline else {"vr": element.VR}
    given: Json = element.to_json_dict(None, 0)
    return _finite(given)


def _finite(given: Json) -> Json:
    """JSON has no NaN and no infinity: such a number is given as a word (PS3.18 F.2.4)."""
    values = given.get("Value")
    if isinstance(values, list) and any(isinstance(v, float) and (v != v or v in (_INF, -_INF)) for v in values):  # noqa: PLR0124
        given["Value"] = [_word(v) if isinstance(v, float) else v for v in values]
    return given


_INF = float("inf")


def _word(value: float) -> float | str:
    if value != value:  # noqa: PLR0124
        return "NaN"
    return "inf" if value == _INF else "-inf" if value == -_INF else value


def at_path(dataset: Dataset, path: str) -> DataElement | None:
    """Return the element of a path that `model` has made; None where there is none."""
    steps = path.split("-")
    if len(steps) % 2 == 0 or len(steps) > 2 * _DEEPEST + 1:
        return None
    try:
        for tag, item in zip(steps[:-1:2], steps[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(item)]
        return dataset[int(steps[-1], 16)]
    except (KeyError, IndexError, ValueError, TypeError, OverflowError):
        return None
