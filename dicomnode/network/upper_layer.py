"""The upper layer of an incoming association (PS3.8): pynetdicom's state machine, without its polling and its copies.

- A C-STORE goes from the socket into the spool fragment by fragment, and is answered here, in the network thread: the
  peer waits for the answer, and there is nothing else to do meanwhile. Every other message is put together by hand too
  (`network.messages`), and then takes pynetdicom's own way.
- Whatever a peer can make grow has an end (docs/admin/limits.md): PDUs, command sets, identifiers, messages that wait.
- A request for an association is read by hand before pynetdicom sees it (`network.association_request`).
- A PDU that has begun has to end: a peer that sends a byte a minute is cut off by a deadline, not by a silence.
- pynetdicom's two threads per association look for work every millisecond. Here they wait (`network.waiting`).
"""

import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue
from typing import Any, Protocol, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine

from dicomnode.network.association_request import LONGEST_REQUEST, ProtocolError, Rejection, read_request
from dicomnode.network.commands import Command, StoreAnswer, StoreRequest, read_command, store_response
from dicomnode.network.messages import Messages
from dicomnode.network.waiting import PollingSocket, ReactorCheckpoint, SendQueue, WakingQueue, set_timeout

log = logging.getLogger(__name__)

#: The longest PDU that is read, bytes; what we tell the peers is at most this. Memory per association stays below it.
LONGEST_PDU = 1 << 20
#: Longest command set, bytes: a dozen short values, but a peer that errs may write them long, and shall hear of it.
LONGEST_COMMAND = 1 << 18
#: Fragments in a row that bring nothing; one to end a data set is usual.
_MOST_EMPTY = 1024
_A_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_A_ABORT, _BY_PROVIDER, _ABORT_REASONS = 0x07, 2, frozenset({0, 1, 2, 4, 5, 6})
_RELEASE_OR_ABORT, _THEIR_LENGTH = (0x05, 0x06, 0x07), 4
_COMMAND, _LAST = 0x01, 0x02  # message control header, PS3.8 E.2
_AWAITING_REQUEST = "Sta2"  # states of PS3.8 table 9-10
_DATA_TRANSFER = "Sta6"
_AWAITING_CLOSE = "Sta13"
#: How long a peer may take to close after our rejection, abort or release (ARTIM, PS3.8 9.1.5).
_CLOSING_S = 3.0


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


class States(StateMachine):
    """PS3.8 table 9-10; what we wanted to send on a connection that is about to close is dropped and ends no thread.

    As an answer to what the peer sends while we release, or to what it sent before it aborted.
    """

    def do_action(self, event: str) -> None:
        """Do what the table says."""
        if (event, self.current_state) in TRANSITION_TABLE:
            super().do_action(event)
        else:
            with suppress(Empty):
                self.dul.to_provider_queue.get_nowait()  # the event is of its first item, which would come again


def _known_abort(pdu: bytes) -> bytes:
    """Return an A-ABORT whose source and reason are among those of PS3.8 9.3.8: pynetdicom raises at others."""
    source, reason = pdu[8:]
    if source != _BY_PROVIDER:
        return pdu[:8] + bytes(2)
    return pdu if reason in _ABORT_REASONS else pdu[:9] + bytes(1)


class UpperLayer(DULServiceProvider):
    """Reads the PDUs of one association. `begin` is asked for a reception at each C-STORE."""

    def __init__(
        self, association: Association, client_socket: socket.socket, begin: Begin, *, open_s: float, pdu_s: float
    ) -> None:
        super().__init__(association)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.to_provider_queue = SendQueue(lambda: os.eventfd_write(self.wake, 1), self.is_alive)
        self._run_loop_delay = 0.0
        self.state_machine = States(self)
        self._association = association
        self._begin = begin
        self._open_until, self._pdu_s = time.monotonic() + open_s, pdu_s
        self._opening = True
        self._buffer = bytearray(1 << 14)
        #: Why the request is to be rejected, whoever sent it.
        self.refusal: Rejection | None = None
        self._command = bytearray()
        self._command_context = 0  # of the command that is coming in; none is even
        self._empty = 0
        self._messages = Messages(association)
        self._request: StoreRequest | None = None
        self._reception: PduReception | None = None
        self._is_storing = False
        self._make_waiting()
        # Announces the connection to the association's provider, which has to be this one by now.
        self.socket: PollingSocket = PollingSocket(association, client_socket, self.wake, pdu_s)

    def _make_waiting(self) -> None:
        """Take this provider's place under the association, and let both its threads wait for work."""
        association, checkpoint = self._association, ReactorCheckpoint()
        self.to_user_queue = WakingQueue(checkpoint.wake)
        self.artim_timer.timeout = association.acse_timeout
        self._idle_timer.timeout = association.network_timeout
        association.dul = self
        association._reactor_checkpoint = checkpoint
        association.dimse.msg_queue = WakingQueue(checkpoint.wake)

    def _process_recv_primitive(self) -> bool:
        """Make an event of what we want to send, once all that has happened is dealt with: else it comes twice."""
        return not self.event_queue.empty() or bool(super()._process_recv_primitive())

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
        self._messages.close()
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
                if self.socket.read_some(self._buffer) == 0:
                    self.event_queue.put("Evt17")
                return
            pdu = self._pdu()
            if pdu is None:
                self._end("Evt17")
            else:
                self._take(pdu)
        except OSError as error:
            log.info("connection with %s failed: %s", self._association.requestor.address, error)
            self._end("Evt17")  # transport connection closed
        except ProtocolError as error:
            log.warning("aborted the association with %s: %s", self._association.requestor.address, error)
            self._end("Evt19")  # unrecognised or invalid PDU

    def _end(self, event: str) -> None:
        self.artim_timer.timeout = _CLOSING_S
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
        longest = self._longest(self._buffer[0])
        if length > longest:
            raise ProtocolError(f"a PDU of {length} bytes was announced; the limit is {longest}")
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

    def _longest(self, kind: int) -> int:
        """Return the limit of a PDU of this kind, now."""
        state = self.state_machine.current_state
        if kind == _A_ASSOCIATE_RQ and state == _AWAITING_REQUEST:
            return LONGEST_REQUEST
        if kind == _P_DATA_TF and state == _DATA_TRANSFER:
            return LONGEST_PDU
        if kind in _RELEASE_OR_ABORT and state != _AWAITING_REQUEST:
            return _THEIR_LENGTH
        raise ProtocolError(f"PDU type 0x{kind:02X}, which is unknown, or not for now")

    def _take(self, pdu: memoryview) -> None:
        """Do what the PDU asks."""
        if pdu[0] == _P_DATA_TF:
            self._take_values(pdu)
            return
        whole = bytes(pdu)
        if pdu[0] == _A_ASSOCIATE_RQ:
            request = read_request(whole)
            whole, self.refusal = request.pdu, request.refusal
            self.artim_timer.timeout = _CLOSING_S  # its next start is when the connection is to close
        elif len(whole) != 6 + _THEIR_LENGTH:
            raise ProtocolError(f"a PDU of type 0x{pdu[0]:02X} with {len(whole) - 6} bytes")
        elif pdu[0] == _A_ABORT:
            whole = _known_abort(whole)
        self.socket.give_back(whole)
        super()._read_pdu_data()

    def _take_values(self, pdu: memoryview) -> None:
        """Take the presentation data values of a P-DATA-TF (PS3.8 9.3.5)."""
        at, end = 6, len(pdu)
        while at < end:
            if at + 6 > end:
                raise ProtocolError("a presentation data value without a header")
            length, context_id, control = struct.unpack_from(">LBB", pdu, at)
            if length < 2 or at + 4 + length > end:
                raise ProtocolError(f"a presentation data value of {length} bytes in a PDU of {end}")
            value = pdu[at + 6 : at + 4 + length]
            at += 4 + length
            self._empty = 0 if value else self._empty + 1
            if self._empty > _MOST_EMPTY:
                raise ProtocolError(f"more than {_MOST_EMPTY} empty fragments in a row")
            if control & _COMMAND:
                self._command_part(context_id, value, last=bool(control & _LAST))
            else:
                self._data(context_id, value, last=bool(control & _LAST))

    def _command_part(self, context_id: int, value: memoryview, *, last: bool) -> None:
        """Collect a command set; a whole one begins a message."""
        if self._reception is not None or self._messages.is_open:
            raise ProtocolError("a command within a data set")
        if self._command_context not in (0, context_id):
            raise ProtocolError("a command set in two presentation contexts")
        self._command_context = context_id
        self._command += value
        if len(self._command) > LONGEST_COMMAND:
            raise ProtocolError(f"a command set of more than {LONGEST_COMMAND} bytes")
        if not last:
            return
        command = read_command(bytes(self._command), context_id)
        self._command, self._command_context = bytearray(), 0
        context = self._association._accepted_cx.get(context_id)
        if context is None:
            raise ProtocolError(f"a command in context {context_id}, which was not accepted")
        if isinstance(command, Command):
            self._messages.begin(command, context_id, str(context.abstract_syntax))
        else:
            self._request, self._reception = command, self._begin(self._association, command)

    def _data(self, context_id: int, value: memoryview, *, last: bool) -> None:
        request, reception = self._request, self._reception
        if reception is None:
            self._messages.add(context_id, value, last=last)
            return
        if request is None or context_id != request.context_id:
            raise ProtocolError("a data set in another context than its command")
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
