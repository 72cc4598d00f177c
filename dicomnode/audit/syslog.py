"""Audit messages to a syslog server: RFC 5424 over TLS (RFC 5425), over UDP (RFC 5426), or into a file.

Syslog has no answers. Over TLS each batch has a connection of its own, which is closed in order: only when the server
has said that it closes its side too (close_notify), and so has read all there was, the batch counts as sent. One that
closes without a word may have dropped what it read, as rsyslog 8.2302 does where another of its connections failed:
the batch is sent again at once; after `MOST_SILENT` times in a row the server is one that never says so. Over UDP
only a port that nobody listens on is noticed. A message that is sent again bears the same `sequenceId`.
"""

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from dicomnode import files
from dicomnode.audit.messages import clean
from dicomnode.errors import PeerError

#: Facility 10 (security), severity 5 (notice).
_PRIORITY = 85
_MSGID = "DICOM+RFC3881"  # PS3.15 A.6
_MOST_SEQUENCE = 2**31 - 1
#: How long a host that is there takes to say that nobody listens.
_ICMP_S = 0.02
_LARGEST_DATAGRAM = 65_000
#: Bytes that are sent or read at a time.
_PIECE = 16_384
#: So often in a row a server may close without a word before that is taken for its way of closing.
MOST_SILENT = 3


@dataclass(frozen=True)
class Outgoing:
    """A message that waits: its number in the outbox, UTC seconds since 1970, its XML."""

    number: int
    at: float
    xml: str


class Sink(Protocol):
    """Where messages go. As text it is its address."""

    def send(self, batch: Sequence[Outgoing]) -> int:
        """Send a batch; returns how many of it, from its start, are safe there.

        Raises:
            PeerError: none is; the message says why.
        """

    def check(self) -> None:
        """Reach it, and send nothing. Raises PeerError."""


def frame(message: Outgoing, host: str) -> bytes:
    """Return a syslog message (RFC 5424 section 6), whose text begins with a byte order mark as UTF-8 has to."""
    moment = datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sequence = (message.number - 1) % _MOST_SEQUENCE + 1
    name = "".join(c if c.isascii() and c.isprintable() and c != " " else "-" for c in host)[:255] or "-"
    header = f'<{_PRIORITY}>1 {moment} {name} dicomnode {os.getpid()} {_MSGID} [meta sequenceId="{sequence}"] '
    return header.encode() + b"\xef\xbb\xbf" + message.xml.encode("utf-8", "replace")


class _Partings:
    """How often in a row a server has closed without a word."""

    def __init__(self) -> None:
        self._silent = 0

    def counts(self, *, said: bool) -> bool:
        """Whether a batch counts as sent, of whose connection the server has, or has not, said that it closes."""
        self._silent = 0 if said else self._silent + 1
        return said or self._silent >= MOST_SILENT


@dataclass(frozen=True)
class TlsSink:
    """RFC 5425: octet counting over mutual TLS, 1.2 at least (BCP 195).

    Attributes:
        host: name or address, which the server's certificate has to bear.
        port: its TCP port; 6514 is the standard's.
        ca_file: trusted certificates; None: the system's.
        certificate: ours, with its chain; None: we show none.
        key: its private key; None: it stands in the certificate's file.
        timeout_s: for each step.
        own_name: this host, as it is named in the messages.
    """

    host: str
    port: int
    ca_file: Path | None
    certificate: Path | None
    key: Path | None
    timeout_s: float
    own_name: str
    _partings: _Partings = field(default_factory=_Partings, compare=False, repr=False)

    def __str__(self) -> str:
        return f"syslog server {self.host}:{self.port} (TLS)"

    def send(self, batch: Sequence[Outgoing]) -> int:
        """Send the whole batch, or raise PeerError: see `Sink`."""
        while not self._partings.counts(said=self._sent(batch)):
            pass
        return len(batch)

    def check(self) -> None:
        """Connect and close. Raises PeerError."""
        self._sent(())

    def _sent(self, batch: Sequence[Outgoing]) -> bool:
        """Return whether the server has said that it closes. Raises PeerError."""
        content = b"".join(b"%d %s" % (len(one), one) for one in (frame(m, self.own_name) for m in batch))
        try:
            with socket.create_connection((self.host, self.port), self.timeout_s) as raw:
                connection = _Connection(raw, self._context(), self.host, self.timeout_s)
                connection.send(content)
                return connection.close_in_order()
        except ssl.SSLCertVerificationError as error:
            raise PeerError(f"{self}: its certificate is refused: {clean(error.verify_message)}") from error
        except (OSError, ValueError) as error:
            raise PeerError(f"{self}: {_reason(error)}") from error

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class _Connection:
    """TLS over a socket, that knows how the other side has ended.

    `SSLSocket.unwrap` tells that from Python 3.11.4 on: before (Debian 12 has 3.11.2), a connection that merely ends
    looks like one that the server has closed.
    """

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, host: str, timeout_s: float) -> None:
        self._raw, self._timeout_s = raw, timeout_s
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname=host)

    def send(self, content: bytes) -> None:
        """Agree on keys, then send."""
        if not self._done(self._tls.do_handshake):
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection before TLS had begun")
        left = memoryview(content)
        while left:
            left = left[self._tls.write(left[:_PIECE]) :]
            self._flush()

    def close_in_order(self) -> bool:
        """Say that no more comes, and wait until the server has closed its side too; return whether it has said so.

        A server that dies with bytes unread makes its system reset the connection: OSError.
        """
        try:
            if not self._done(self._tls.unwrap):
                return False
        except ssl.SSLZeroReturnError:
            return True
        deadline = time.monotonic() + self._timeout_s
        while self._raw.recv(_PIECE):
            _in_time(deadline)
        return True

    def _done(self, step: Callable[[], object]) -> bool:
        """Do a step to its end; False where the server's side ended before."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # what is wrong, for the server's log
                raise
            else:
                self._flush()
                return True
            piece = self._raw.recv(_PIECE)
            if not piece:
                return False
            self._came.write(piece)
            _in_time(deadline)

    def _flush(self) -> None:
        if self._goes.pending:
            self._raw.sendall(self._goes.read())


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the server neither goes on nor closes the connection")


@dataclass(frozen=True)
class UdpSink:
    """RFC 5426: one datagram for each message. What the network loses is lost."""

    host: str
    port: int
    own_name: str

    def __str__(self) -> str:
        return f"syslog server {self.host}:{self.port} (UDP)"

    def send(self, batch: Sequence[Outgoing]) -> int:
        """Send until the server's host says that nobody listens: see `Sink`."""
        done = 0
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as s:
                s.connect(address)
                for message in batch:
                    s.send(frame(message, self.own_name)[:_LARGEST_DATAGRAM])
                    # The error of a datagram comes with the next call: without waiting it would be told of another.
                    select.select([s], [], [], _ICMP_S)
                    _raise_error_of(s)
                    done += 1
        except OSError as error:
            if not done:
                raise PeerError(f"{self}: {_reason(error)}") from error
        return done

    def check(self) -> None:
        """Look the name up. Raises PeerError."""
        self.send(())


@dataclass(frozen=True)
class FileSink:
    """A file with one message a line, durable when `send` returns. Whoever collects it rotates it (by renaming)."""

    path: Path
    own_name: str

    def __str__(self) -> str:
        return f"file {self.path}"

    def send(self, batch: Sequence[Outgoing]) -> int:
        """Append the batch, or raise PeerError: see `Sink`."""
        content = b"".join(frame(message, self.own_name) + b"\n" for message in batch)
        try:
            files.make_folder(self.path.parent)
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    content = b"\n" + content  # a kill or a full disk has cut the last line off
                while content:
                    content = content[os.write(descriptor, content) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                files.sync_folder(self.path.parent)
        except OSError as error:
            raise PeerError(f"{self}: {_reason(error)}; check the disk and the folder's owner") from error
        return len(batch)

    def check(self) -> None:
        """Open it. Raises PeerError."""
        self.send(())


def _raise_error_of(s: socket.socket) -> None:
    if error := s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"the TLS connection failed ({clean(error.reason or type(error).__name__)})"
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)
    return "timed out" if isinstance(error, TimeoutError) else type(error).__name__
