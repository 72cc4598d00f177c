"""Whether two files hold the same image in different encodings.

A PACS resends in whatever transfer syntax it agrees on. Bytes that differ only so (explicit or implicit VR, byte order,
lossless compression, group lengths, padding) are a resend; anything else under the same SOP Instance UID is a conflict.
This is asked only where bytes differ, so it may take its time.
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

_TRAILING_PADDING = 0xFFFCFFFC
_PIXEL_DATA = 0x7FE00010


def same_content(a: Path, b: Path) -> bool:
    """Return whether both files hold the same attributes and the same pixels.

    False too where either cannot be decoded.
    """
    try:
        x, y = dcmread(a), dcmread(b)
        return _same_attributes(x, y) and _same_pixels(x, y)
    except Exception:  # noqa: BLE001  (a decoder may raise anything: what cannot be compared counts as different)
        return False


def _same_attributes(x: Dataset, y: Dataset) -> bool:
    tags = _tags(x)
    return tags == _tags(y) and all(_same(x, y, tag) for tag in tags if tag != _PIXEL_DATA)


def _tags(dataset: Dataset) -> set[int]:
    return {int(t) for t in dataset.keys() if t.element != 0 and t != _TRAILING_PADDING}  # noqa: SIM118  (iterating gives elements)


def _same(x: Dataset, y: Dataset, tag: int) -> bool:
    a, b = x[tag], y[tag]
    if a.VR == "SQ" and b.VR == "SQ":
        return len(a.value) == len(b.value) and all(map(_same_attributes, a.value, b.value))
    # VRs may differ: an unknown private element is UN in one encoding and its own VR in the other.
    return bool(a.value == b.value)


def _same_pixels(x: Dataset, y: Dataset) -> bool:
    if _PIXEL_DATA not in x or x.PixelData == y.PixelData:
        return True
    return bool(np.array_equal(x.pixel_array, y.pixel_array))
