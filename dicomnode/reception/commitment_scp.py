"""Storage Commitment Push Model (PS3.4 annex J) as SCP: the node answers those who sent to it, from what it holds.

A report goes to the requester's configured address on a new association, else on the association of its request
(PS3.4 J.3.3). The node's own (`Reports`) first notes in the catalogue what it owes to an address: a report that cannot
be brought is tried again, by any receiving process, also after a restart. It says what is true when it is sent.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_role

from dicomnode import logs
from dicomnode.errors import PeerError, PeerRejectedError, SpoolError
from dicomnode.network.association import Peer, associated
from dicomnode.network.commitment import (
    ALL_COMMITTED,
    INVALID_ARGUMENT,
    PROCESSING_FAILURE,
    REQUEST_COMMITMENT,
    RESOURCE_LIMITATION,
    SOME_FAILED,
    SUCCESS,
    Named,
    Report,
    TooManyObjectsError,
    handle_report,
    item,
    proposal,
    read_named,
)
from dicomnode.network.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.network.statuses import OwnStatus
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import OwedReport

log = logging.getLogger(__name__)

NO_SUCH_OBJECT = 0x0112  # Failure Reason (0008,1197), PS3.3 C.14
CLASS_INSTANCE_CONFLICT = 0x0119
_NO_SUCH_ACTION = 0x0123  # PS3.7 annex C
_GENERAL = "PS3.7 annex C.5"
#: What an N-ACTION is answered with.
ANSWERS: tuple[OwnStatus, ...] = (
    OwnStatus(SUCCESS, "the request is taken on; the report follows", "PS3.4 J.3.2"),
    OwnStatus(_NO_SUCH_ACTION, "an action type other than 1", _GENERAL),
    OwnStatus(INVALID_ARGUMENT, "the request cannot be read, or names no object", _GENERAL),
    OwnStatus(RESOURCE_LIMITATION, "more objects, or more reports under way, than this node looks after", _GENERAL),
    OwnStatus(PROCESSING_FAILURE, "the catalogue failed", _GENERAL),
)
#: Failure Reasons (0008,1197) in the reports.
REASONS: tuple[OwnStatus, ...] = (
    OwnStatus(NO_SUCH_OBJECT, "the object is not held, or its file is missing or not whole", "PS3.3 C.14"),
    OwnStatus(CLASS_INSTANCE_CONFLICT, "the object is held under another SOP class", "PS3.3 C.14"),
)
_ANSWER_SENT_S = 10.0
#: Reports under way at once, of all requesters; it is refused in passing beyond.
_MOST_REPORTS = 16
#: How often the node looks for reports whose next attempt is due.
_LOOK_S = 5.0


class CommitmentProvider:
    """Storage commitment as SCP.

    `missing` says why an object (SOP class UID, SOP Instance UID) is not safely held, as a failure reason, or None.
    `report_to` are the requesters that get their reports on an association of our own. A report that cannot be brought
    is logged and dropped: the requester asks again, and gets an answer that is newer.
    """

    def __init__(self, missing: Callable[[str, str], int | None], report_to: Iterable[Peer]) -> None:
        self._missing = missing
        self._report_to = {requester.ae_title: requester for requester in report_to}
        # The requester's turn comes when the answer to its N-ACTION is on its way.
        self._answers: dict[Association, threading.Event] = {}
        self._places = threading.BoundedSemaphore(_MOST_REPORTS)
        self._judging = threading.Lock()

    @property
    def handlers(self) -> list[EventHandlerType]:
        """For the server that listens."""
        return [(evt.EVT_N_ACTION, self._commit), (evt.EVT_PDU_SENT, self._pdu_sent)]

    def _commit(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if event.action_type != REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        try:
            asked = read_named(cast(N_ACTION, event.request).ActionInformation, UID(event.context.transfer_syntax))
        except TooManyObjectsError:
            return RESOURCE_LIMITATION, None
        except ValueError:
            return INVALID_ARGUMENT, None
        return self._take_on(event.assoc, asked), None

    def _take_on(self, association: Association, asked: Named) -> int:
        """Begin to answer a request; return the status of the N-ACTION."""
        if not asked.objects:
            return INVALID_ARGUMENT
        owed = OwedReport(asked.transaction_uid, association.requestor.ae_title.strip(), asked.objects)
        # Each report is a thread, which waits for its answer: one who asks on without an end shall not have them all.
        if not self._places.acquire(blocking=False):
            log.warning("refused storage commitment %s: too many reports are under way", logs.uid(owed.transaction_uid))
            return RESOURCE_LIMITATION
        try:
            self._note(owed)
        except SpoolError as error:
            self._places.release()
            log.error("cannot process storage commitment request %s: %s", logs.uid(owed.transaction_uid), error)
            return PROCESSING_FAILURE
        answered = self._answers[association] = threading.Event()
        threading.Thread(
            target=self._report, args=(association, answered, owed), name="commitment", daemon=True
        ).start()
        return SUCCESS

    def _note(self, owed: OwedReport) -> None:
        """Keep a request; called before it is answered."""

    def _brought(self, owed: OwedReport) -> None:
        """Note that the requester has accepted its report."""

    def _pdu_sent(self, event: evt.Event) -> None:
        # DIMSE is synchronous here: the first data PDU sent after an N-ACTION holds its answer.
        answered = self._answers.get(event.assoc)
        if answered is not None and isinstance(event.pdu, P_DATA_TF):
            answered.set()

    def _report(self, association: Association, answered: threading.Event, owed: OwedReport) -> None:
        try:
            answered.wait(_ANSWER_SENT_S)
            self._answers.pop(association, None)
            self._bring(owed, association)
        finally:
            self._places.release()

    def _bring(self, owed: OwedReport, asked_on: Association | None) -> None:
        """One attempt; whatever happens to it, the requester can ask again."""
        try:
            self._send(owed, asked_on)
            self._brought(owed)
        except (OSError, RuntimeError, ValueError, SpoolError, PeerError, PeerRejectedError) as error:
            owed_uid = logs.uid(owed.transaction_uid)
            log.warning("cannot report storage commitment %s to %s: %s", owed_uid, owed.requester, error)
        except Exception as error:  # noqa: BLE001  (a thread's last line)
            logs.log_unexpected(log, error, "cannot report storage commitment %s", logs.uid(owed.transaction_uid))

    def _send(self, owed: OwedReport, asked_on: Association | None) -> None:
        requester = self._report_to.get(owed.requester)
        if requester is not None:
            # The association's requestor is by default an SCU: we ask for the SCP's role (PS3.7 D.3.3.4).
            role: SCP_SCU_RoleSelectionNegotiation = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
            with associated(requester, [proposal()], roles=[role]) as association:
                answer = _send(association, self._judge(owed))
        elif asked_on is not None:
            answer = _send(asked_on, self._judge(owed))
        else:
            raise OSError("its report_to is no longer configured")
        if "Status" not in answer:
            raise OSError("no response")
        if answer.Status != SUCCESS:
            raise OSError(f"answered with status 0x{answer.Status:04X}")

    def _judge(self, owed: OwedReport) -> Dataset:
        with self._judging:  # one long report at a time in memory
            return self._judged(owed)

    def _judged(self, owed: OwedReport) -> Dataset:
        held, failed = [], []
        for sop_class_uid, sop_instance_uid in owed.objects:
            judged = item(sop_class_uid, sop_instance_uid)
            reason = self._missing(sop_class_uid, sop_instance_uid)
            if reason is None:
                held.append(judged)
            else:
                judged.FailureReason = reason
                failed.append(judged)
        report = Dataset()
        report.TransactionUID = owed.transaction_uid
        if held:
            report.ReferencedSOPSequence = Items(held)
        if failed:
            report.FailedSOPSequence = Items(failed)
        return report


def _send(association: Association, report: Dataset) -> Dataset:
    event_type = SOME_FAILED if "FailedSOPSequence" in report else ALL_COMMITTED
    status, _ = association.send_n_event_report(report, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    return status


class Reports(CommitmentProvider):
    """The node's own, both sides: reports to us are kept in the catalogue, requests are answered from it."""

    def __init__(self, catalog: Catalog, report_to: Iterable[Peer]) -> None:
        super().__init__(self._why_missing, report_to)
        self._catalog = catalog
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._bring_what_is_due, name="commitment-due", daemon=True)

    @property
    def handlers(self) -> list[EventHandlerType]:
        """For the server that listens."""
        return [(evt.EVT_N_EVENT_REPORT, self._take), *super().handlers]

    def start(self) -> None:
        """From now on reports that are still owed are brought. Without an address nothing is owed."""
        if self._report_to:
            self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Stop; an attempt that has begun may end within `wait_s`, else the next process makes another one."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _note(self, owed: OwedReport) -> None:
        # Without an address there is only the association of the request, which no restart survives.
        if owed.requester in self._report_to:
            self._catalog.owe_report(owed, now=time.time())

    def _brought(self, owed: OwedReport) -> None:
        self._catalog.report_brought(owed)

    def _bring_what_is_due(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                due = self._catalog.due_reports(time.time())
            except SpoolError as error:
                log.warning("storage commitment reports postponed: %s", error)
                continue
            for owed in due:
                if not self._stop.is_set():
                    self._bring(owed, None)

    def _take(self, event: evt.Event) -> tuple[int, Dataset | None]:
        def take(report: Report) -> bool:
            known = self._catalog.report_commitment(
                report.transaction_uid, report.committed, report.failed, now=time.time()
            )
            log.info(
                "storage commitment %s: %d committed, %d not%s",
                logs.uid(report.transaction_uid),
                len(report.committed),
                len(report.failed),
                "" if known else "; not requested by this node",
            )
            return known

        return handle_report(event, take)

    def _why_missing(self, sop_class_uid: str, sop_instance_uid: str) -> int | None:
        held = self._catalog.held_instance(sop_instance_uid)
        if held is None:
            return NO_SUCH_OBJECT
        if held.sop_class_uid != sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        path = Path(held.path)
        return None if path.is_file() and path.stat().st_size == held.size else NO_SUCH_OBJECT
