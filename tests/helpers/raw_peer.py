"""A peer that writes its own bytes: PDUs right and wrong, and what comes back."""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.network.contexts import VERIFICATION

ACCEPTED, REJECTED, DATA, RELEASED, ABORTED = 2, 3, 4, 6, 7
RELEASE = struct.pack(">BxL4x", 5, 4)
Contexts = Mapping[int, tuple[str, Sequence[str]]]


class RejectedError(Exception):
    """The association was rejected: result, source, reason."""


class AbortedError(Exception):
    """The association was aborted, or the connection closed."""


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def request(
    contexts: Contexts, called: str = "NODE", calling: str = "HOSTILE", *, version: int = 1, user: bytes = b"",
    name: bytes = b"1.2.840.10008.3.1.1.1", maximum: int = 16_384,
) -> bytes:  # fmt: skip
    """An A-ASSOCIATE-RQ."""
    body = struct.pack(">H2x", version) + called.encode("latin-1").ljust(16) + calling.encode("latin-1").ljust(16)
    body += bytes(32) + item(0x10, name)
    for number, (abstract, syntaxes) in contexts.items():
        names = item(0x30, abstract.encode()) + b"".join(item(0x40, one.encode()) for one in syntaxes)
        body += item(0x20, bytes((number & 255, 0, 0, 0)) + names)
    body += item(0x50, item(0x51, struct.pack(">L", maximum)) + item(0x52, b"1.2.3.4") + user)
    return struct.pack(">BxL", 1, len(body)) + body


def command(elements: Mapping[int, bytes]) -> bytes:
    """A command set, in Implicit VR Little Endian."""
    body = b"".join(
        struct.pack("<HHL", 0, number, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
        for number, value in elements.items()
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def pdata(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF of (context, control header, value)s."""
    body = b"".join(struct.pack(">LBB", len(value) + 2, context, control) + value for context, control, value in values)
    return struct.pack(">BxL", 4, len(body)) + body


def read(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU: its type and what follows its header."""
    kind, length = struct.unpack(">BxL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise AbortedError("closed")
        data += part
    return data


def kind(connection: socket.socket) -> int:
    return read(connection)[0]


def answer(connection: socket.socket) -> int:
    """The status of the next response."""
    pdu, body = read(connection)
    if pdu != DATA:
        raise AbortedError(f"PDU type {pdu}")
    at = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
    return int.from_bytes(body[at : at + 2], "little")


def open_on(connection: socket.socket, contexts: Contexts, calling: str = "HOSTILE") -> bytes:
    """Open an association; returns the A-ASSOCIATE-AC."""
    connection.sendall(request(contexts, calling=calling))
    pdu, body = read(connection)
    if pdu == REJECTED:
        raise RejectedError(", ".join(map(str, body[1:])))
    if pdu != ACCEPTED:
        raise AbortedError(f"PDU type {pdu}")
    return body


@contextmanager
def associated(port: int, contexts: Contexts, calling: str = "HOSTILE") -> Iterator[socket.socket]:
    """An association; it is not released."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        open_on(connection, contexts, calling)
        yield connection


def echo(port: int) -> int:
    """Status of a C-ECHO on an association of its own."""
    sent = command({0x0002: VERIFICATION.encode(), 0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"})
    with associated(port, {1: (VERIFICATION, [ImplicitVRLittleEndian])}) as connection:
        connection.sendall(pdata((1, 3, sent)))
        status = answer(connection)
        connection.sendall(RELEASE)
        assert kind(connection) == RELEASED
    return status
