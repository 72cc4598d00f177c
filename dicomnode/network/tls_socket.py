"""A TLS socket that can be looked into, and whose reads end in time.

`recv(…, MSG_PEEK)` fails on an SSLSocket, SO_RCVTIMEO does not bound its reads, and a readable descriptor may hold no
byte for us: a part of a record, or a message of TLS itself, such as the tickets behind a handshake of TLS 1.3. Here
what was read too early is kept for the next read, and time-outs are those of `settimeout`, which Python counts over a
whole read.
"""

import select
import ssl
import time
from contextlib import suppress
from typing import Any

from dicomnode.network.identities import CertificateIdentity, identities_of

#: The header of a PDU: what a look at the connection takes in, so that its reader has it in one piece.
_LOOK = 6
#: The `verify_code` of a certificate that is not the expected one: none of OpenSSL's.
MISMATCH = -1


class TlsSocket(ssl.SSLSocket):
    """One TLS connection. Made by a `TlsContext`, which knows who the peer has to be."""

    _ahead = b""
    _is_ended = False

    #: Of the verified peer, after the handshake.
    identities: frozenset[CertificateIdentity] = frozenset()

    def do_handshake(self, block: bool = False) -> None:
        """Handshake, within the socket's time-out as a whole, and take in who the peer is.

        Raises:
            OSError: the handshake failed, or the peer's certificate is none of those that were expected.
        """
        super().do_handshake(block)
        self.identities = identities_of(self)
        expected = getattr(self.context, "expected", ())
        if expected and self.identities.isdisjoint(expected):
            error = ssl.SSLCertVerificationError("certificate mismatch")
            error.verify_code, error.verify_message = MISMATCH, ""
            raise error

    def pending(self) -> int:
        """Return how many bytes can be read without the network."""
        return len(self._ahead) + super().pending()

    def peek(self, count: int, timeout_s: float) -> bytes:
        """Return the next `count` bytes, which remain to be read; fewer where no more come in time."""
        until = time.monotonic() + timeout_s
        while len(self._ahead) < count and self._take(count - len(self._ahead), max(until - time.monotonic(), 0.0)):
            pass
        return self._ahead[:count]

    def readable(self, timeout_s: float) -> bool:
        """Whether a read has something to return: bytes, or the connection's end. Raises OSError if it failed."""
        until = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self, select.POLLIN)
        while not self.pending() and not self._is_ended:
            if not poll.poll(max(until - time.monotonic(), 0.0) * 1000):
                return False
            self._take(_LOOK, 0.0)
        return True

    def _take(self, count: int, timeout_s: float) -> bool:
        """Read ahead; False where nothing came in time."""
        usual = self.gettimeout()
        self.settimeout(timeout_s)
        try:
            taken = super().recv(count)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, TimeoutError):
            return False
        finally:
            self.settimeout(usual)
        self._ahead += taken
        self._is_ended = not taken
        return bool(taken)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read at most so many bytes."""
        if not self._ahead:
            return super().recv(buflen, flags)
        given, self._ahead = self._ahead[:buflen], self._ahead[buflen:]
        return given

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Read into a buffer; return how many bytes."""
        if not self._ahead:
            return super().recv_into(buffer, nbytes, flags)
        given = self.recv(min(nbytes or len(buffer), len(buffer)))
        memoryview(buffer)[: len(given)] = given
        return len(given)

    def shutdown(self, how: int) -> None:
        """Say that we close (RFC 8446 section 6.1), without waiting for the peer to say so, and shut down."""
        with suppress(OSError, ValueError):
            self.settimeout(0.0)
            self.unwrap()
        super().shutdown(how)


class TlsContext(ssl.SSLContext):
    """A context whose sockets are `TlsSocket`s; `expected`: one of these the peer's certificate has to show."""

    sslsocket_class = TlsSocket
    expected: tuple[CertificateIdentity, ...] = ()
