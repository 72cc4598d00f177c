"""pynetdicom's listening server, with what a hospital's network asks of it.

- A connection becomes an association only when its first byte has come: load balancers probe the port by TCP alone, and
  pynetdicom keeps an association thread for the whole ACSE time-out after such a probe.
- `poll` in place of `select`: with more than 1,024 open descriptors `select` fails for every association.
- TCP_NODELAY: a DIMSE response is a small packet, and Nagle's algorithm holds it back up to 40 ms.
- Time-outs on the socket: pynetdicom waits for the rest of a begun PDU for ever.
- No polling by sleep: pynetdicom's two threads per association look for work every millisecond, and each image passes
  both twice. Here the network thread waits in `poll` until one side has something, and serves a C-STORE itself.
- Every association tells when it has ended, by whatever way it ended.
"""

import logging
import os
import queue
import select
import socket
import socketserver
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

LOGGER = logging.getLogger(__name__)

#: The network thread looks at its timers at least so often.
_LONGEST_WAIT_MS = 50


def disable_nagle(association: Association) -> None:
    """Sends small packets of an association at once."""
    wrapped = association.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """A receive or send that stalls for `seconds` fails, while the socket stays blocking for everybody else."""
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


class RequestorEntity(ApplicationEntity):
    """An application entity that requests associations over `RequestorSocket`."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = RequestorSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


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
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def _shutdown_socket(self) -> None:
        # Called where `connect` handles the error, which it only logs.
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.failure = error
        sock = self.socket
        super()._shutdown_socket()
        if sock is not None:
            sock.close()  # pynetdicom leaves it open if it never was connected


class PollingSocket(AssociationSocket):
    """Waits without turning, reads whole PDUs with few system calls, knows no limit of 1,024 descriptors."""

    def __init__(self, association: Association, client_socket: socket.socket, wake: int) -> None:
        super().__init__(association, client_socket=client_socket)
        self._wake = wake
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a little for it, until the own side has something to send."""
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        try:
            found = [descriptor for descriptor, _ in self._poll.poll(_LONGEST_WAIT_MS)]
            if self._wake in found:
                os.eventfd_read(self._wake)
            return sock.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes` from the socket, fewer if the peer closed it."""
        sock = self.socket
        assert sock is not None
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        done = 0
        while done < nr_bytes:
            count = sock.recv_into(view[done:])
            if count == 0:
                break
            done += count
        view.release()
        del buffer[done:]
        return buffer


def readable(sock: socket.socket, timeout_s: float) -> bool:
    """Whether a read would not block. TLS may hold bytes that the kernel has given up already."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class _ProviderQueue(queue.Queue[Any]):
    """What the own side wants sent. It wakes the network thread out of its `poll`."""

    def __init__(self, wake: int) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        os.eventfd_write(self._wake, 1)


class _MessageQueue(queue.Queue[Any]):
    """Complete DIMSE requests. A C-STORE is served here, in the network thread, which has nothing else to do meanwhile:
    the peer waits for the answer. All else goes to the association's thread."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        context_id, message = item
        # Not for us to judge: what is no valid C-STORE in an accepted context ends in pynetdicom's own way.
        context = self._association._accepted_cx.get(context_id)
        if isinstance(message, C_STORE) and message.is_valid_request and context is not None:
            StorageServiceClass(self._association).SCP(message, context)
        else:
            super().put(item, block, timeout)


class _Handler(RequestHandler):
    """One connection, in its own thread, from its first byte to its end."""

    server: "Server"

    def handle(self) -> None:
        """Waits for the first byte, runs the association, tells that it has ended."""
        try:
            if readable(self.request, self.server.first_byte_timeout_s) and self.request.recv(1, socket.MSG_PEEK):
                self._associate()
            else:
                LOGGER.debug("connection from %s closed without a request", self.client_address[0])
        finally:
            self.server.shutdown_request(self.request)

    def _associate(self) -> None:
        set_timeout(self.request, self.server.network_timeout_s)
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        association = self._prepared(wake)
        try:
            association.start()
            association.join()
            association.dul.join()
        finally:
            os.close(wake)
            self.server.ended(association)

    def _prepared(self, wake: int) -> Association:
        association = self._create_association()
        dul = association.dul
        # It was given pynetdicom's socket; ours announces the connection (Evt5) once more, so take that back.
        dul.event_queue.get_nowait()
        dul.to_provider_queue = _ProviderQueue(wake)
        dul.socket = PollingSocket(association, self.request, wake)
        dul._run_loop_delay = 0.0
        association.dimse.msg_queue = _MessageQueue(association)
        disable_nagle(association)
        return association


class Server(ThreadedAssociationServer):
    """The listening socket of a receiver. `ended` is called once for each association, in a thread of its own."""

    # Else closing the server waits for every association.
    daemon_threads = True
    # Connections that wait for `accept`; pynetdicom's 5 is soon full when a scanner opens one association per series.
    request_queue_size = 128

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        title: str,
        contexts: list[PresentationContext],
        *,
        first_byte_timeout_s: float,
        network_timeout_s: float,
        ended: Callable[[Association], None],
        evt_handlers: list[Any],
    ) -> None:
        self.first_byte_timeout_s = first_byte_timeout_s
        self.network_timeout_s = network_timeout_s
        self.ended = ended
        super().__init__(entity, address, title, contexts, evt_handlers=evt_handlers, request_handler=_Handler)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """A failed connection goes to the log instead of standard error, and does not end the server."""
        LOGGER.warning("connection from %s failed", client_address[0], exc_info=True)

    def shutdown(self) -> None:
        """No new connections; running associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
