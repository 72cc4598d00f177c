"""C-STORE's command sets by hand, compared with pynetdicom's."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from dicomnode.network.association_request import ProtocolError
from dicomnode.network.commands import Command, StoreAnswer, StoreRequest, read_command, store_response

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


def raw(elements: dict[int, bytes]) -> bytes:
    """A command set of these elements, whatever they are."""
    return b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items())


def test_a_request_is_read() -> None:
    assert read_command(command(), 3) == REQUEST


@pytest.mark.parametrize(
    "content",
    [
        command(CommandDataSetType=0x0101),
        command(AffectedSOPInstanceUID=""),
        command(AffectedSOPClassUID=""),
        command(CommandField=0x0002),
        command(CommandField=0x7FFF),
        command(CommandField=0x8FFF),
        command(CommandField=0x8001),
        command(CommandField=0x0021),
        command(CommandField=0x0100),
        command(CommandField=0x0020).replace(b"1.2.840.10008.5.1.4.1.1.2", b"ZZPATIENT^SECRET".ljust(25)),
        raw({0x0002: b"1.2", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0600: b"A" * 17, 0x0800: b"\1\0"}),
        command()[:-1],
        command() + b"\0",
        b"",
        b"\x08\x00\x16\x00\x02\x00\x00\x001 ",
        struct.pack("<HHLH", 0, 0x0100, 2, 0x0001),
        struct.pack("<HHLL", 0, 0x0100, 4, 0x0030) + struct.pack("<HHLH", 0, 0x0800, 2, 0x0101),
        b"".join(struct.pack("<HHL", 0, number, 0) for number in range(1000)),
    ],
    ids=[
        *("no data set", "no instance", "no class", "unknown", "unknown 2", "answer to a cancel"),
        *("answer without status", "no destination", "no event", "class is no UID", "long AE title", "cut"),
        *("too long", "empty", "no command", "no data set type", "long number", "1000 elements"),
    ],
)  # fmt: skip
def test_what_is_no_command_is_refused_without_a_word_of_it(content: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_command(content, 3)
    assert "SECRET" not in str(raised.value)


def test_the_uids_of_a_request_to_store_are_for_others_to_judge() -> None:
    request = read_command(command().replace(b"1.2.3.4", b"../../x"), 3)
    assert isinstance(request, StoreRequest)
    assert request.sop_instance_uid == "../../x"
    assert b"../../x" not in store_response(request, StoreAnswer(0xC000), 0)


def test_another_command_is_written_again_with_what_is_known_of_it() -> None:
    content = command(CommandField=0x0020, AffectedSOPClassUID="1.2.840.10008.5.1.4.1.2.2.1")
    content += struct.pack("<HHL", 0, 0x0902, 5000) + b"x" * 5000
    read = read_command(content, 3)
    assert isinstance(read, Command)
    assert (read.kind, read.sop_class_uid, read.has_data) == (0x0020, "1.2.840.10008.5.1.4.1.2.2.1", True)
    again = read_command(read.encoded(), 3)
    assert isinstance(again, Command)
    assert dict(again.elements) == dict(read.elements)
    assert len(read.encoded()) < 200


def test_an_ae_title_of_odd_length_is_padded_with_a_space() -> None:
    content = {0x0002: b"1.2", 0x0100: b"\x21\0", 0x0110: b"\1\0", 0x0600: b"NOWHERE", 0x0800: b"\1\0"}
    read = read_command(raw(content), 1)
    assert isinstance(read, Command)
    assert b"NOWHERE " in read.encoded()


@given(st.binary(max_size=300))
def test_rubbish_raises_nothing_else(content: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_command(content, 1)


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
