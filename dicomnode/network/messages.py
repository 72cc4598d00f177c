"""DIMSE messages that come in on an association, C-STORE requests apart: put together here, answered by pynetdicom.

pynetdicom collects data sets without an end, keeps every message that its thread has not taken yet, and starts a thread
for each N-EVENT-REPORT. Here an identifier has a longest length, all identifiers of the process have one together, and
few messages wait: only one request at a time is outstanding where nothing else was negotiated (PS3.7 D.3.3.3).
"""

from io import BytesIO
from typing import Any, Final

from pynetdicom import dimse_messages
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.dsutils import decode

from dicomnode.network.allowance import Allowance
from dicomnode.network.association_request import ProtocolError
from dicomnode.network.commands import C_CANCEL_RQ, C_ECHO_RQ, Command

#: The longest data set that is no object to be stored, bytes: storage commitment for 25,000 images takes 4 MB.
LONGEST_IDENTIFIER: Final = 4 << 20
#: Of all associations of the process together, what each has free (`_FREE`) apart.
_ALL_IDENTIFIERS = Allowance(16 << 20)
_FREE = 1 << 16
#: Messages that wait until those before them are answered; behind one with a long data set none may wait.
_MOST_WAITING = 16
_MOST_CANCELS = 10


class Messages:
    """What one association sends beside its images. Used by its network thread alone."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._command: Command | None = None
        self._context_id = 0
        self._data = bytearray()
        self._taken = 0  # of `_ALL_IDENTIFIERS`

    @property
    def is_open(self) -> bool:
        """Whether a message waits for its data set."""
        return self._command is not None

    def begin(self, command: Command, context_id: int, sop_class_uid: str) -> None:
        """Take a command; `sop_class_uid` is its presentation context's.

        Raises:
            ProtocolError: it does not belong there, or too many wait already.
        """
        if command.kind == C_CANCEL_RQ and not command.has_data:
            self._cancel(command.answers)
            return
        # Who was offered no context of a service may not use it by a command in another one.
        is_request = not command.is_response
        if is_request and command.kind != C_ECHO_RQ and command.sop_class_uid != sop_class_uid:
            raise ProtocolError(f"command 0x{command.kind:04X} of another SOP class than its presentation context")
        waiting = self._association.dimse.msg_queue.qsize()
        if waiting >= _MOST_WAITING or (waiting and self._taken):
            raise ProtocolError(f"requests that do not wait for their answers; {waiting} are waiting")
        if not waiting:
            self._give_back()
        self._command, self._context_id = command, context_id
        if not command.has_data:
            self._end()

    def add(self, context_id: int, value: memoryview, *, last: bool) -> None:
        """Take a fragment of the data set.

        Raises:
            ProtocolError: it belongs to no command, or is too long.
        """
        if self._command is None or context_id != self._context_id:
            raise ProtocolError("a data set without a command")
        size = len(self._data) + len(value)
        if size > LONGEST_IDENTIFIER:
            raise ProtocolError(f"an identifier of more than {LONGEST_IDENTIFIER} bytes")
        wanted = max(size - _FREE, 0) - self._taken
        if wanted > 0:
            if not _ALL_IDENTIFIERS.take(wanted):
                raise ProtocolError("identifiers of all associations together take too much memory; try again later")
            self._taken += wanted
        self._data += value
        if last:
            self._end()

    def close(self) -> None:
        """Forget what was coming in: the association has ended."""
        self._data = bytearray()
        self._give_back()

    def _give_back(self) -> None:
        _ALL_IDENTIFIERS.give(self._taken)
        self._taken = 0

    def _cancel(self, message_id: int) -> None:
        # Those that come when nothing is under way are cleared by the next request (`_serve_request`).
        requests = self._association.dimse.cancel_req
        if len(requests) < _MOST_CANCELS:
            cancel = C_CANCEL()
            cancel.MessageIDBeingRespondedTo = message_id
            requests[message_id] = cancel

    def _end(self) -> None:
        """Put the whole message where the association's thread takes it."""
        command, data, context_id = self._command, self._data, self._context_id
        self._command, self._data = None, bytearray()
        assert command is not None
        try:
            message: Any = dimse_messages._MESSAGE_TYPES[command.kind][1]()
            message.command_set = decode(BytesIO(command.encoded()), True, True)
            message.data_set, message.context_id = BytesIO(data), context_id
            primitive = message.message_to_primitive()
        except Exception as error:  # noqa: BLE001  (pynetdicom may raise anything at what it did not expect)
            raise ProtocolError(f"command 0x{command.kind:04X} cannot be read ({type(error).__name__})") from None
        self._association.dimse.msg_queue.put((context_id, primitive))
