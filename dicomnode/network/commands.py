"""Command sets (PS3.7 annex E), read by hand; C-STORE (PS3.7 tables 9.3-1 and 9.3-2), written by hand too.

pynetdicom goes over pydicom datasets for both: 1.5 ms of a C-STORE's 2, and a traceback or a silence where a command
set is not what it should be. Here such a one is a `ProtocolError`. A test compares the bytes with its own.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from dicomnode.logs import is_uid
from dicomnode.network.association_request import ProtocolError

_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_MOVE_DESTINATION = 0x0600
_PRIORITY = 0x0700
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_EVENT_TYPE, _ACTION_TYPE = 0x1002, 0x1008
_SUB_OPERATIONS = (0x1020, 0x1021, 0x1022, 0x1023)
_ORIGINATOR, _ORIGINATOR_MESSAGE_ID = 0x1030, 0x1031

_UIDS = frozenset(
    {
        _AFFECTED_SOP_CLASS_UID,
        _REQUESTED_SOP_CLASS_UID,
        _AFFECTED_SOP_INSTANCE_UID,
        _REQUESTED_SOP_INSTANCE_UID,
    }
)
_NUMBERS = frozenset(
    {
        *(_COMMAND_FIELD, _MESSAGE_ID, _MESSAGE_ID_BEING_RESPONDED_TO, _PRIORITY, _DATA_SET_TYPE, _STATUS),
        *(_EVENT_TYPE, _ACTION_TYPE, *_SUB_OPERATIONS, _ORIGINATOR_MESSAGE_ID),
    }
)
_TITLES = frozenset({_MOVE_DESTINATION, _ORIGINATOR})

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF
_RESPONSE = 0x8000
_REQUEST = (_AFFECTED_SOP_CLASS_UID, _MESSAGE_ID)
#: What a command of each kind must have beside its field and data set type (PS3.7 sections 9.3 and 10.3).
_REQUIRED: Mapping[int, tuple[int, ...]] = {
    _C_STORE_RQ: (*_REQUEST, _AFFECTED_SOP_INSTANCE_UID),
    0x0010: _REQUEST,  # C-GET
    0x0020: _REQUEST,  # C-FIND
    0x0021: (*_REQUEST, _MOVE_DESTINATION),
    C_ECHO_RQ: _REQUEST,
    C_CANCEL_RQ: (_MESSAGE_ID_BEING_RESPONDED_TO,),
    0x0100: (*_REQUEST, _AFFECTED_SOP_INSTANCE_UID, _EVENT_TYPE),  # N-EVENT-REPORT
    0x0110: (_REQUESTED_SOP_CLASS_UID, _MESSAGE_ID, _REQUESTED_SOP_INSTANCE_UID),  # N-GET
    0x0120: (_REQUESTED_SOP_CLASS_UID, _MESSAGE_ID, _REQUESTED_SOP_INSTANCE_UID),  # N-SET
    0x0130: (_REQUESTED_SOP_CLASS_UID, _MESSAGE_ID, _REQUESTED_SOP_INSTANCE_UID, _ACTION_TYPE),
    0x0140: _REQUEST,  # N-CREATE
    0x0150: (_REQUESTED_SOP_CLASS_UID, _MESSAGE_ID, _REQUESTED_SOP_INSTANCE_UID),  # N-DELETE
}
_MOST_ELEMENTS = 64
_NO_DATA_SET = 0x0101
_LAST_COMMAND_FRAGMENT, _COMMAND_FRAGMENT = 0x03, 0x01  # message control header, PS3.8 E.2
_LONGEST_COMMENT = 64  # VR LO
_LONGEST_TITLE = 16  # VR AE


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


@dataclass(frozen=True)
class Command:
    """A command set that names all it must.

    Attributes:
        kind: the command field (PS3.7 E.1).
        sop_class_uid: affected or requested, "" in a response without one.
        has_data: a data set follows.
        elements: what pynetdicom knows of it, by element number, each in its right form.
    """

    kind: int
    sop_class_uid: str
    has_data: bool
    elements: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def is_response(self) -> bool:
        """Whether this answers a request of ours."""
        return bool(self.kind & _RESPONSE)

    @property
    def answers(self) -> int:
        """The Message ID Being Responded To; 0 in a request."""
        return int.from_bytes(self.elements.get(_MESSAGE_ID_BEING_RESPONDED_TO, b""), "little")

    def encoded(self) -> bytes:
        """Return the command set in its order (Implicit VR Little Endian)."""
        body = b"".join(
            _element(number, value, b" " if number in _TITLES else b"\0")
            for number, value in sorted(self.elements.items())
        )
        return _element(_GROUP_LENGTH, struct.pack("<L", len(body))) + body


def read_command(command: bytes, context_id: int) -> StoreRequest | Command:
    """Read an encoded command set (Implicit VR Little Endian); a request to store in the form that its way needs.

    What the UIDs of a request to store are worth is for who answers it to say; everywhere else they must be UIDs.

    Raises:
        ProtocolError: it cannot be read, is no command, or lacks what it must have.
    """
    values = _elements(command)
    kind, data_set = _number(values, _COMMAND_FIELD), _number(values, _DATA_SET_TYPE)
    if kind is None or data_set is None:
        raise ProtocolError("a command set without command field or data set type")
    required = (_MESSAGE_ID_BEING_RESPONDED_TO, _STATUS) if kind & _RESPONSE else _REQUIRED.get(kind)
    if required is None or kind & ~_RESPONSE not in _REQUIRED or kind == C_CANCEL_RQ | _RESPONSE:
        raise ProtocolError(f"unknown command 0x{kind:04X}")
    missing = [number for number in required if not values.get(number, b"").strip(b" \0") and number not in _NUMBERS]
    missing += [number for number in required if number in _NUMBERS and _number(values, number) is None]
    if missing:
        raise ProtocolError(f"command 0x{kind:04X} without (0000,{missing[0]:04x})")
    if kind == _C_STORE_RQ:
        if data_set == _NO_DATA_SET:
            raise ProtocolError("a C-STORE without a data set")
        message_id = _number(values, _MESSAGE_ID) or 0
        return StoreRequest(
            context_id, message_id, _uid(values, _AFFECTED_SOP_CLASS_UID), _uid(values, _AFFECTED_SOP_INSTANCE_UID)
        )
    elements = {number: _known(number, value, kind) for number, value in values.items() if _is_known(number)}
    sop_class = _uid(values, _AFFECTED_SOP_CLASS_UID) or _uid(values, _REQUESTED_SOP_CLASS_UID)
    return Command(kind, sop_class, data_set != _NO_DATA_SET, MappingProxyType(elements))


def _elements(command: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(command) and len(values) < _MOST_ELEMENTS:
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8 + length
        if group != 0 or at > len(command):
            raise ProtocolError("a command set with an element of another group, or longer than all of it")
        values[element] = command[at - length : at]
    if at != len(command):
        raise ProtocolError(f"a command set with more than {_MOST_ELEMENTS} elements, or with half a one at its end")
    return values


def _is_known(number: int) -> bool:
    return number in _UIDS or number in _NUMBERS or number in _TITLES


def _known(number: int, value: bytes, kind: int) -> bytes:
    """Return a value that pynetdicom takes."""
    text = value.decode("latin-1").strip(" \0")
    if number in _UIDS:
        fits = is_uid(text) or not text
    elif number in _TITLES:
        fits = len(text) <= _LONGEST_TITLE and all(" " <= c <= "~" and c != "\\" for c in text)
    else:
        return value if len(value) == 2 else _raise(number, kind)
    return text.encode("ascii") if fits else _raise(number, kind)


def _raise(number: int, kind: int) -> bytes:
    raise ProtocolError(f"command 0x{kind:04X} with a value of (0000,{number:04x}) that is none of its kind")


def store_response(request: StoreRequest, answer: StoreAnswer, longest: int) -> bytes:
    """Return the C-STORE-RSP as P-DATA-TF PDUs (PS3.8 9.3.5); `longest`: the peer's maximum length, 0 for no limit."""
    comment = answer.comment.encode("ascii", "replace")[:_LONGEST_COMMENT]
    elements = b"".join(
        (
            _named(_AFFECTED_SOP_CLASS_UID, request.sop_class_uid),
            _element(_COMMAND_FIELD, struct.pack("<H", _C_STORE_RSP)),
            _element(_MESSAGE_ID_BEING_RESPONDED_TO, struct.pack("<H", request.message_id)),
            _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
            _element(_STATUS, struct.pack("<H", answer.status)),
            _element(_ERROR_COMMENT, comment, b" ") if comment else b"",
            _named(_AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid),
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


def _named(element: int, uid: str) -> bytes:
    """Return the request's UID, which may be left out of the response: what is none is not sent back."""
    return _element(element, uid.encode("ascii"), b"\0") if is_uid(uid) else b""


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("latin-1").strip(" \0")
