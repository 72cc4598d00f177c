"""STOW-RS (PS3.18 10.5): objects on their way in, by the code of C-STORE, and what their sender is told.

Each part goes to the disk as it comes and is judged, kept or put in quarantine by `reception.c_store`; nothing is told
as stored before it is durable. Failure reasons are the statuses of a C-STORE (PS3.18 table I.2-2), and two more.
If this process is killed before it has answered, the sender sends again, and what was here is «same».
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode import logs
from dicomnode.dicomweb.media import DICOM, RELATED, content_type
from dicomnode.dicomweb.multipart import MultipartError, MultipartReader, Piece
from dicomnode.dicomweb.problems import WebError
from dicomnode.errors import SpoolError
from dicomnode.logs import is_uid
from dicomnode.network import contexts
from dicomnode.network.commands import StoreAnswer, StoreRequest
from dicomnode.network.scan import HeaderError, scan
from dicomnode.reception import audited
from dicomnode.reception.admission import Admission
from dicomnode.reception.c_store import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES, SUCCESS, Reception
from dicomnode.reception.process import recover
from dicomnode.reception.quarantine import Quarantine
from dicomnode.reception.receiver import PermittedCaller, ReceiverSettings, admitting, has_space, replacing
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: PS3.18 table I.2-2.
CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED = 0x0122, 0xC122
#: Parts of a request, and bytes of a part's file meta group.
MOST_PARTS: Final = 20_000
_LONGEST_META: Final = 1 << 16
_META_START: Final = 144
_CLASS, _INSTANCE, _SYNTAX = 0x00020002, 0x00020003, 0x00020010


@dataclass(frozen=True)
class StowOutcome:
    """What became of one part; `status` as of a C-STORE."""

    sop_class_uid: str
    sop_instance_uid: str
    status: int


class StowReceiver:
    """Takes objects in: one for the process, from its start to its end. For several threads."""

    def __init__(self, settings: ReceiverSettings, spool: Spool, catalog: Catalog) -> None:
        """Put right what a process that died has left, as a receiver does.

        Raises:
            SpoolError: spool or catalogue are not usable.
        """
        self.settings, self.spool, self.catalog = settings, spool, catalog
        self.quarantine = Quarantine(spool, settings.quarantine_bytes)
        self.admission = Admission(settings.max_associations, settings.per_address)
        self.run = process_names.current()
        recover(spool, catalog)

    def has_space(self) -> bool:
        """Whether anything new may come."""
        return has_space(self.spool, self.settings.minimum_free_bytes)

    def begin(self, calling_ae: str, address: str, kind: str, study_uid: str, base: str) -> "StowRequest":
        """Let a request in; it has to be ended.

        Args:
            calling_ae: the caller that the token stands for.
            address: of the client.
            kind: the body's Content-Type.
            study_uid: the one that the path names; "" for any.
            base: the service's URL.

        Raises:
            WebError: 400, 403, 415, 429, 503: it is not let in.
        """
        given = content_type(kind)
        if given.name != RELATED or given.inner not in (DICOM, ""):
            raise WebError(415, f'send multipart/related; type="{DICOM}"')
        if study_uid and not is_uid(study_uid):
            raise WebError(400, "the path names no study")
        caller = admitting(self.settings.callers, calling_ae, address)
        if self.settings.callers and caller is None:
            log.warning("STOW-RS: refused %s at %s: not in node.callers", logs.printable(calling_ae), address)
            audited.refused(calling_ae, address, "STOW-RS: calling AE title or address not recognised")
            raise WebError(403, "the caller of this token may not send from this address (node.callers)")
        if not self.has_space():
            raise WebError(503, "out of disk space", {"Retry-After": "300"})
        try:
            reader = MultipartReader(given.parameters.get("boundary", ""))
        except MultipartError as error:
            raise WebError(400, str(error)) from None
        request = StowRequest(self, reader, calling_ae, address, caller, study_uid, base)
        refused = self.admission.admit(request, calling_ae, address, self.settings.limits(caller))
        if refused is not None:
            log.warning("STOW-RS: refused %s at %s: %s", logs.printable(calling_ae), address, refused.text)
            raise WebError(429 if refused.is_rate else 503, refused.text, {"Retry-After": "30"})
        return request


class LateReceiver:
    """A receiver that begins once the spool lets it: whoever looks at the node because of its spool can do so."""

    def __init__(self, make: Callable[[], StowReceiver]) -> None:
        """Try to begin."""
        self._make, self._lock = make, threading.Lock()
        self._made: StowReceiver | None = None
        try:
            self.get()
        except SpoolError:
            log.exception("STOW-RS: nothing can be stored until the spool can be used")

    def get(self) -> StowReceiver:
        """Return it, begun now if it could not before. Raises SpoolError: it still cannot."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


@dataclass(eq=False)
class StowRequest:
    """One request: `feed` its body, then `finish`; in any case `end`. Not for several threads at once."""

    receiver: StowReceiver
    reader: MultipartReader
    calling_ae: str
    address: str
    caller: PermittedCaller | None
    study_uid: str
    base: str
    outcomes: list[StowOutcome] = field(default_factory=list)
    _part: "_Part | None" = None
    _parts: int = 0
    _association: int | None = None
    _ended: bool = False

    def feed(self, data: bytes) -> None:
        """Take a piece of the body.

        Raises:
            WebError: 400: it is not what it says it is; 413: too many parts.
        """
        try:
            for piece in self.reader.feed(data):
                self._take(piece)
        except MultipartError as error:
            raise WebError(400, str(error)) from None

    def _take(self, piece: Piece) -> None:
        if piece.kind == "begin":
            self._parts += 1
            if self._parts > MOST_PARTS:
                raise WebError(413, f"more than {MOST_PARTS} objects in one request", {"Connection": "close"})
            named = content_type(piece.field("content-type")).name
            if named not in (DICOM, ""):
                raise WebError(415, f"a part is {logs.escaped(named, 60)}: send {DICOM}")
            self._part = _Part(self)
        elif self._part is not None and piece.kind == "data":
            self._part.write(piece.data)
        elif self._part is not None:
            part, self._part = self._part, None
            self.outcomes.append(part.finish())

    def association_id(self) -> int:
        """Return the request's row, as an association has it, made at its first object."""
        if self._association is None:
            called = self.receiver.settings.ae_title
            self._association = self.receiver.catalog.begin_association(
                self.receiver.run, self.calling_ae, called, self.address, time.time()
            )
        return self._association

    def finish(self) -> tuple[int, dict[str, Any]]:
        """All of the body is there: the status and the response's data set.

        Raises:
            WebError: 400: it breaks off, or has no object.
            SpoolError: the catalogue failed: not known what is safe.
        """
        if not self.reader.ended:
            raise WebError(400, "the body breaks off before its closing boundary: send it again")
        if not self.outcomes:
            raise WebError(400, "the body has no object")
        self._close("released")
        return answer(self.outcomes, self.base)

    def end(self) -> None:
        """Give up what is under way, and the place; after `finish` only the place."""
        if self._part is not None:
            self._part.abandon()
            self._part = None
        try:
            self._close("aborted")
        except SpoolError:
            log.exception("cannot record the end of a STOW-RS request")
        finally:
            self.receiver.admission.leave(self)

    def _close(self, how: Any) -> None:
        if self._ended:
            return
        self._ended = True
        if self._association is not None:
            self.receiver.catalog.end_association(self._association, how, time.time())
            stored = sum(one.status == SUCCESS for one in self.outcomes)
            with logs.about(association=self._association):
                who = logs.printable(self.calling_ae.strip())
                of = plural(self._parts, "object")
                log.info("STOW-RS from %s at %s %s: %d of %s stored", who, self.address, how, stored, of)


class _Part:
    """One object, from the first byte of its file."""

    def __init__(self, request: StowRequest) -> None:
        self._request = request
        self._head = bytearray()
        self._reception: Reception | None = None
        self._names = ("", "")
        self._refused = 0

    def write(self, data: bytes) -> None:
        if self._refused:
            return
        if self._reception is not None:
            self._reception.write(memoryview(data))
            return
        self._head += data
        length = _meta_length(self._head)
        if length is None or len(self._head) < length <= _META_START + _LONGEST_META:
            return
        self._begin(length)

    def _begin(self, length: int) -> None:
        """Begin to take in; what has no file meta group goes the way of what cannot be understood."""
        meta = _meta(bytes(self._head[:length]))
        sop_class, instance, syntax = meta or ("", "", str(ImplicitVRLittleEndian))
        self._names = (sop_class if is_uid(sop_class) else "", instance if is_uid(instance) else "")
        if meta is not None:
            self._refused = self._unsupported(sop_class, syntax)
        if not self._refused:
            request, receiver = self._request, self._request.receiver
            self._reception = Reception(
                StoreRequest(0, 0, sop_class, instance),
                sop_class,
                UID(syntax),
                receiver.spool,
                receiver.catalog,
                quarantine=receiver.quarantine,
                largest=receiver.settings.largest_object_bytes,
                has_space=receiver.has_space,
                association_id=request.association_id,
                replacing=replacing(request.caller, request.calling_ae, request.address),
                study_uid=request.study_uid,
            )
            start = length if meta is not None else 0
            self._reception.write(memoryview(bytes(self._head[start:])))
        self._head.clear()

    def _unsupported(self, sop_class: str, syntax: str) -> int:
        offered = contexts.negotiable([sop_class], self._request.receiver.settings.private_storage)
        if not offered or offered[0].abstract_syntax == contexts.VERIFICATION:
            log.warning("STOW-RS: %s is no class that is stored", logs.uid(sop_class))
            return CLASS_NOT_SUPPORTED
        if syntax not in offered[0].transfer_syntax:
            log.warning("STOW-RS: transfer syntax %s is not taken of %s", logs.uid(syntax), logs.uid(sop_class))
            return SYNTAX_NOT_SUPPORTED
        return 0

    def finish(self) -> StowOutcome:
        if self._reception is None and not self._refused:
            self._begin(len(self._head))
        told = StoreAnswer(self._refused) if self._reception is None else self._reception.finish()
        return StowOutcome(*self._names, told.status)

    def abandon(self) -> None:
        if self._reception is not None:
            self._reception.abandon()


def _meta_length(head: bytearray) -> int | None:
    """Return where a file's data set begins; None: more has to come; 0: it is no DICOM file."""
    if len(head) < _META_START:
        return None
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0
    length = int.from_bytes(head[_META_START - 4 : _META_START], "little")
    return _META_START + length if length <= _LONGEST_META else 0


def _meta(head: bytes) -> tuple[str, str, str] | None:
    """Return SOP class, instance and transfer syntax of a file meta group (PS3.10 7.1); None where it has not all."""
    if len(head) <= _META_START:
        return None
    try:
        wanted = frozenset((_CLASS, _INSTANCE, _SYNTAX))
        found = scan(BytesIO(head[_META_START:]), ExplicitVRLittleEndian, wanted, 0x0002FFFF)
    except HeaderError:
        return None
    named = [found.get(tag, (b"", b""))[1].decode("latin-1").strip(" \0") for tag in (_CLASS, _INSTANCE, _SYNTAX)]
    return (named[0], named[1], named[2]) if is_uid(named[2]) else None


def answer(outcomes: list[StowOutcome], base: str) -> tuple[int, dict[str, Any]]:
    """Return the status (PS3.18 table 10.5.3-1) and the response's data set (PS3.18 table I.2-1) as DICOM JSON."""
    stored = [one for one in outcomes if one.status == SUCCESS]
    failed = [one for one in outcomes if one.status != SUCCESS]
    told: dict[str, Any] = {"00081190": {"vr": "UR", "Value": [f"{base}/studies"]}}
    if stored:
        told["00081199"] = {"vr": "SQ", "Value": [_referenced(one) for one in stored]}
    if failed:
        reasons = [{**_referenced(one), "00081197": {"vr": "US", "Value": [one.status]}} for one in failed]
        told["00081198"] = {"vr": "SQ", "Value": reasons}
    if not failed:
        return 200, told
    return (202 if stored else 409), told


def _referenced(one: StowOutcome) -> dict[str, Any]:
    named = (("00081150", one.sop_class_uid), ("00081155", one.sop_instance_uid))
    return {tag: {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"} for tag, uid in named}


#: What a client is told, for the conformance statement: reason, when.
REASONS: Final[tuple[tuple[int, str], ...]] = (
    (OUT_OF_RESOURCES, "as of C-STORE: disk, catalogue, or the object is too large"),
    (DOES_NOT_MATCH, "as of C-STORE; or the object is of another study than the one in the path"),
    (CANNOT_UNDERSTAND, "as of C-STORE; or the part is not a DICOM file (PS3.10)"),
    (0xC001, "as of C-STORE: other content has this SOP Instance UID"),
    (CLASS_NOT_SUPPORTED, "the SOP class is none that is stored"),
    (SYNTAX_NOT_SUPPORTED, "the transfer syntax is none that is taken"),
)
