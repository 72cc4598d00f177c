"""Storage Commitment Push Model (PS3.4 annex J), both sides.

As SCU the node asks a destination to take responsibility for what it stored (N-ACTION). The answer (N-EVENT-REPORT)
comes on the same association or, later, on a new one that the peer opens to us, proposing itself as SCP by role
selection: hence a handler in `request` and one in the receiver.

As SCP the node answers those who sent to it, from what it durably holds at that moment: `Provider`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role

from dicomnode.dimse import sender
from dicomnode.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.dimse.transport import RequestorEntity
from dicomnode.errors import PeerError, PeerRejectedError, SpoolError
from dicomnode.intake.catalog import Catalog

LOGGER = logging.getLogger(__name__)

NO_SUCH_OBJECT = 0x0112  # Failure Reason (0008,1197), PS3.3 C.14
CLASS_INSTANCE_CONFLICT = 0x0119
_REQUEST_COMMITMENT = 1  # N-ACTION action type, PS3.4 J.3.2
_ALL_COMMITTED, _SOME_FAILED = 1, 2  # N-EVENT-REPORT event types, PS3.4 J.3.3
_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110  # PS3.7 annex C
_NO_SUCH_EVENT = 0x0113
_INVALID_ARGUMENT = 0x0115
_NO_SUCH_ACTION = 0x0123
#: Statuses of an N-ACTION that another attempt may change, PS3.7 annex C: processing failure, resource limitation.
_PASSING = frozenset({_PROCESSING_FAILURE, 0x0213})
_ANSWER_SENT_S = 10.0
#: A peer that answers on the requesting association does so at once.
_LINGER_S = 1.0


@dataclass(frozen=True)
class Report:
    """SOP Instance UIDs that the peer has taken responsibility for, and those that it has not, with its reason."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int]


def context() -> PresentationContext:
    """The receiver's context: SCP for those who ask us, and SCU for a peer that comes with its report."""
    made = build_context(STORAGE_COMMITMENT)
    made.scu_role, made.scp_role = True, True
    return made


def read_report(event_type: int | None, information: Dataset) -> Report:
    """A report as it came.

    Raises:
        ValueError: it is no storage commitment report.
    """
    if event_type not in (_ALL_COMMITTED, _SOME_FAILED) or "TransactionUID" not in information:
        raise ValueError(f"event type {event_type} or its data set is no storage commitment report")
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or _PROCESSING_FAILURE)
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
        LOGGER.error("cannot keep storage commitment %s: %s", report.transaction_uid, error)
        return _PROCESSING_FAILURE, None
    # pynetdicom wants the pair: a bare status breaks the answer.
    return (_SUCCESS if kept else _INVALID_ARGUMENT), None


def request(destination: sender.Destination, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Report | None:
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
            _asked(transaction_uid, objects), _REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        if "Status" not in status:
            raise PeerError(f"{destination} did not answer the storage commitment request")
        if status.Status != _SUCCESS:
            text = f"{destination} answered the storage commitment request with status 0x{status.Status:04X}"
            raise PeerError(text) if status.Status in _PASSING else PeerRejectedError(text)
        came.wait(_LINGER_S)
    return reports[0] if reports else None


def _asked(transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = Items([_item(*one) for one in objects])
    return dataset


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


class Provider:
    """Storage commitment as SCP.

    `missing` says why an object (SOP class UID, SOP Instance UID) is not safely held, as a failure reason, or None.
    `report_to` maps a requester's AE title to the (host, port) where its reports go, on a new association; a requester
    that is not in it gets the report on the association of its request (PS3.4 J.3.3). A report that cannot be brought
    is logged and dropped: the requester asks again, and gets an answer that is newer.
    """

    def __init__(
        self,
        ae_title: str,
        missing: Callable[[str, str], int | None],
        report_to: Mapping[str, tuple[str, int]],
    ) -> None:
        self._ae_title, self._missing, self._report_to = ae_title, missing, dict(report_to)
        # The requester's turn comes when the answer to its N-ACTION is on its way.
        self._answers: dict[Association, threading.Event] = {}

    @property
    def handlers(self) -> list[EventHandlerType]:
        """For the server that listens."""
        return [(evt.EVT_N_ACTION, self._commit), (evt.EVT_PDU_SENT, self._pdu_sent)]

    def _commit(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if event.action_type != _REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        asked = event.action_information
        if "TransactionUID" not in asked or "ReferencedSOPSequence" not in asked:
            return _INVALID_ARGUMENT, None
        association = event.assoc
        answered = self._answers[association] = threading.Event()
        threading.Thread(
            target=self._report, args=(association, answered, asked), name="commitment", daemon=True
        ).start()
        return _SUCCESS, None

    def _judge(self, asked: Dataset) -> Dataset:
        held, failed = [], []
        for wanted in asked.ReferencedSOPSequence:
            item = _item(wanted.ReferencedSOPClassUID, wanted.ReferencedSOPInstanceUID)
            reason = self._missing(wanted.ReferencedSOPClassUID, wanted.ReferencedSOPInstanceUID)
            if reason is None:
                held.append(item)
            else:
                item.FailureReason = reason
                failed.append(item)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if held:
            report.ReferencedSOPSequence = Items(held)
        if failed:
            report.FailedSOPSequence = Items(failed)
        return report

    def _pdu_sent(self, event: evt.Event) -> None:
        # DIMSE is synchronous here: the first data PDU sent after an N-ACTION holds its answer.
        answered = self._answers.get(event.assoc)
        if answered is not None and isinstance(event.pdu, P_DATA_TF):
            answered.set()

    def _report(self, association: Association, answered: threading.Event, asked: Dataset) -> None:
        answered.wait(_ANSWER_SENT_S)
        self._answers.pop(association, None)
        requester = association.requestor.ae_title.strip()
        address = self._report_to.get(requester)
        try:
            report = self._judge(asked)
            if address is None:
                _send_report(association, report)
            else:
                self._send_on_new_association(requester, address, report)
        except Exception as error:  # noqa: BLE001  (a thread's last line: whatever it met, the requester asks again)
            LOGGER.warning(
                "cannot report storage commitment %s to %s: %s", asked.TransactionUID, requester, type(error).__name__
            )

    def _send_on_new_association(self, requester: str, address: tuple[str, int], report: Dataset) -> None:
        host, port = address
        # The association's requestor is by default an SCU: we ask for the SCP's role (PS3.7 D.3.3.4).
        role: SCP_SCU_RoleSelectionNegotiation = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        made = build_context(STORAGE_COMMITMENT)
        association = RequestorEntity(self._ae_title).associate(host, port, [made], requester, ext_neg=[role])
        if not association.is_established:
            raise OSError(f"no association with {host}:{port}")
        try:
            _send_report(association, report)
        finally:
            association.release()


def _send_report(association: Association, report: Dataset) -> None:
    event_type = _SOME_FAILED if "FailedSOPSequence" in report else _ALL_COMMITTED
    status, _ = association.send_n_event_report(report, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    if "Status" not in status or status.Status != _SUCCESS:
        LOGGER.warning("the requester did not accept storage commitment report %s", report.TransactionUID)


def receiver_handlers(
    ae_title: str, catalog: Catalog, report_to: Mapping[str, tuple[str, int]]
) -> list[EventHandlerType]:
    """Both sides at the node's own port: reports to us are kept in the catalogue, requests are answered from it."""

    def take(report: Report) -> bool:
        known = catalog.report_commitment(report.transaction_uid, report.committed, report.failed, now=time.time())
        LOGGER.info(
            "storage commitment %s: %d committed, %d not%s",
            report.transaction_uid,
            len(report.committed),
            len(report.failed),
            "" if known else "; nobody here has asked for it",
        )
        return known

    def on_report(event: evt.Event) -> tuple[int, Dataset | None]:
        return handle_report(event, take)

    def missing(sop_class_uid: str, sop_instance_uid: str) -> int | None:
        held = catalog.held_instance(sop_instance_uid)
        if held is None:
            return NO_SUCH_OBJECT
        if held.sop_class_uid != sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        path = Path(held.path)
        return None if path.is_file() and path.stat().st_size == held.size else NO_SUCH_OBJECT

    return [(evt.EVT_N_EVENT_REPORT, on_report), *Provider(ae_title, missing, report_to).handlers]
