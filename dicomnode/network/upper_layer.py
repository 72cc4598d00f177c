"""The upper layer of an incoming association (PS3.8): pynetdicom's state machine, without its polling and its copies.

- A C-STORE goes from the socket into the spool fragment by fragment, and is answered here, in the network thread: the
  peer waits for the answer, and there is nothing else to do meanwhile. Everything else takes pynetdicom's own way.
- pynetdicom believes the length in front of a PDU, up to 4 GB: here one that is too long ends the association.
- A PDU that has begun has to end: a peer that sends a byte a minute is cut off by a deadline, not by a silence.
- pynetdicom's two threads per association look for work every millisecond. Here they wait (`network.waiting`).
"""

import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from queue import Queue
from typing import Any, Protocol, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from dicomnode.network.commands import StoreAnswer, StoreRequest, store_request, store_response
from dicomnode.network.waiting import PollingSocket, ReactorCheckpoint, WakingQueue, set_timeout

log = logging.getLogger(__name__)

#: The longest PDU that is read, bytes; what we tell the peers is at most this. Memory per association stays below it.
LONGEST_PDU = 1 << 20
_P_DATA_TF = 0x04
_COMMAND, _LAST = 0x01, 0x02  # message control header, PS3.8 E.2
_AWAITING_REQUEST = "Sta2"  # states of PS3.8 table 9-10
_DATA_TRANSFER = "Sta6"
_AWAITING_CLOSE = "Sta13"


class PduReception(Protocol):
    """One data set that is coming in."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes; never fails: what went wrong is the answer's matter."""

    def finish(self) -> StoreAnswer:
        """All bytes are there: keep them, and say how it went."""

    def abandon(self) -> None:
        """End an object of which the rest will not come."""


#: Called for each C-STORE request, before its data set.
Begin = Callable[[Association, StoreRequest], PduReception]


class ProtocolError(Exception):
    """What came is against PS3.8: the association is aborted."""


class UpperLayer(DULServiceProvider):
    """Reads the PDUs of one association. `begin` is asked for a reception at each C-STORE."""

    def __init__(
        self, association: Association, client_socket: socket.socket, begin: Begin, *, open_s: float, pdu_s: float
    ) -> None:
        super().__init__(association)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.to_provider_queue = WakingQueue(lambda: os.eventfd_write(self.wake, 1))
        self._run_loop_delay = 0.0
        self._association = association
        self._begin = begin
        self._open_until, self._pdu_s = time.monotonic() + open_s, pdu_s
        self._opening = True
        self._buffer = bytearray(1 << 14)
        self._command = bytearray()
        self._held: list[bytes] = []  # PDUs of a command that is not yet whole
        self._request: StoreRequest | None = None
        self._reception: PduReception | None = None
        self._is_storing = False
        self._make_waiting()
        # Announces the connection to the association's provider, which has to be this one by now.
        self.socket: PollingSocket = PollingSocket(association, client_socket, self.wake)

    def _make_waiting(self) -> None:
        """Take this provider's place under the association, and let both its threads wait for work."""
        association, checkpoint = self._association, ReactorCheckpoint()
        self.to_user_queue = WakingQueue(checkpoint.wake)
        self.artim_timer.timeout = association.acse_timeout
        self._idle_timer.timeout = association.network_timeout
        association.dul = self
        association._reactor_checkpoint = checkpoint
        association.dimse.msg_queue = WakingQueue(checkpoint.wake)

    def stop_dul(self) -> bool:
        """As pynetdicom's, which turns until this thread has ended."""
        if self.state_machine.current_state != "Sta1":
            return False
        self._kill_thread = True
        os.eventfd_write(self.wake, 1)
        self.join()
        return True

    def close(self) -> None:
        """Give up what was coming in: the association has ended."""
        if self._reception is not None:
            self._reception.abandon()
            self._reception = None
        os.close(self.wake)

    def _read_pdu_data(self) -> None:
        """Read the next PDU, and those behind it while a data set comes in: pynetdicom's loop has its price."""
        self._read_one()
        while self._reception is not None and self.to_provider_queue.empty() and self.socket.ready:
            self._read_one()

    def _read_one(self) -> None:
        """One PDU, or what is left of a connection that is to close."""
        try:
            if self.state_machine.current_state == _AWAITING_CLOSE:
                if self.socket.read(memoryview(self._buffer)[:1], 0.0) == 0:
                    self.event_queue.put("Evt17")
                return
            pdu = self._pdu()
            if pdu is None:
                self._end("Evt17")
            elif not self._is_taken(pdu):
                self._hand_over(pdu)
        except OSError as error:
            log.info("connection with %s failed: %s", self._association.requestor.address, error)
            self._end("Evt17")  # transport connection closed
        except ProtocolError as error:
            log.warning("aborted the association with %s: %s", self._association.requestor.address, error)
            self._end("Evt19")  # unrecognised or invalid PDU

    def _end(self, event: str) -> None:
        if self.state_machine.current_state == _AWAITING_REQUEST:
            cast("Queue[Any]", self.to_user_queue).put(
                None
            )  # else the association's thread waits for its request until the time-out
        self.event_queue.put(event)

    def _pdu(self) -> memoryview | None:
        """Return a whole PDU with its header, in the buffer; None if the peer has closed."""
        deadline = time.monotonic() + self._seconds()
        if self.socket.read(memoryview(self._buffer)[:6], deadline) < 6:
            return None
        length = struct.unpack_from(">L", self._buffer, 2)[0]
        if length > LONGEST_PDU:
            raise ProtocolError(f"a PDU of {length} bytes was announced; the limit is {LONGEST_PDU}")
        if 6 + length > len(self._buffer):
            self._buffer = bytearray(self._buffer[:6]).ljust(6 + length, b"\0")
        pdu = memoryview(self._buffer)[: 6 + length]
        return pdu if self.socket.read(pdu[6:], deadline) == length else None

    def _seconds(self) -> float:
        """How long the next PDU may take: the first counts from the opening of the connection."""
        opening = self.state_machine.current_state == _AWAITING_REQUEST
        seconds = max(self._open_until - time.monotonic(), 0.001) if opening else self._pdu_s
        if opening or self._opening:
            set_timeout(self.socket.socket, seconds)
        self._opening = opening
        return seconds

    def _hand_over(self, pdu: bytes | memoryview) -> None:
        """Let pynetdicom decode it and do what it asks."""
        self.socket.give_back(pdu)
        super()._read_pdu_data()

    def _is_taken(self, pdu: memoryview) -> bool:
        """Take the PDU if it is part of a C-STORE, or of a command that may become one."""
        if pdu[0] != _P_DATA_TF or self.state_machine.current_state != _DATA_TRANSFER:
            return False
        if self._assoc.dimse.message is not None:
            return False  # pynetdicom has the beginning of this message
        at = 6
        while at < len(pdu):
            if at + 6 > len(pdu):
                raise ProtocolError("a presentation data value without a header")
            length, context_id, control = struct.unpack_from(">LBB", pdu, at)
            if length < 2 or at + 4 + length > len(pdu):
                raise ProtocolError(f"a presentation data value of {length} bytes in a PDU of {len(pdu)}")
            value = pdu[at + 6 : at + 4 + length]
            at += 4 + length
            if not control & _COMMAND:
                self._data(context_id, value, last=bool(control & _LAST))
            elif not self._is_store_command(pdu, context_id, value, last=bool(control & _LAST)):
                return True  # all of it has been handed over
        return True

    def _is_store_command(self, pdu: memoryview, context_id: int, value: memoryview, *, last: bool) -> bool:
        """Collect a command set; one that is no C-STORE for us goes to pynetdicom, with the PDUs that it came in."""
        if self._reception is not None:
            raise ProtocolError("a command within a data set")
        self._command += value
        if len(self._command) > LONGEST_PDU:
            raise ProtocolError("a command set without an end")
        if not last:
            self._held.append(bytes(pdu))
            return True
        request = store_request(bytes(self._command), context_id)
        self._command.clear()
        held, self._held = self._held, []
        if request is None or context_id not in self._association._accepted_cx:
            for earlier in held:
                self._hand_over(earlier)
            self._hand_over(pdu)
            return False
        self._request, self._reception = request, self._begin(self._association, request)
        return True

    def _data(self, context_id: int, value: memoryview, *, last: bool) -> None:
        request, reception = self._request, self._reception
        if request is None or reception is None or context_id != request.context_id:
            raise ProtocolError("a data set without a command")
        reception.write(value)
        if last:
            self._is_storing = True
            answer = reception.finish()
            self._request = self._reception = None
            self._idle_timer.restart()
            self._is_storing = False
            longest = self._association.requestor.maximum_length or 0
            self.socket.send(store_response(request, answer, longest))

    def idle_timer_expired(self) -> bool:
        """Return whether the peer is silent: an association that waits for our slow disk is not."""
        return not self._is_storing and bool(super().idle_timer_expired())
