"""The elements of a data set, found without building anything of what a sender wrote.

pydicom recurses into sequences, reads what a length announces, and inflates all of a deflated data set at once: what
takes a sender a megabyte takes the node gigabytes, or its stack. Here everything has an end, and what has not reached
it by then is no honest header.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
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
ITEM: Final = 0xFFFEE000
_DELIMITERS, _ITEM_END, _SEQUENCE_END = 0xFFFE, 0xFFFEE00D, 0xFFFEE0DD
# PS3.5 7.1.2: these have a length of 16 bits, those one of 32 bits behind two reserved bytes.
SHORT_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)
LONG_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)


class HeaderError(ValueError):
    """The dataset cannot be parsed, or lacks what no instance may lack. The text quotes no value."""


class _Source(Protocol):
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


@dataclass(frozen=True)
class Element:
    """Where a walk stands: `level` 0 is the data set's own, 1 an item of one of its sequences, 2 what is in that."""

    level: int
    tag: int
    vr: bytes
    length: int


class Walk:
    """Goes over the elements of an encoded data set, in their order.

    What is neither read (`value`) nor gone into (`enter`) is skipped; sequences of undefined length are always gone
    into, since only so their end is found. The end of the data is the end of the walk, wherever it comes.
    """

    def __init__(self, dataset: BinaryIO, syntax: UID, most: int = MOST_ELEMENTS) -> None:
        is_deflated = syntax == DeflatedExplicitVRLittleEndian
        self._reader: _Source = _Inflated(dataset) if is_deflated else _Plain(dataset)
        self._name, self._most = syntax.name, most
        self._is_implicit, self._order = bool(syntax.is_implicit_VR), "<" if syntax.is_little_endian else ">"
        # Of what is gone into: its end (None: a delimiter), and how what surrounds it is encoded.
        self._within: list[tuple[int | None, bool, str]] = []
        self._at, self._left = 0, 0

    def __iter__(self) -> Iterator[Element]:
        """Yield the elements.

        Raises:
            HeaderError: this is no data set in its transfer syntax, or has no sane size.
        """
        try:
            for _ in range(self._most):
                element = self._next()
                if element is None:
                    return
                if element.tag not in (_ITEM_END, _SEQUENCE_END):
                    yield element
                    self._skip()
        except (struct.error, zlib.error, OSError, OverflowError) as error:
            raise HeaderError(f"the dataset cannot be parsed as {self._name}: {type(error).__name__}") from None
        raise HeaderError(f"the dataset has more than {self._most} elements where far fewer should be")

    def value(self, longest: int = LONGEST_VALUE) -> bytes:
        """Return the value of the element that was yielded last.

        Raises:
            HeaderError: it is too long, or not whole.
        """
        length, self._left = self._left, 0
        if length > longest:
            raise HeaderError(f"a value is {length} bytes long; {longest} is more than enough")
        value = self._read(length)
        if len(value) < length:
            raise HeaderError("the dataset ends within a value")
        return value

    def enter(self) -> None:
        """Go into the sequence or item that was yielded last."""
        if self._left:
            self._push(self._at + self._left)
            self._left = 0

    def _next(self) -> Element | None:
        while self._within and self._within[-1][0] is not None and self._at >= self._within[-1][0]:
            self._pop()
        head = self._read(8)
        if not head:
            return None
        level = len(self._within)
        group, element, length = struct.unpack(self._order + "HHL", head)
        tag, vr = group << 16 | element, b""
        # A sender may slip into Implicit VR within one data set: pydicom reads that so too.
        if group != _DELIMITERS and not self._is_implicit and head[4:6].isalpha() and head[4:6].isupper():
            vr = head[4:6]
            field, raw = ("L", self._read(4)) if vr in LONG_VRS else ("H", head[6:8])
            (length,) = struct.unpack(self._order + field, raw)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if not self._within or self._within[-1][0] is not None:
                raise HeaderError("a sequence that ends before it begins")
            self._pop()
        elif length == _UNDEFINED:
            self._push(None)
            if vr == b"UN":
                self._is_implicit, self._order = True, "<"  # PS3.5 6.2.2, note 4
        else:
            self._left = length
        return Element(level, tag, vr, length)

    def _push(self, end: int | None) -> None:
        self._within.append((end, self._is_implicit, self._order))
        if len(self._within) > _DEPTH:
            raise HeaderError(f"sequences within sequences, more than {_DEPTH // 2} deep")

    def _pop(self) -> None:
        _, self._is_implicit, self._order = self._within.pop()

    def _read(self, count: int) -> bytes:
        data = self._reader.read(count)
        self._at += len(data)
        return data

    def _skip(self) -> None:
        self._reader.skip(self._left)
        self._at += self._left
        self._left = 0


def scan(dataset: BinaryIO, syntax: UID, wanted: Collection[int], last: int) -> dict[int, tuple[bytes, bytes]]:
    """Return (VR, value) of the wanted elements of the outermost level, undecoded; the VR is empty in Implicit VR.

    Elements stand in order of their tags: reading stops behind `last`. Sequences have no value.

    Raises:
        HeaderError: what stands there is no data set in this transfer syntax, or none with a header of sane size.
    """
    found: dict[int, tuple[bytes, bytes]] = {}
    walk = Walk(dataset, syntax)
    for element in walk:
        if element.level == 0:
            if element.tag > last:
                break
            if element.tag in wanted and element.vr != b"SQ" and element.length != _UNDEFINED:
                found[element.tag] = element.vr, walk.value()
    return found
