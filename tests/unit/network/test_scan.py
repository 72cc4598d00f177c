"""The walk over an encoded data set: right where pydicom is right, and with an end everywhere else."""

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode

from dicomnode.network.scan import LONGEST_VALUE, MOST_ELEMENTS, HeaderError, Walk, inflates_within_bounds, scan

STUDY, SERIES, LAST = 0x0020000D, 0x0020000E, 0x0020000E
UNDEFINED = 0xFFFFFFFF


def long(tag: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """An element with a length of 32 bits, whatever length it claims."""
    claimed = len(value) if length is None else length
    return struct.pack("<HH2s2xL", tag >> 16, tag & 0xFFFF, vr, claimed) + value


def short(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def delimiter(tag: int, length: int = 0) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


HEAD = short(0x00080018, b"UI", b"1.2.9.1\0")
UIDS = short(STUDY, b"UI", b"1.2.77")
SEQUENCE, ITEM = long(0x00081140, b"SQ", length=UNDEFINED), delimiter(0xFFFEE000, UNDEFINED)
ITEM_END, SEQUENCE_END = delimiter(0xFFFEE00D), delimiter(0xFFFEE0DD)


def found(data: bytes, syntax: UID = ExplicitVRLittleEndian) -> dict[int, bytes]:
    return {tag: value for tag, (_, value) in scan(BytesIO(data), syntax, {STUDY, SERIES}, LAST).items()}


def nested(depth: int) -> bytes:
    return HEAD + (SEQUENCE + ITEM) * depth + (ITEM_END + SEQUENCE_END) * depth + UIDS


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_what_pydicom_writes_is_found_behind_its_sequences(syntax: UID) -> None:
    dataset, inner = Dataset(), Dataset()
    inner.StudyInstanceUID = "9.9"  # of an item, not of the data set
    dataset.ReferencedImageSequence = [inner, Dataset()]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientComments = "1.2.3", "1.2.4", "x" * 70
    data = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    assert data is not None
    assert found(data, syntax) == {STUDY: b"1.2.3\0", SERIES: b"1.2.4\0"}


def test_thirty_two_sequences_may_stand_in_each_other() -> None:
    assert found(nested(32)) == {STUDY: b"1.2.77"}


BEYOND = {
    "33 sequences": (nested(33), "more than 32 deep"),
    "10,000 sequences": (nested(10_000), "more than 32 deep"),
    "a value of 70 kB": (HEAD + long(STUDY, b"UN", b"1." * 35_000), "70000 bytes long"),
    "a value of 4 GB": (HEAD + long(STUDY, b"UN", length=UNDEFINED - 1), "4294967294 bytes long"),
    "a value that is not whole": (HEAD + UIDS[:-1], "ends within a value"),
    "elements without an end": (SEQUENCE + ITEM + short(0x00080005, b"CS", b"") * MOST_ELEMENTS, "more than 100000"),
    "an end without a beginning": (HEAD + SEQUENCE_END, "ends before it begins"),
    "an end in an item of known length": (long(0x00081140, b"SQ", delimiter(0xFFFEE000, 8) + ITEM_END) + UIDS, ""),
    "half an element": (HEAD + b"\x20\0\x0d", "cannot be parsed"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_its_bounds_is_refused_without_memory(case: str) -> None:
    data, says = BEYOND[case]
    tracemalloc.start()
    try:
        if says:
            with pytest.raises(HeaderError, match=says):
                found(data)
        else:
            assert found(data) == {STUDY: b"1.2.77"}  # the sequence is skipped as a whole
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [1 << 20, UNDEFINED - 1])
def test_a_length_beyond_the_end_is_the_end(length: int) -> None:
    assert found(HEAD + long(0x00081140, b"UN", length=length)) == {}


def test_the_longest_value_is_read() -> None:
    assert len(found(HEAD + long(STUDY, b"UN", bytes(LONGEST_VALUE)))[STUDY]) == LONGEST_VALUE


def test_a_walk_goes_only_into_what_is_entered() -> None:
    data = HEAD + long(0x00081140, b"SQ", delimiter(0xFFFEE000, len(UIDS)) + UIDS) + UIDS
    assert [e.level for e in Walk(BytesIO(data), ExplicitVRLittleEndian)] == [0, 0, 0]
    walk, levels = Walk(BytesIO(data), ExplicitVRLittleEndian), []
    for element in walk:
        levels.append(element.level)
        if element.vr == b"SQ" or element.tag == 0xFFFEE000:
            walk.enter()
    assert levels == [0, 0, 1, 2, 0]


def deflated(data: bytes) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return pack.compress(data) + pack.flush()


def test_a_bomb_is_skipped_in_small_pieces_and_refused() -> None:
    bomb = deflated(HEAD + long(0x00081140, b"UN", bytes(70 << 20)) + UIDS)
    tracemalloc.start()
    try:
        for look in (
            lambda: found(bomb, DeflatedExplicitVRLittleEndian),
            lambda: inflates_within_bounds(BytesIO(bomb)),
        ):
            with pytest.raises(HeaderError, match="becomes too large"):
                look()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("data", "says"), [(b"\xff" * 40, "damaged"), (deflated(HEAD)[:-2], "ends too early")])
def test_damaged_deflated_data_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(HeaderError, match=says):
        inflates_within_bounds(BytesIO(data))


PIECES = st.sampled_from(
    [HEAD, UIDS, SEQUENCE, ITEM, ITEM_END, SEQUENCE_END, long(0x00081140, b"UN", length=UNDEFINED)]
)


@given(
    st.lists(PIECES | st.binary(max_size=12), max_size=12).map(b"".join),
    st.sampled_from(
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
    ),
)
def test_any_bytes_are_read_or_refused(data: bytes, syntax: UID) -> None:
    try:
        assert found(data, syntax).keys() <= {STUDY, SERIES}
    except HeaderError as error:
        assert str(error)
