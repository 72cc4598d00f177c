"""Query/Retrieve as SCP (PS3.4 annex C): C-FIND, C-MOVE and C-GET on what the node holds, patient and study root.

Only for callers that are configured for it: others are not offered its presentation contexts. C-MOVE goes to
configured addresses only, so that nobody can have images sent to himself under another name. Statuses: `ANSWERS`.
"""

import logging
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode import logs
from dicomnode.audit.messages import AuditPeer
from dicomnode.errors import SpoolError
from dicomnode.network.association import Peer, connect
from dicomnode.network.scan import HeaderError, Walk
from dicomnode.network.statuses import OwnStatus
from dicomnode.reception import audited, query_model
from dicomnode.reception.held_header import syntax_of
from dicomnode.reception.holdings import Held, QueryHoldings
from dicomnode.reception.query_model import PATIENT_ROOT, STUDY_ROOT, IdentifierError
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

_PENDING, _CANCELLED = 0xFF00, 0xFE00
_OUT_OF_RESOURCES, _DOES_NOT_MATCH, _UNABLE_TO_PROCESS = 0xA700, 0xA900, 0xC000
_SUCCESS, _SOME_FAILED, _NO_DESTINATION, _MOVE_REFUSED = 0x0000, 0xB000, 0xA801, 0xC514
_UNCOMPRESSED: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_MOST_CONTEXTS: Final = 128
#: Of one query; then the caller hears that it was too many.
MOST_ANSWERS: Final = 10_000
_TABLES = "PS3.4 tables C.4-1 to C.4-3"
ANSWERS: Final[tuple[OwnStatus, ...]] = (
    OwnStatus(_PENDING, "a match (C-FIND), or sub-operations continue (C-MOVE, C-GET)", _TABLES),
    OwnStatus(_SUCCESS, "the end", _TABLES),
    OwnStatus(_SOME_FAILED, "some objects could not be sent (C-MOVE, C-GET)", _TABLES),
    OwnStatus(_OUT_OF_RESOURCES, f"the catalogue does not answer, or more than {MOST_ANSWERS} matches", _TABLES),
    OwnStatus(_NO_DESTINATION, "the move destination is not configured, or cannot be reached", _TABLES),
    OwnStatus(
        _DOES_NOT_MATCH,
        "the identifier has no level, or lacks the unique key of its own or of an upper level (C-FIND, C-GET)",
        _TABLES,
    ),
    OwnStatus(_UNABLE_TO_PROCESS, "anything else, such as an identifier that cannot be read (C-FIND, C-GET)", _TABLES),
    OwnStatus(_MOVE_REFUSED, "as 0xA900 and 0xC000, of a C-MOVE", _TABLES),
    OwnStatus(_CANCELLED, "cancelled by the requester", _TABLES),
)
#: Of an identifier, bytes and elements, nested ones included.
_LONGEST_IDENTIFIER, _MOST_ELEMENTS = 1 << 20, 1000

Result = tuple[int, Dataset | None]


def offered(storage: list[PresentationContext]) -> list[PresentationContext]:
    """Return the contexts of a caller that may query, those of `storage` included.

    In the storage contexts it may be SCP as well: C-GET brings the objects on the same association.
    """
    for context in storage:
        context.scu_role = context.scp_role = True
    roots = [uid for root in (PATIENT_ROOT, STUDY_ROOT) for uid in root]
    return [*storage, *(build_context(uid, list(_UNCOMPRESSED)) for uid in roots)]


class RetrieveProvider:
    """C-FIND, C-MOVE and C-GET as SCP, at a `MovingEntity`. `move_to` are the peers that C-MOVE may send to."""

    def __init__(self, ae_title: str, holdings: QueryHoldings, move_to: Iterable[Peer]) -> None:
        self._ae_title, self._holdings = ae_title, holdings
        self._move_to = {peer.ae_title: peer for peer in move_to}

    @property
    def handlers(self) -> list[EventHandlerType]:
        """For the server that listens."""
        return [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get), (evt.EVT_C_MOVE, self._move)]

    def _find(self, event: evt.Event) -> Iterator[Result]:
        found = 0
        audited.queried(event)
        try:
            for answer in query_model.find(_identifier(event), _root(event), self._holdings, self._ae_title):
                if event.is_cancelled:
                    yield _CANCELLED, None
                    return
                if not _can_be_encoded(answer):
                    log.warning("%s: an answer is left out, which cannot be encoded", _caller(event))
                    continue
                if found == MOST_ANSWERS:
                    log.warning("%s: C-FIND cut off after %d matches", _caller(event), found)
                    yield _OUT_OF_RESOURCES, None
                    return
                found += 1
                yield _PENDING, answer
        except Exception as error:  # noqa: BLE001  (pynetdicom would log its text, and that may quote a patient's name)
            yield _refused(event, error), None
            return
        log.info("%s: C-FIND, %s", _caller(event), plural(found, "match", "matches"))

    def _get(self, event: evt.Event) -> Iterator[Any]:
        try:
            held = query_model.retrieve(_identifier(event), _root(event), self._holdings)
        except Exception as error:  # noqa: BLE001  (as above)
            yield 1
            yield _refused(event, error), None
            return
        yield len(held)
        log.info("%s: C-GET, %s of %s", _caller(event), plural(len(held), "object"), _studies(held))
        yield from _sub_operations(event, held, None)

    def _move(self, event: evt.Event) -> Iterator[Any]:
        peer = self._move_to.get(str(event.move_destination).strip())
        if peer is None:
            where = logs.printable(str(event.move_destination))
            log.warning("%s requested a C-MOVE to %s, which is not configured", _caller(event), where)
            yield None, None
            return
        try:
            held = query_model.retrieve(_identifier(event), _root(event), self._holdings)
        except Exception as error:  # noqa: BLE001  (as above)
            _refused(event, error)
            # pynetdicom answers 0xC514: a status of ours it would take only after having called the destination.
            raise IdentifierError("see the previous log line") from None
        yield peer.host, peer.port, {"peer": peer, "contexts": _proposals(held), "handlers": [_named(event)]}
        yield len(held)
        log.info(
            "%s: C-MOVE, %s of %s to %s", _caller(event), plural(len(held), "object"), _studies(held), peer.ae_title
        )
        yield from _sub_operations(event, held, AuditPeer(peer.ae_title, peer.host))


class MovingEntity(ApplicationEntity):
    """An application entity that listens, and opens the associations of C-MOVE's sub-operations by `connect`."""

    def associate(self, *_address: Any, **kwargs: Any) -> Association:
        """Take what `RetrieveProvider` has yielded."""
        return connect(kwargs["peer"], kwargs["contexts"], kwargs["handlers"])


def _sub_operations(event: evt.Event, held: list[Held], to: AuditPeer | None) -> Iterator[Result]:
    audited.retrieved(event, held, to, ended=False)
    tried = 0
    try:
        for one in held:
            if event.is_cancelled:
                yield _CANCELLED, None
                return
            yield _PENDING, _object(one)
            tried += 1
    finally:
        # pynetdicom leaves the generator where it stands when the association ends.
        audited.retrieved(event, held[:tried], to, ended=True, failed=tried < len(held))


def _object(one: Held) -> Dataset:
    """Return the object as it is in its file.

    Where that cannot be read, or is not whole, its UIDs, which pynetdicom counts as failed.
    """
    try:
        return _read(one)
    except Exception as error:  # noqa: BLE001  (pydicom raises anything at what is none: it costs this object alone)
        name = logs.uid(one.sop_instance_uid)
        log.warning("%s cannot be sent: its file cannot be read (%s)", name, type(error).__name__)
        missing = Dataset()
        missing.SOPClassUID, missing.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
        return missing


def _read(one: Held) -> Dataset:
    if one.size not in (None, one.path.stat().st_size):
        raise EOFError  # pydicom takes what is there, and the peer would take it for all
    dataset = dcmread(one.path)
    if (dataset.SOPClassUID, dataset.SOPInstanceUID) != (one.sop_class_uid, one.sop_instance_uid):
        raise ValueError  # pynetdicom would name it so in its last answer, or fail at that
    return dataset


def _proposals(held: list[Held]) -> list[PresentationContext]:
    """One syntax in each context: the files' own, and the uncompressed ones to fall back on."""
    wanted: dict[tuple[str, UID], None] = {}
    for one in held:
        own = _syntax(one.path)
        for syntax in (own, *_UNCOMPRESSED) if own in _UNCOMPRESSED else (own,):
            wanted[one.sop_class_uid, syntax] = None
    return [build_context(sop_class, syntax) for sop_class, syntax in list(wanted)[:_MOST_CONTEXTS]]


def _syntax(path: Path) -> UID:
    try:
        with path.open("rb") as file:
            return syntax_of(file)
    except (OSError, HeaderError):
        return ExplicitVRLittleEndian


def _named(event: evt.Event) -> EventHandlerType:
    originator = event.assoc.requestor.ae_title

    def name_originator(sent: evt.Event) -> None:
        # pynetdicom names the node itself; PS3.7 9.1.1.1.5 wants the one that asked for the C-MOVE.
        if "MoveOriginatorApplicationEntityTitle" in sent.message.command_set:
            sent.message.command_set.MoveOriginatorApplicationEntityTitle = originator

    return evt.EVT_DIMSE_SENT, name_originator


def _refused(event: evt.Event, error: Exception) -> int:
    if not isinstance(error, IdentifierError | SpoolError):
        logs.log_unexpected(log, error, "query from %s failed", _caller(event))
        return _UNABLE_TO_PROCESS
    log.warning("query from %s refused: %s", _caller(event), error)
    return _DOES_NOT_MATCH if isinstance(error, IdentifierError) else _OUT_OF_RESOURCES


def _identifier(event: evt.Event) -> Dataset:
    """Return the identifier, once it is certain that it is small, in length and in elements.

    Raises:
        IdentifierError: it is not.
    """
    data = cast(C_FIND, event.request).Identifier or BytesIO()
    data.seek(0)
    if len(data.getbuffer()) > _LONGEST_IDENTIFIER:
        raise IdentifierError(f"it is longer than {_LONGEST_IDENTIFIER} bytes")
    for _ in Walk(data, UID(event.context.transfer_syntax), _MOST_ELEMENTS):
        pass
    return event.identifier


def _can_be_encoded(answer: Dataset) -> bool:
    return encode(answer, False, True) is not None


def _root(event: evt.Event) -> query_model.Root:
    """Return the root of the context; whatever else has been accepted for storing, it answers no query."""
    if event.context.abstract_syntax not in (*PATIENT_ROOT, *STUDY_ROOT):
        raise IdentifierError("its SOP class is none of the patient and study root's")
    return "patient" if event.context.abstract_syntax in PATIENT_ROOT else "study"


def _caller(event: evt.Event) -> str:
    requestor = event.assoc.requestor
    return f"{logs.printable(requestor.ae_title.strip())} at {requestor.address}"


def _studies(held: list[Held]) -> str:
    uids = sorted({one.study_uid for one in held})
    return f"study {uids[0]}" if len(uids) == 1 else plural(len(uids), "study", "studies")
