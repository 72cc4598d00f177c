"""The elements in front of a data set's pixels, found without building anything of what a sender wrote.

pydicom recurses into sequences, reads what a length announces, and inflates all of a deflated data set at once: what
takes a sender a megabyte takes the node gigabytes, or its stack. Here everything has an end, and what has not reached
it by then is no honest header.
"""

import struct
import zlib
from collections.abc import Collection
from typing import BinaryIO, Final, Protocol

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

#: The longest value that is read, bytes; every VR that is asked for has a shorter one (PS3.5 table 6.2-1).
LONGEST_VALUE: Final = 1 << 16
#: Elements that are gone over, those within sequences of undefined length included.
MOST_ELEMENTS: Final = 100_000
#: What a deflated data set may become, bytes: so much in any case, so many times its size, and never more than that.
_INFLATED, _RATIO, _LONGEST_INFLATED = 64 << 20, 100, 1 << 30
_DEPTH: Final = 64
_CHUNK: Final = 1 << 16

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# PS3.5 7.1.2: these have a length of 16 bits, those one of 32 bits behind two reserved bytes.
SHORT_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)
LONG_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)


class HeaderError(ValueError):
    """The dataset cannot be parsed, or lacks what no instance may lack. The text quotes no value."""


class _Reader(Protocol):
    """Bytes in their order."""

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""

    def skip(self, count: int) -> None:
        """Go over bytes."""


class _Plain:
    """Bytes of a file as they are."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self._file = file

    def skip(self, count: int) -> None:
        """Go over bytes, also beyond the end."""
        self._file.seek(count, 1)


class _Inflated:
    """Bytes of a deflated data set (PS3.5 A.5: no zlib header), never more of them than asked for in memory."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        size = file.seek(0, 2) - start
        file.seek(start)
        self._file, self._inflate = file, zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = min(max(_INFLATED, _RATIO * size), _LONGEST_INFLATED)

    @property
    def is_whole(self) -> bool:
        """Whether the end has come."""
        return self._inflate.eof

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        parts = []
        while count and (part := self._some(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Go over bytes."""
        while count and (part := self._some(count)):
            count -= len(part)

    def _some(self, most: int) -> bytes:
        while not self._inflate.eof:
            deflated = self._inflate.unconsumed_tail or self._file.read(_CHUNK)
            part = self._inflate.decompress(deflated, min(most, _CHUNK))
            self._left -= len(part)
            if self._left < 0:
                raise HeaderError("the deflated dataset becomes too large: it is not what it claims to be")
            if part or not deflated:
                return part
        return b""


def inflates_within_bounds(dataset: BinaryIO) -> None:
    """Go over all of a deflated data set that stands at its start.

    Raises:
        HeaderError: it becomes too large, or is damaged.
    """
    try:
        inflated = _Inflated(dataset)
        inflated.skip(_LONGEST_INFLATED + 1)
    except zlib.error:
        raise HeaderError("the deflated dataset is damaged") from None
    if not inflated.is_whole:
        raise HeaderError("the deflated dataset ends too early")


def scan(dataset: BinaryIO, syntax: UID, wanted: Collection[int], last: int) -> dict[int, tuple[bytes, bytes]]:
    """Return (VR, value) of the wanted elements of the outermost level, undecoded; the VR is empty in Implicit VR.

    Elements stand in order of their tags: reading stops behind `last`. The end of the data before it is no error.

    Raises:
        HeaderError: what stands there is no data set in this transfer syntax, or none with a header of sane size.
    """
    reader = _Inflated(dataset) if syntax == DeflatedExplicitVRLittleEndian else _Plain(dataset)
    try:
        return _scan(reader, bool(syntax.is_implicit_VR), "<" if syntax.is_little_endian else ">", wanted, last)
    except (struct.error, zlib.error, OSError, OverflowError) as error:
        raise HeaderError(f"the dataset cannot be parsed as {syntax.name}: {type(error).__name__}") from None


def _scan(
    reader: _Reader, is_implicit: bool, order: str, wanted: Collection[int], last: int
) -> dict[int, tuple[bytes, bytes]]:
    found: dict[int, tuple[bytes, bytes]] = {}
    within: list[tuple[bool, str]] = []  # how what surrounds an open sequence or item is encoded
    for _ in range(MOST_ELEMENTS):
        head = reader.read(8)
        if not head:
            return found
        group, element, length = struct.unpack(order + "HHL", head)
        tag, vr = group << 16 | element, b""
        # A sender may slip into Implicit VR within one data set: pydicom reads that so too.
        if group != 0xFFFE and not is_implicit and head[4:6].isalpha() and head[4:6].isupper():
            vr = head[4:6]
            (length,) = struct.unpack(*((order + "L", reader.read(4)) if vr in LONG_VRS else (order + "H", head[6:8])))
        if tag in (_ITEM_END, _SEQUENCE_END):
            if not within:
                raise HeaderError("a sequence that ends before it begins")
            is_implicit, order = within.pop()
        elif not within and tag > last:
            return found
        elif length == _UNDEFINED:
            within.append((is_implicit, order))
            if len(within) > _DEPTH:
                raise HeaderError(f"sequences within sequences, more than {_DEPTH // 2} deep")
            if vr == b"UN":
                is_implicit, order = True, "<"  # PS3.5 6.2.2, note 4
        elif not within and tag in wanted and vr != b"SQ":
            found[tag] = vr, _value(reader, tag, length)
        else:
            reader.skip(length)
    raise HeaderError(f"more than {MOST_ELEMENTS} elements before ({last >> 16:04x},{last & 0xFFFF:04x})")


def _value(reader: _Reader, tag: int, length: int) -> bytes:
    if length > LONGEST_VALUE:
        raise HeaderError(f"the value of ({tag >> 16:04x},{tag & 0xFFFF:04x}) is {length} bytes long")
    value = reader.read(length)
    if len(value) < length:
        raise HeaderError(f"the dataset ends within ({tag >> 16:04x},{tag & 0xFFFF:04x})")
    return value
