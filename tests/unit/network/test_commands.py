"""C-STORE's command sets by hand, compared with pynetdicom's."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from dicomnode.network.commands import StoreAnswer, StoreRequest, store_request, store_response

REQUEST = StoreRequest(3, 7, CTImageStorage, "1.2.3.4")


def command(**changes: object) -> bytes:
    """A C-STORE-RQ as pynetdicom encodes it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "PACS", 9
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.CommandDataSetType = 0x0001
    for keyword, value in changes.items():
        setattr(message.command_set, keyword, value)
    (fragment,) = message.encode_msg(3, 0)
    ((_, value),) = fragment.presentation_data_value_list
    return bytes(value[1:])


def test_a_request_is_read() -> None:
    assert store_request(command(), 3) == REQUEST


@pytest.mark.parametrize(
    "content",
    [
        command(CommandField=0x0030),
        command(CommandDataSetType=0x0101),
        command(AffectedSOPInstanceUID=""),
        command(AffectedSOPClassUID=""),
        command()[:-1],
        command() + b"\0",
        b"",
        b"\x08\x00\x16\x00\x02\x00\x00\x001 ",
    ],
    ids=["C-ECHO", "no data set", "no instance", "no class", "cut", "too long", "empty", "no command"],
)
def test_anything_else_is_left_to_pynetdicom(content: bytes) -> None:
    assert store_request(content, 3) is None


@given(st.binary(max_size=300))
def test_rubbish_raises_nothing(content: bytes) -> None:
    store_request(content, 1)


@pytest.mark.parametrize(
    "answer", [StoreAnswer(0x0000), StoreAnswer(0xA700, "cannot store now"), StoreAnswer(0xC001, "uid-taken")]
)
def test_a_response_is_what_pynetdicom_would_send(answer: StoreAnswer) -> None:
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo, primitive.Status = 7, answer.status
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    if answer.comment:
        primitive.ErrorComment = answer.comment
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    (fragment,) = message.encode_msg(3, 0)
    assert store_response(REQUEST, answer, 0) == P_DATA_TF(fragment).encode()


def test_a_long_comment_is_cut_to_its_vr() -> None:
    response = store_response(REQUEST, StoreAnswer(0xC000, "é" * 100), 0)
    assert b"?" * 64 in response
    assert b"?" * 65 not in response


@pytest.mark.parametrize("longest", [7, 8, 50, 16384])
def test_no_pdu_is_longer_than_the_peer_allows(longest: int) -> None:
    response, at, commands, controls = store_response(REQUEST, StoreAnswer(0x0000), longest), 0, b"", []
    while at < len(response):
        kind, length, value_length, context_id, control = struct.unpack_from(">BxLLBB", response, at)
        assert (kind, context_id, value_length) == (4, 3, length - 4)
        assert length <= longest
        commands += response[at + 12 : at + 6 + length]
        controls.append(control)
        at += 6 + length
    assert commands == store_response(REQUEST, StoreAnswer(0x0000), 0)[12:]
    assert controls == [1] * (len(controls) - 1) + [3]
