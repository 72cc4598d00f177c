"""Storage Commitment Push Model (PS3.4 annex J) as SCU, and what both sides share. As SCP: `commitment_scp`.

As SCU the node asks a destination to take responsibility for what it stored (N-ACTION). The answer (N-EVENT-REPORT)
comes on the same association or, later, on a new one that the peer opens to us, proposing itself as SCP by role
selection: hence a handler in `request` and one in the receiver.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, cast

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode import logs
from dicomnode.errors import PeerError, PeerRejectedError, SpoolError
from dicomnode.logs import is_uid
from dicomnode.network import association as sender
from dicomnode.network.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.network.scan import ITEM, Walk
from dicomnode.network.statuses import OwnStatus, PeerStatus, every_other, taken

log = logging.getLogger(__name__)

REQUEST_COMMITMENT = 1  # N-ACTION action type, PS3.4 J.3.2
ALL_COMMITTED, SOME_FAILED = 1, 2  # N-EVENT-REPORT event types, PS3.4 J.3.3
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 annex C
_NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
RESOURCE_LIMITATION = 0x0213
#: Of an N-ACTION of ours.
STATUSES: tuple[PeerStatus, ...] = (
    PeerStatus(SUCCESS, "the request is taken on; the report follows", "PS3.4 J.3.2", "success"),
    PeerStatus(PROCESSING_FAILURE, "processing failure", "PS3.7 annex C.5", "passing"),
    PeerStatus(RESOURCE_LIMITATION, "resource limitation", "PS3.7 annex C.5", "passing"),
    every_other("permanent"),
)
#: What an N-EVENT-REPORT to this node is answered with.
ANSWERS: tuple[OwnStatus, ...] = (
    OwnStatus(SUCCESS, "the report is kept", "PS3.4 J.3.3"),
    OwnStatus(_NO_SUCH_EVENT, "an event type other than 1 and 2", "PS3.7 annex C.5"),
    OwnStatus(INVALID_ARGUMENT, "the report cannot be read, or its transaction is not one of ours", "PS3.7 annex C.5"),
    OwnStatus(PROCESSING_FAILURE, "the catalogue failed: the peer may send the report again", "PS3.7 annex C.5"),
)
#: Objects of one transaction: several times the largest study.
MOST_OBJECTS: Final = 20_000
_MOST_ELEMENTS = 8 * MOST_OBJECTS
_TRANSACTION, _REASON = 0x00081195, 0x00081197
_CLASS, _INSTANCE = 0x00081150, 0x00081155
_FAILED, _REFERENCED = 0x00081198, 0x00081199
_IN_ITEM = 2  # level of what is in an item of a sequence of the data set
#: A peer that answers on the requesting association does so at once.
_LINGER_S = 1.0


@dataclass(frozen=True)
class Report:
    """SOP Instance UIDs that the peer has taken responsibility for, and those that it has not, with its reason."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int]


@dataclass(frozen=True)
class Named:
    """What a request or report names: (SOP class UID, SOP Instance UID)s, and those that failed with their reasons."""

    transaction_uid: str
    objects: tuple[tuple[str, str], ...]
    failed: Mapping[str, int]


class TooManyObjectsError(ValueError):
    """More objects than are looked after in one transaction."""


def context() -> PresentationContext:
    """Return the receiver's context: SCP for those who ask us, and SCU for a peer that comes with its report."""
    made = proposal()
    made.scu_role, made.scp_role = True, True
    return made


def proposal() -> PresentationContext:
    """Return the context that we propose."""
    # Not deflated: what a megabyte becomes is not worth it.
    return build_context(STORAGE_COMMITMENT, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])


def read_named(data: BinaryIO | None, syntax: UID) -> Named:
    """Read the data set of an N-ACTION or N-EVENT-REPORT.

    Raises:
        TooManyObjectsError: more than `MOST_OBJECTS`.
        ValueError: it is none, or names what is no UID.
    """
    transaction, items, failed = "", list[tuple[str, str]](), dict[str, int]()
    data = data or BytesIO()
    data.seek(0)  # pynetdicom leaves it at its end
    walk = Walk(data, syntax, _MOST_ELEMENTS)
    sequence, current = 0, dict[int, bytes]()

    def take() -> None:
        if current:
            instance = _uid(current.get(_INSTANCE, b""))
            if sequence == _FAILED:
                failed[instance] = int.from_bytes(current.get(_REASON, b""), "little") or PROCESSING_FAILURE
            else:
                items.append((_uid(current.get(_CLASS, b"1")), instance))
            current.clear()
        if len(items) + len(failed) > MOST_OBJECTS:
            raise TooManyObjectsError(f"more than {MOST_OBJECTS} objects in one transaction")

    for element in walk:
        if element.level == 0 or element.tag == ITEM:
            take()
        if element.level == 0:
            sequence = element.tag if element.tag in (_REFERENCED, _FAILED) else 0
            if element.tag == _TRANSACTION:
                transaction = _uid(walk.value())
        if sequence and element.level < _IN_ITEM:
            walk.enter()
        elif sequence and element.level == _IN_ITEM and element.tag in (_CLASS, _INSTANCE, _REASON):
            current[element.tag] = walk.value()
    take()
    if not transaction:
        raise ValueError("no Transaction UID")
    return Named(transaction, tuple(items), failed)


def _uid(value: bytes) -> str:
    text = value.decode("latin-1").strip(" \0")
    if not is_uid(text):
        raise ValueError("what should be a UID is none")
    return text


def handle_report(event: evt.Event, take: Callable[[Report], bool]) -> tuple[int, Dataset | None]:
    """Answer an N-EVENT-REPORT: success only when `take` has kept it, so that the peer may try again."""
    if event.event_type not in (ALL_COMMITTED, SOME_FAILED):
        return _NO_SUCH_EVENT, None
    try:
        named = read_named(cast(N_EVENT_REPORT, event.request).EventInformation, UID(event.context.transfer_syntax))
    except ValueError as error:
        log.warning("a storage commitment report that cannot be read: %s", error)
        return INVALID_ARGUMENT, None
    committed = tuple(instance for _, instance in named.objects if instance not in named.failed)
    report = Report(named.transaction_uid, committed, named.failed)
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
    with sender.associated(destination, [proposal()], handlers) as association:
        status, _ = association.send_n_action(
            asked(transaction_uid, objects), REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        if "Status" not in status:
            raise PeerError(f"{destination} did not answer the storage commitment request")
        how = taken(STATUSES, status.Status)
        if how != "success":
            text = f"{destination} answered the storage commitment request with status 0x{status.Status:04X}"
            raise PeerError(text) if how == "passing" else PeerRejectedError(text)
        came.wait(_LINGER_S)
    return reports[0] if reports else None


def asked(transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Dataset:
    """Return the Action Information of a request (PS3.4 table J.3-1)."""
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
