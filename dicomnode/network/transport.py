"""pynetdicom's listening server, with what a hospital's network asks of it.

- A connection becomes an association only when its whole request has come: load balancers probe the port by TCP alone,
  and pynetdicom keeps an association thread for the whole ACSE time-out after such a probe.
- `poll` in place of `select`: with more than 1,024 open descriptors `select` fails for every association.
- TCP_NODELAY: a DIMSE response is a small packet, and Nagle's algorithm holds it back up to 40 ms.
- TLS begins in the connection's own thread: a silent client keeps nobody waiting but itself.
- Several processes may listen on one port: one Python process uses hardly more than one core.
- Every association tells when it has ended, by whatever way it ended.

How an association then reads its PDUs: `dicomnode.network.upper_layer`.
"""

import logging
import select
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, Queue
from typing import Any

from pydicom.config import IGNORE, settings
from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicomnode.errors import ConfigurationError
from dicomnode.network import tls
from dicomnode.network.early import BACKLOG
from dicomnode.network.lobby import Lobby
from dicomnode.network.tls_socket import TlsSocket
from dicomnode.network.upper_layer import Begin, States, UpperLayer

log = logging.getLogger(__name__)

# pynetdicom formats every PDU and every identifier for a log that nobody reads: a tenth of the throughput, and a value
# that cannot be decoded then fails a query that never looks at it.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
# A peer's odd value is no reason for a warning that quotes it: it may be a patient's name. Who uses a value checks it.
settings.reading_validation_mode = IGNORE

#: Connections of one process, those without an association included.
MOST_CONNECTIONS = 3000
#: Connections that wait for their association may fill the places of so many addresses (`Lobby`).
_ADDRESSES = 3
_TELL_S = 60.0
_PDU_HEADER, _A_ASSOCIATE_RQ = 6, 0x01  # type, reserved, length: PS3.8 9.3.1
#: 128 presentation contexts with 16 transfer syntaxes each take 90 kB; the usual request is a tenth.
_LONGEST_REQUEST = 32_768


def disable_nagle(association: Association) -> None:
    """Send small packets of an association at once."""
    wrapped = association.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Gate(threading.Event):
    """pynetdicom's checkpoint of the association's thread; it closes while nobody takes a message (`turn`)."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self.set()

    def clear(self) -> None:
        """Close the gate."""
        with self.turn:
            super().clear()


class _Answers(Queue[Any]):
    """The incoming messages of an association that we requested.

    pynetdicom's thread can pass its checkpoint at the moment that it is closed for a request of ours, and then takes
    the answer away from who waits for it: a fast peer seemed to be silent. Behind a closed gate it finds nothing.
    """

    def __init__(self, gate: _Gate) -> None:
        super().__init__()
        self._gate = gate

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Only pynetdicom's thread asks without waiting."""
        if block:
            return super().get(block, timeout)
        with self._gate.turn:
            if not self._gate.is_set():
                raise Empty
            return super().get(block=False)


class RequestorEntity(ApplicationEntity):
    """An application entity that requests associations over `RequestorSocket`, and loses no answer."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        # pynetdicom hands out an answer that it cannot decode while it holds this lock; whoever then sets a time-out
        # takes it again. With a plain lock, a single such answer of a peer stopped its thread for ever.
        self._lock = threading.RLock()  # type: ignore[assignment]

    def associate(self, *args: Any, **kwargs: Any) -> Association:
        """As pynetdicom's."""
        association = super().associate(*args, **kwargs)
        _take_up_rejection(association)
        gate = _Gate()
        association.dimse.msg_queue = _Answers(gate)
        association._reactor_checkpoint = gate
        return association

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        assoc.dul.state_machine = States(assoc.dul)
        made = RequestorSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


def _take_up_rejection(association: Association) -> None:
    """Take in a rejection that came before pynetdicom's thread looked whether it is connected.

    The thread that reads closes the connection at a rejection; the one that asked then finds it closed, takes that for
    a connection that never was, and leaves the answer in the queue: «not now» instead of «never».
    """
    answers = association.dul.to_user_queue
    if association.is_established or association.is_rejected or answers.empty():
        return
    answer: object = answers.get_nowait()
    if isinstance(answer, A_ASSOCIATE) and answer.result:
        association.acceptor.primitive = answer
        association.is_rejected, association.is_aborted = True, False


class RequestorSocket(AssociationSocket):
    """Knows why it could not connect, closes what did not connect, and knows no limit of 1,024 descriptors."""

    failure: OSError | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        if self.socket is None or not self._is_connected:
            return False
        try:
            return readable(self.socket, 0.0)
        except (OSError, ValueError) as error:
            self._note(error)
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """As pynetdicom's; notes why it failed."""
        try:
            return super().recv(nr_bytes)
        except OSError as error:
            self._note(error)
            raise

    def _note(self, error: BaseException) -> None:
        # With TLS 1.3 a peer refuses our certificate only after the handshake, by an alert.
        if isinstance(error, ssl.SSLError):
            self.failure = error

    def _note_last_words(self) -> None:
        """Take in the alert of a peer that has closed before our request was sent."""
        if self.failure is None and isinstance(self.socket, TlsSocket) and self._is_connected:
            try:
                self.socket.readable(0.0)
            except (OSError, ValueError) as error:
                self._note(error)

    def _shutdown_socket(self) -> None:
        self._note_last_words()
        # Called where `connect` handles the error, which it only logs.
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.failure = error
        sock = self.socket
        super()._shutdown_socket()
        if sock is not None:
            sock.close()  # pynetdicom leaves it open if it never was connected


def readable(sock: socket.socket, timeout_s: float) -> bool:
    """Whether a read would not block."""
    if isinstance(sock, TlsSocket):
        return sock.readable(timeout_s)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def has_request(sock: socket.socket, timeout_s: float) -> bool:
    """Wait until a whole association request stands in the socket's buffer; False where it does not come.

    An association is two more threads and some milliseconds of the one core that Python has: half-open connections
    shall not get one. What is no request, or too long to be an honest one, counts as whole: it is answered by an abort.
    """
    until = time.monotonic() + timeout_s
    wanted = _PDU_HEADER
    try:
        while True:
            start = _peek(sock, wanted, max(until - time.monotonic(), 0.0))
            if len(start) < wanted:
                return False
            kind, length = struct.unpack_from(">BxL", start)
            whole = _PDU_HEADER + length
            if wanted == whole or kind != _A_ASSOCIATE_RQ or length > _LONGEST_REQUEST:
                if not isinstance(sock, TlsSocket):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                return True
            wanted = whole
    except OSError:
        return False  # reset by the peer


def _peek(sock: socket.socket, count: int, timeout_s: float) -> bytes:
    """Return the next bytes, which remain to be read: all of them, or b"" or fewer if they do not come in time."""
    if isinstance(sock, TlsSocket):
        return sock.peek(count, timeout_s)
    # The kernel wakes us when so much is there, and not at every byte.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    return sock.recv(count, socket.MSG_PEEK) if readable(sock, timeout_s) else b""


class _Handler(RequestHandler):
    """One connection, in its own thread, from its first byte to its end."""

    server: "DicomServer"

    def handle(self) -> None:
        """Wait for the handshake and the request, run the association, report that it has ended."""
        server = self.server
        try:
            if server.security is not None and not self._is_secured(server.security):
                return
            if has_request(self.request, server.open_timeout_s) and not self._wants_tls():
                self._associate()
            else:
                log.debug("connection from %s closed without a request", self.client_address[0])
        finally:
            server.shutdown_request(self.request)

    def _is_secured(self, security: tls.ReloadingContext) -> bool:
        """Handshake, here in the connection's own thread and within the time that a request has."""
        server, address = self.server, self.client_address[0]
        until, plain = time.monotonic() + server.open_timeout_s, self.request
        if not self._speaks(plain):
            log.debug("connection from %s closed without a TLS handshake", address)
            return False
        try:
            context = security.current()
            made = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            server.connections.discard(plain)
            server.connections.add(made)
            server.lobby.renew(plain, made)
            self.request = made
            made.settimeout(max(until - time.monotonic(), 0.001))
            made.do_handshake()
        except OSError as error:
            tls.report_failure(address, tls.explain(error))
        except ConfigurationError as error:
            log.error("TLS: %s", error)
        else:
            return True
        return False

    def _speaks(self, plain: socket.socket) -> bool:
        """Wait for a first byte: what probes the port leaves no line in the log."""
        try:
            return bool(_peek(plain, 1, self.server.open_timeout_s))
        except OSError:
            return False

    def _wants_tls(self) -> bool:
        """Whether what came on the port without TLS is a TLS handshake; `has_request` has seen its bytes."""
        try:
            if isinstance(self.request, TlsSocket) or not tls.speaks_tls(self.request.recv(2, socket.MSG_PEEK)):
                return False
        except OSError:
            return False
        tls.report_failure(self.client_address[0], "it speaks TLS on the port without: let it call node.tls_port")
        return True

    def _associate(self) -> None:
        server = self.server
        association = self._create_association()
        provider = UpperLayer(
            association, self.request, server.begin, open_s=server.open_timeout_s, pdu_s=server.network_timeout_s
        )
        disable_nagle(association)
        try:
            association.start()
            association.join()
            provider.join()
        finally:
            provider.close()
            server.ended(association)


class DicomServer(ThreadedAssociationServer):
    """The listening socket of a receiver. `ended` is called once for each association, in a thread of its own.

    `security`: every connection has to begin with TLS. `opened`: the socket of the address, where it listens already.
    """

    # Else closing the server waits for every association.
    daemon_threads = True
    # pynetdicom's 5 is soon full when a scanner opens one association per series.
    request_queue_size = BACKLOG

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        title: str,
        contexts: list[PresentationContext],
        *,
        open_timeout_s: float,
        network_timeout_s: float,
        waiting: int,
        begin: Begin,
        ended: Callable[[Association], None],
        evt_handlers: list[Any],
        share_port: bool = False,
        security: tls.ReloadingContext | None = None,
        opened: socket.socket | None = None,
    ) -> None:
        self.open_timeout_s = open_timeout_s
        self.network_timeout_s = network_timeout_s
        self.begin = begin
        self.security = security
        self.ended = ended
        self.connections: set[socket.socket] = set()
        self.lobby = Lobby(waiting, _ADDRESSES * waiting)
        self._told_at = -_TELL_S
        self._share_port = share_port
        self._opened = opened
        super().__init__(entity, address, title, contexts, evt_handlers=evt_handlers, request_handler=_Handler)

    def server_bind(self) -> None:
        """Bind the address, where so configured together with other processes of this user (the kernel deals out)."""
        if self._opened is not None:
            if self.socket is not None:
                self.socket.close()
            self.socket = self._opened
            self.socket.settimeout(self.ae.network_timeout)
            self.server_address = self.socket.getsockname()
            return
        if self._share_port and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def server_activate(self) -> None:
        """Listen. A socket that does so already keeps its longer queue: those in it are still to be answered."""
        if self._opened is None:
            super().server_activate()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Each connection costs a thread: there is an end to it, far above any honest use."""
        if len(self.connections) >= MOST_CONNECTIONS:
            self._tell("closed a connection from %s: %d are open", client_address[0], MOST_CONNECTIONS)
            return False
        self.connections.add(request)
        closed = self.lobby.enter(request, client_address[0])
        if closed is not None:
            self._tell("closed the oldest connection from %s that waits for its association: too many do", closed)
        return True

    def settle(self, association: Association) -> None:
        """Let an association's connection out of the lobby: it has its place."""
        wrapped = association.dul.socket
        if wrapped is not None and wrapped.socket is not None:
            self.lobby.leave(wrapped.socket)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, also one for which no thread could be started."""
        self.connections.discard(request)
        self.lobby.leave(request)
        super().shutdown_request(request)

    def _tell(self, text: str, *arguments: object) -> None:
        """Log what a flood brings about, once a minute."""
        if time.monotonic() - self._told_at >= _TELL_S:
            self._told_at = time.monotonic()
            log.warning(text, *arguments)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log a failed connection, which does not end the server, instead of writing to standard error."""
        log.warning("connection from %s failed", client_address[0], exc_info=True)

    def shutdown(self) -> None:
        """No new connections; running associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
