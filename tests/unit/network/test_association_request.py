"""A-ASSOCIATE-RQ PDUs right and wrong, as PS3.8 has them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicomnode.network.association_request import ProtocolError, read_request
from tests.helpers.raw_peer import item, request

CONTEXTS = {1: ("1.2.840.10008.1.1", ["1.2.840.10008.1.2"])}


def decoded(pdu: bytes) -> A_ASSOCIATE_RQ:
    made = A_ASSOCIATE_RQ()
    made.decode(read_request(pdu).pdu)
    made.to_primitive()
    return made


@pytest.mark.parametrize(
    ("pdu", "refusal"),
    [
        (request(CONTEXTS), None),
        (request(CONTEXTS, version=3), None),
        (request(CONTEXTS, version=0xFFFF), None),
        (request(CONTEXTS, version=2), (1, 2, 2)),
        (request(CONTEXTS, called="NODE\0\0", calling="EFILM".ljust(16, "\0")), None),
        (request(CONTEXTS, calling=""), (1, 1, 3)),
        (request(CONTEXTS, calling="M\xdcNCHEN"), (1, 1, 3)),
        (request(CONTEXTS, calling="A\nFORGED"), (1, 1, 3)),
        (request(CONTEXTS, called="\x1b[31m"), (1, 1, 7)),
        (request(CONTEXTS, name=b"1.2.840.10008.3.1.1.1\0"), None),
        (request(CONTEXTS, name=b"1.2.3"), (1, 1, 2)),
        (request(CONTEXTS, user=item(0x70, b"abcd")), None),
        (request(CONTEXTS, user=item(0x55, b"A" * 40)), None),
        (request(CONTEXTS, user=item(0x54, b"\xff\xff") + item(0x54, b"")), None),
        (request({2 * n + 1: ("1.2.3", ["1.2"] * 16) for n in range(128)}), None),
    ],
)
def test_what_can_be_answered_is_what_pynetdicom_can_read(pdu: bytes, refusal: tuple[int, int, int] | None) -> None:
    assert read_request(pdu).refusal == refusal
    made = decoded(pdu)
    assert made.protocol_version == 1
    assert all(" " <= letter <= "~" for letter in made.calling_ae_title + made.called_ae_title)


@pytest.mark.parametrize(
    "pdu",
    [
        *(b"\x01\0\0\0\0" + bytes((n,)) + bytes(n) for n in range(68)),
        request(CONTEXTS)[:-1],
        request({}),
        request({2: CONTEXTS[1]}),
        request({1: CONTEXTS[1], 257: CONTEXTS[1]}),
        request(dict.fromkeys(range(300), CONTEXTS[1])),
        request({1: ("1.2.3", [])}),
        request(CONTEXTS, maximum=1),
    ],
)
def test_what_cannot_is_aborted(pdu: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_request(pdu)


@given(st.data())
def test_any_bytes_are_read_or_aborted(data: st.DataObject) -> None:
    whole = bytearray(request(CONTEXTS, user=item(0x54, b"\0\x051.2.3\1\1")))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(6, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decoded(bytes(whole[: data.draw(st.integers(6, len(whole)))]))
