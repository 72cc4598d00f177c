"""The command sets of C-STORE (PS3.7 tables 9.3-1 and 9.3-2), read and written by hand.

pynetdicom goes over pydicom datasets for both: 1.5 ms of an image's 2. A test compares the bytes with its own.
"""

import struct
from dataclasses import dataclass

_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_LAST_COMMAND_FRAGMENT, _COMMAND_FRAGMENT = 0x03, 0x01  # message control header, PS3.8 E.2
_LONGEST_COMMENT = 64  # VR LO


@dataclass(frozen=True)
class StoreRequest:
    """What a C-STORE-RQ says about the data set that follows it."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class StoreAnswer:
    """The status of a C-STORE (PS3.7 annex C), and words for the sender's log."""

    status: int
    comment: str = ""


def store_request(command: bytes, context_id: int) -> StoreRequest | None:
    """Return the request in an encoded command set (Implicit VR Little Endian).

    None if it is anything but a whole one.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8 + length
        if group != 0 or at > len(command):
            return None
        values[element] = command[at - length : at]
    if at != len(command) or _number(values, _COMMAND_FIELD) != _C_STORE_RQ:
        return None
    sop_class, sop_instance = _uid(values, _AFFECTED_SOP_CLASS_UID), _uid(values, _AFFECTED_SOP_INSTANCE_UID)
    message_id, data_set = _number(values, _MESSAGE_ID), _number(values, _DATA_SET_TYPE)
    if not sop_class or not sop_instance or message_id is None or data_set in (None, _NO_DATA_SET):
        return None
    return StoreRequest(context_id, message_id, sop_class, sop_instance)


def store_response(request: StoreRequest, answer: StoreAnswer, longest: int) -> bytes:
    """Return the C-STORE-RSP as P-DATA-TF PDUs (PS3.8 9.3.5); `longest`: the peer's maximum length, 0 for no limit."""
    comment = answer.comment.encode("ascii", "replace")[:_LONGEST_COMMENT]
    elements = b"".join(
        (
            _element(_AFFECTED_SOP_CLASS_UID, request.sop_class_uid.encode("latin-1"), b"\0"),
            _element(_COMMAND_FIELD, struct.pack("<H", _C_STORE_RSP)),
            _element(_MESSAGE_ID_BEING_RESPONDED_TO, struct.pack("<H", request.message_id)),
            _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
            _element(_STATUS, struct.pack("<H", answer.status)),
            _element(_ERROR_COMMENT, comment, b" ") if comment else b"",
            _element(_AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid.encode("latin-1"), b"\0"),
        )
    )
    command = _element(_GROUP_LENGTH, struct.pack("<L", len(elements))) + elements
    step = max(longest - 6, 1) if longest else len(command)  # 6: length, context and control header of the PDV
    return b"".join(
        _pdu(request.context_id, command[at : at + step], last=at + step >= len(command))
        for at in range(0, len(command), step)
    )


def _pdu(context_id: int, fragment: bytes, *, last: bool) -> bytes:
    control = _LAST_COMMAND_FRAGMENT if last else _COMMAND_FRAGMENT
    return struct.pack(">BxLLBB", 0x04, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


def _element(element: int, value: bytes, padding: bytes = b"") -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0x0000, element, len(value)) + value


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("latin-1").strip(" \0")
