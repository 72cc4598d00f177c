"""Waiting without turning: what lets the two threads of an incoming association sleep until there is work."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicomnode.network.tls_socket import TlsSocket

#: Both threads of an association look at their timers at least so often.
_LONGEST_WAIT_S = 0.2
#: Fragments of answers that wait to be sent, of 256 kB at most.
_MOST_TO_SEND = 16


class PollingSocket(AssociationSocket):
    """Waits without polling, reads whole PDUs with few system calls, and has no limit of 1,024 descriptors."""

    def __init__(self, association: Association, client_socket: socket.socket, wake: int, send_s: float) -> None:
        super().__init__(association, client_socket=client_socket)
        self.send_s = send_s
        self._wake = wake
        self._again = bytearray()
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a little for it, until the own side has something to send."""
        sock = self.socket
        if sock is None or not self._is_connected or not self.event_queue.empty():
            return False  # what has happened comes before what is next
        secured = sock if isinstance(sock, TlsSocket) else None
        if secured is not None and secured.pending():
            return True
        try:
            found = [descriptor for descriptor, _ in self._poll.poll(_LONGEST_WAIT_S * 1000)]
            if self._wake in found:
                os.eventfd_read(self._wake)
            # A readable TLS connection may have no byte for us.
            return sock.fileno() in found and (secured is None or secured.readable(0.0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def read(self, view: memoryview, deadline: float) -> int:
        """Fill `view` from the socket; return how much came before the peer closed.

        Raises:
            OSError: the connection failed, or the deadline (monotonic clock) passed.
        """
        sock = self.socket
        assert sock is not None
        done = 0
        while done < len(view):
            count = sock.recv_into(view[done:])
            done += count
            if count == 0:
                break
            if done < len(view) and time.monotonic() > deadline:
                raise TimeoutError("the PDU did not end in time")
        return done

    def read_some(self, buffer: bytearray) -> int:
        """Read what is there, at most what the buffer holds; return how much, 0 once the peer has closed."""
        assert self.socket is not None
        return self.socket.recv_into(buffer)

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a peer that does not take it in time has gone."""
        deadline, rest = time.monotonic() + self.send_s, memoryview(bytestream)
        try:
            assert self.socket is not None
            while rest:
                rest = rest[self.socket.send(rest) :]
                if rest and time.monotonic() > deadline:
                    raise TimeoutError
        except (OSError, AssertionError):
            self.event_queue.put("Evt17")  # transport connection closed

    def give_back(self, data: bytes | memoryview) -> None:
        """Put bytes back: the next `recv`s return them."""
        self._again += data

    def recv(self, nr_bytes: int) -> bytearray:
        """Read only what was given back: this is how pynetdicom reads."""
        given = self._again[:nr_bytes]
        del self._again[:nr_bytes]
        return given


def set_timeout(sock: socket.socket | None, seconds: float) -> None:
    """Let a receive or send that stalls for `seconds` fail, while the socket stays blocking for everybody else."""
    if isinstance(sock, TlsSocket):
        sock.settimeout(seconds)  # the kernel's time-outs do not end a TLS read
    elif sock is not None:
        timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


class WakingQueue(Queue[Any]):
    """A queue whose reader waits for something else too."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, and wake who waits for it."""
        super().put(item, block, timeout)
        self._wake()


class SendQueue(WakingQueue):
    """What we send: who answers faster than the peer reads waits, so that memory does not grow with the answers."""

    def __init__(self, wake: Callable[[], None], is_sending: Callable[[], bool]) -> None:
        super().__init__(wake)
        self._is_sending = is_sending
        self._room = threading.Condition(self.mutex)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in.

        Raises:
            ConnectionError: nobody sends any more.
        """
        if isinstance(item, P_DATA):
            with self._room:
                while self._qsize() >= _MOST_TO_SEND:
                    if not self._is_sending():
                        raise ConnectionError("the association has ended")
                    self._room.wait(_LONGEST_WAIT_S)
        super().put(item, block, timeout)

    def _get(self) -> Any:
        self._room.notify()
        return super()._get()


class ReactorCheckpoint(threading.Event):
    """pynetdicom's association thread passes here once a millisecond; here it waits until there is something to do."""

    def __init__(self) -> None:
        super().__init__()
        self._work = threading.Semaphore(0)
        self.set()

    def wake(self) -> None:
        """There is something to do."""
        self._work.release()

    def set(self) -> None:
        """Lets the thread go on, and wakes it."""
        super().set()
        self._work.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when there is something to do, or a timer to look at, and the thread may go on."""
        self._work.acquire(timeout=_LONGEST_WAIT_S)
        return super().wait(timeout)
