"""Storage Commitment Push Model (PS3.4 annex J) as SCU, and what both sides share. As SCP: `commitment_scp`.

As SCU the node asks a destination to take responsibility for what it stored (N-ACTION). The answer (N-EVENT-REPORT)
comes on the same association or, later, on a new one that the peer opens to us, proposing itself as SCP by role
selection: hence a handler in `request` and one in the receiver.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import evt
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode import logs
from dicomnode.errors import PeerError, PeerRejectedError, SpoolError
from dicomnode.network import association as sender
from dicomnode.network.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE

log = logging.getLogger(__name__)

REQUEST_COMMITMENT = 1  # N-ACTION action type, PS3.4 J.3.2
ALL_COMMITTED, SOME_FAILED = 1, 2  # N-EVENT-REPORT event types, PS3.4 J.3.3
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 annex C
_NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
#: Statuses of an N-ACTION that another attempt may change, PS3.7 annex C: processing failure, resource limitation.
_PASSING = frozenset({PROCESSING_FAILURE, 0x0213})
#: A peer that answers on the requesting association does so at once.
_LINGER_S = 1.0


@dataclass(frozen=True)
class Report:
    """SOP Instance UIDs that the peer has taken responsibility for, and those that it has not, with its reason."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int]


def context() -> PresentationContext:
    """Return the receiver's context: SCP for those who ask us, and SCU for a peer that comes with its report."""
    made = build_context(STORAGE_COMMITMENT)
    made.scu_role, made.scp_role = True, True
    return made


def read_report(event_type: int | None, information: Dataset) -> Report:
    """Return a report as it came.

    Raises:
        ValueError: it is no storage commitment report.
    """
    if event_type not in (ALL_COMMITTED, SOME_FAILED) or "TransactionUID" not in information:
        raise ValueError(f"event type {event_type} or its data set is not a storage commitment report")
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or PROCESSING_FAILURE)
        for item in information.get("FailedSOPSequence") or ()
    }
    named = [str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()]
    return Report(str(information.TransactionUID), tuple(uid for uid in named if uid not in failed), failed)


def handle_report(event: evt.Event, take: Callable[[Report], bool]) -> tuple[int, Dataset | None]:
    """Answer an N-EVENT-REPORT: success only when `take` has kept it, so that the peer may try again."""
    try:
        report = read_report(event.event_type, event.event_information)
    except (ValueError, AttributeError):
        return _NO_SUCH_EVENT, None
    try:
        kept = take(report)
    except SpoolError as error:
        log.error("cannot keep storage commitment %s: %s", logs.uid(report.transaction_uid), error)
        return PROCESSING_FAILURE, None
    # pynetdicom wants the pair: a bare status breaks the answer.
    return (SUCCESS if kept else INVALID_ARGUMENT), None


def request(destination: sender.Peer, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Report | None:
    """Ask for commitment to (SOP class UID, SOP Instance UID)s. Returns the report if it comes on this association.

    Raises:
        PeerError: a failure in passing.
        PeerRejectedError: the peer does not offer storage commitment, or refuses the request for good.
    """
    came = threading.Event()
    reports: list[Report] = []

    def take(report: Report) -> bool:
        if report.transaction_uid != transaction_uid:
            return False
        reports.append(report)
        came.set()
        return True

    def on_report(event: evt.Event) -> tuple[int, Dataset | None]:
        return handle_report(event, take)

    handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with sender.associated(destination, [build_context(STORAGE_COMMITMENT)], handlers) as association:
        status, _ = association.send_n_action(
            _asked(transaction_uid, objects), REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        if "Status" not in status:
            raise PeerError(f"{destination} did not answer the storage commitment request")
        if status.Status != SUCCESS:
            text = f"{destination} answered the storage commitment request with status 0x{status.Status:04X}"
            raise PeerError(text) if status.Status in _PASSING else PeerRejectedError(text)
        came.wait(_LINGER_S)
    return reports[0] if reports else None


def _asked(transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = Items([item(*one) for one in objects])
    return dataset


def item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return an item of the sequences that name objects."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item
