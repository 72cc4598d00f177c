"""The A-ASSOCIATE-RQ PDU (PS3.8 9.3.2) as it comes, read by hand and written again as pynetdicom can take it.

pynetdicom ends in a traceback, or keeps its threads for half a minute, where PS3.8 says what to do: `HANDLING`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dicomnode.logs import is_uid

#: Longest request, bytes: 128 presentation contexts with 16 transfer syntaxes each take 90 kB.
LONGEST_REQUEST = 1 << 17
#: (result, source, reason) of an A-ASSOCIATE-RJ, PS3.8 table 9-21.
Rejection = tuple[int, int, int]
APPLICATION_CONTEXT_NOT_SUPPORTED: Rejection = (1, 1, 2)
CALLING_AE_NOT_RECOGNISED: Rejection = (1, 1, 3)
CALLED_AE_NOT_RECOGNISED: Rejection = (1, 1, 7)
PROTOCOL_VERSION_NOT_SUPPORTED: Rejection = (1, 2, 2)

#: What may come, where PS3.8 speaks of it, and what happens here.
HANDLING: tuple[tuple[str, str, str], ...] = (
    ("protocol version with more bits than bit 0", "9.3.2", "taken; without bit 0 rejected (1, 2, 2)"),
    ("AE title padded with NUL", "9.3.2", "as with spaces"),
    ("AE title blank, or with control or non-ASCII characters", "9.3.2", "rejected (1, 1, 3 and 1, 1, 7)"),
    ("another application context", "7.1.1.2", "rejected (1, 1, 2)"),
    ("unknown items and sub-items", "9.3.1", "ignored"),
    ("implementation version name of more than 16 characters", "PS3.7 D.3.3.2", "ignored, as it is not negotiated"),
    ("UIDs padded with NUL or space", "annex F", "taken"),
    ("lengths that do not fit, context without abstract or transfer syntax", "9.3.1", "aborted"),
    ("context ID even or repeated, more than 128 contexts, none", "9.3.2.2", "aborted"),
    ("maximum length below 16 bytes", "annex D", "aborted"),
)

_FIXED = 74  # PDU header, version, AE titles, reserved
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_CONTEXT_NAME, _CONTEXT, _ABSTRACT, _SYNTAX, _USER = 0x10, 0x20, 0x30, 0x40, 0x50  # item types
_LENGTH, _CLASS, _ROLE = 0x51, 0x52, 0x54
_MOST_CONTEXTS = 128
#: Of one context; nobody offers a quarter of it.
_MOST_SYNTAXES = 64
#: What we send is at most so long even where a peer takes more: it waits in memory.
_SHORTEST_MAXIMUM, _LONGEST_MAXIMUM = 16, 1 << 18
_USUAL_MAXIMUM = 16_384
#: Stands where a UID should be: nobody offers it.
_NO_UID = "0.0"
_NO_TITLE = "?"


class ProtocolError(Exception):
    """What came is against PS3.7 or PS3.8: the association is aborted. The text quotes nothing that came."""


@dataclass(frozen=True)
class ReadRequest:
    """`pdu`: the request in the form that pynetdicom takes. `refusal`: why it must be rejected, if so."""

    pdu: bytes
    refusal: Rejection | None


def read_request(pdu: bytes) -> ReadRequest:
    """Read an A-ASSOCIATE-RQ with its header.

    Raises:
        ProtocolError: it is none that can be answered; the association is to be aborted.
    """
    if len(pdu) < _FIXED:
        raise ProtocolError(f"an A-ASSOCIATE-RQ of {len(pdu)} bytes, which is shorter than its fixed part")
    called, calling = _title(pdu[10:26]), _title(pdu[26:42])
    items = [(kind, value) for kind, value in _items(pdu[_FIXED:])]
    refusal = None
    name = next((_uid(value) for kind, value in items if kind == _CONTEXT_NAME), "")
    if not pdu[7] & 1:  # the version's bit 0; the bits above stand for versions to come
        refusal = PROTOCOL_VERSION_NOT_SUPPORTED
    elif name != _APPLICATION_CONTEXT:
        refusal = APPLICATION_CONTEXT_NOT_SUPPORTED
    elif called is None:
        refusal = CALLED_AE_NOT_RECOGNISED
    elif calling is None:
        refusal = CALLING_AE_NOT_RECOGNISED
    body = b"".join(
        (
            b"\0\1\0\0",
            (called or _NO_TITLE).encode("ascii").ljust(16),
            (calling or _NO_TITLE).encode("ascii").ljust(16),
            bytes(32),
            _item(_CONTEXT_NAME, _APPLICATION_CONTEXT.encode("ascii")),
            *_contexts(value for kind, value in items if kind == _CONTEXT),
            _user(next((value for kind, value in items if kind == _USER), b"")),
        )
    )
    return ReadRequest(struct.pack(">BxL", 1, len(body)) + body, refusal)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ProtocolError("an A-ASSOCIATE-RQ that ends within the header of an item")
        kind, length = struct.unpack_from(">BxH", data, at)
        if at + 4 + length > len(data):
            raise ProtocolError(f"an item of an A-ASSOCIATE-RQ that is {length} bytes long and does not end in it")
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _title(raw: bytes) -> str | None:
    text = raw.decode("latin-1").strip(" \0")
    return text if text and all(" " <= c <= "~" and c != "\\" for c in text) else None


def _uid(raw: bytes) -> str:
    text = raw.decode("latin-1").strip(" \0")
    return text if is_uid(text) else _NO_UID


def _contexts(given: Iterator[bytes]) -> Iterator[bytes]:
    seen: set[int] = set()
    for value in given:
        if len(value) < 4:
            raise ProtocolError("a presentation context without an ID")
        context_id = value[0]
        if not context_id % 2 or context_id in seen:
            raise ProtocolError(f"presentation context ID {context_id} is even or repeated")
        seen.add(context_id)
        subs = [(kind, _uid(name).encode("ascii")) for kind, name in _items(value[4:])]
        abstract = next((name for kind, name in subs if kind == _ABSTRACT), None)
        syntaxes = list(dict.fromkeys(name for kind, name in subs if kind == _SYNTAX))[:_MOST_SYNTAXES]
        if abstract is None or not syntaxes:
            raise ProtocolError(f"presentation context {context_id} has no abstract or no transfer syntax")
        names = [_item(_ABSTRACT, abstract), *(_item(_SYNTAX, name) for name in syntaxes)]
        yield _item(_CONTEXT, bytes((context_id, 0, 0, 0)) + b"".join(names))
    if not seen:
        raise ProtocolError("an A-ASSOCIATE-RQ without a presentation context")


def _user(value: bytes) -> bytes:
    """User information: maximum length and roles. Nothing else is negotiated here (PS3.7 annex D)."""
    maximum, roles = _USUAL_MAXIMUM, dict[str, bytes]()
    for kind, sub in _items(value):
        if kind == _LENGTH:
            if len(sub) != 4:
                raise ProtocolError("a maximum length sub-item of another size than 4 bytes")
            maximum = int.from_bytes(sub, "big")
        elif kind == _ROLE and (role := _role(sub)) is not None and len(roles) < _MOST_CONTEXTS:
            roles.setdefault(*role)
    if 0 < maximum < _SHORTEST_MAXIMUM:
        raise ProtocolError(f"the peer takes PDUs of {maximum} bytes at most; {_SHORTEST_MAXIMUM} are needed")
    maximum = min(maximum or _LONGEST_MAXIMUM, _LONGEST_MAXIMUM)
    subs = [_item(_LENGTH, struct.pack(">L", maximum)), _item(_CLASS, _NO_UID.encode("ascii"))]
    return _item(_USER, b"".join((*subs, *(_item(_ROLE, role) for role in roles.values()))))


def _role(sub: bytes) -> tuple[str, bytes] | None:
    """(SOP class, SCP/SCU role selection, PS3.7 D.3.3.4); None for what cannot be read or asks for no role."""
    length = int.from_bytes(sub[:2], "big")
    name, roles = _uid(sub[2 : 2 + length]), sub[2 + length :]
    if len(roles) != 2 or roles not in (b"\0\1", b"\1\0", b"\1\1") or name == _NO_UID:
        return None
    return name, struct.pack(">H", len(name)) + name.encode("ascii") + roles
