"""The sender of HL7 version 2 messages: MLLP (HL7 transport specification, release 1), original acknowledgement mode.

`HANDLING` says what each answer is taken as. AE says as little as a processing failure of DICOM: receivers give it when
their database is down, so trying again may help, and a receiver that has the message already knows it by its number
(MSH-10). The connection is closed after each.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dicomnode.errors import ConfigurationError, PeerError, PeerRejectedError
from dicomnode.network import tls
from dicomnode.network.bounded_http import SLOWEST_BYTES_S, Deadline
from dicomnode.network.tls import Security

_START, _LAST = b"\x0b", b"\x1c"
_END = _LAST + b"\x0d"
#: No acknowledgement comes near.
_MOST_BYTES = 1 << 16
_STORED, _REJECTED = ("AA", "CA"), ("AR", "CR")
_ACKNOWLEDGEMENTS = (*_STORED, *_REJECTED, "AE", "CE")
_PASSING_CODES = frozenset({206, 207})
_LASTING_CODES = frozenset({*range(100, 106), *range(200, 205)})
#: An answer, where HL7 version 2 defines it, and what it is taken as.
HANDLING: tuple[tuple[str, str, str], ...] = (
    (f"{' or '.join(_STORED)} in MSA-1, to this message", "section 2.9.2", "stored"),
    ("no connection, certificate not trusted, time-out, closed without an answer", "", "passing"),
    ("an answer that is too large, too slow, no acknowledgement, or one to another message", "", "passing"),
    ("AE, CE: an error in processing", "section 2.9.2, table 0008", "passing"),
    (f"{', '.join(_REJECTED)}: rejected", "table 0008", "permanent"),
    (f"any of these four with error {' or '.join(map(str, sorted(_PASSING_CODES)))}", "table 0357", "passing"),
    ("any of these four with error 100 to 105, or 200 to 204", "table 0357", "permanent"),
)


@dataclass(frozen=True)
class MllpServer:
    """A receiver of HL7 messages. `security`: TLS, or None. `timeout_s`: the longest silence."""

    name: str
    host: str
    port: int
    security: Security | None = None
    timeout_s: float = 30.0

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"


def echo(server: MllpServer) -> float:
    """Connect, and say nothing: MLLP has no question that brings nobody's data. Returns seconds. Raises PeerError."""
    started = time.perf_counter()
    with Deadline(2 * server.timeout_s) as deadline, _connected(server, deadline):
        return time.perf_counter() - started


def exchange(server: MllpServer, message: bytes, number: str) -> None:
    """Send a message and wait until the receiver has acknowledged it.

    Args:
        server: the receiver.
        message: without its frame; it holds neither of the frame's bytes.
        number: MSH-10, which the acknowledgement repeats.

    Raises:
        PeerError: a failure in passing; the message may have been taken nevertheless.
        PeerRejectedError: a refusal for good.
    """
    total_s = 2 * server.timeout_s + len(message) / SLOWEST_BYTES_S
    with Deadline(total_s) as deadline:
        try:
            with _connected(server, deadline) as connection:
                connection.sendall(_START + message + _END)
                answer = _answer(server, connection)
        except (OSError, PeerError) as error:
            if deadline.passed:  # by which the connection was cut
                raise PeerError(f"{server} did not finish its acknowledgement within {total_s:.0f} s") from None
            if isinstance(error, PeerError):
                raise
            raise PeerError(f"{server}{_why(error, server.timeout_s)}") from None
    _judge(server, answer, number)


def _why(error: OSError, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f" did not acknowledge within {timeout_s:g} s"
    if isinstance(error, ssl.SSLError):  # with TLS 1.3, our certificate is refused after the handshake
        return f": no TLS connection: {tls.explain(error)}"
    return f": the connection broke ({error.strerror or type(error).__name__})"


@contextmanager
def _connected(server: MllpServer, deadline: Deadline) -> Iterator[socket.socket]:
    """Yield a connection, by TLS where that is configured. Raises PeerError where there is none."""
    try:
        plain = socket.create_connection((server.host, server.port), timeout=server.timeout_s)
    except socket.gaierror as error:
        raise PeerError(f"{server}: unknown host name ({error.strerror}); correct host or DNS") from None
    except OSError as error:
        why = error.strerror or "timed out"
        raise PeerError(
            f"{server}: no connection ({why}); check host, port and firewall, and whether it runs"
        ) from None
    with plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline.watch(plain)
        if server.security is None:
            yield plain
            return
        with _secured(server, server.security, plain) as encrypted:
            yield encrypted


def _secured(server: MllpServer, security: Security, plain: socket.socket) -> ssl.SSLSocket:
    try:
        return tls.client_context(security).wrap_socket(plain, server_hostname=server.host)
    except ConfigurationError as error:
        # It passes: a delivery waits until somebody has corrected the file.
        raise PeerError(f"{server}: no TLS connection: {error}") from None
    except OSError as error:
        raise PeerError(f"{server}: no TLS connection: {tls.explain(error)}") from None


def _answer(server: MllpServer, connection: socket.socket) -> bytes:
    """Return what stands in the first frame that comes. Raises OSError, PeerError."""
    found = bytearray()
    while _LAST not in found:
        piece = connection.recv(4096)
        if not piece:
            raise PeerError(f"{server} closed the connection without acknowledging")
        found += piece
        if len(found) > _MOST_BYTES:
            raise PeerError(f"{server} answered with more than {_MOST_BYTES >> 10} kB: not read to its end")
    return bytes(found.partition(_LAST)[0].rpartition(_START)[2])


def _judge(server: MllpServer, answer: bytes, number: str) -> None:
    """Raise unless the message was taken. The answer is not repeated: its text may quote the message."""
    segments = _segments(answer)
    acknowledged = next((one for one in segments if one[0] == "MSA"), [])
    code, of = ([*acknowledged, "", "", ""])[1:3]
    if code not in _ACKNOWLEDGEMENTS:
        raise PeerError(f"{server} answered with no acknowledgement: not known whether it has stored the message")
    if of != number:
        raise PeerError(f"{server} acknowledged another message: not known whether it has stored this one")
    if code in _STORED:
        return
    why = _error_code(segments)
    text = f"{server} answered {code}" + (f" with error {why}" if why is not None else "")
    lasting = why in _LASTING_CODES or (code in _REJECTED and why not in _PASSING_CODES)
    if lasting:
        raise PeerRejectedError(f"{text}: see its log for the reason, and whether it expects ORU^R01 of 2.5.1 from us")
    raise PeerError(f"{text}: temporarily unable to store")


def _segments(answer: bytes) -> list[list[str]]:
    """Return the fields of each segment, with the separators that the answer states; none where it is no message."""
    text = answer.decode("utf-8", "replace")
    if not text.startswith("MSH") or len(text) < 8:
        return []
    return [line.split(text[3]) for line in text.replace("\n", "\r").split("\r") if line]


def _error_code(segments: list[list[str]]) -> int | None:
    """Return the code of table 0357: ERR-3, before version 2.5 the fourth component of ERR-1, or MSA-6."""
    separator = segments[0][1][:1]
    error = next((one for one in segments if one[0] == "ERR"), [])
    acknowledged = next(one for one in segments if one[0] == "MSA")
    places = [error[3:4], [c for field in error[1:2] for c in field.split(separator)[3:4]], acknowledged[6:7]]
    for place in places:
        # Components of components: &, whatever the answer calls it.
        first = place[0].split(separator)[0].split("&")[0] if place else ""
        if first.isascii() and first.isdigit() and len(first) <= 4:
            return int(first)
    return None
