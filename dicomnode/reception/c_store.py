"""One image on its way from the network into spool and catalogue, and the answer that its sender gets.

Order of a C-STORE: header from the bytes; file (temporary, fsync, rename, fsync of the directory); catalogue (commit);
answer. 0x0000 is said only when all of it has happened. If this process is killed before the answer, the sender sends
again, and `Catalog.record` calls it «same» or, if only the file had come about, «new».
Which answer there is when, and where the bytes are kept: `ANSWERS`. The quarantine has an end (`reception.quarantine`).
A UID is digits and dots of at most 64 characters; what is none is quoted nowhere.

0xC001 is a failure on purpose: a success or a warning would let the sender delete a copy that is not in the study.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom.uid import UID

from dicomnode import logs
from dicomnode.errors import SpoolError
from dicomnode.logs import is_uid
from dicomnode.metrics import counters
from dicomnode.network.commands import StoreAnswer, StoreRequest
from dicomnode.network.file_meta import encode
from dicomnode.network.statuses import OwnStatus
from dicomnode.reception.corrections import replace_known
from dicomnode.reception.header import HeaderError, InstanceHeader, InvalidUidError, parse
from dicomnode.reception.quarantine import Quarantine
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.patient_key import PatientKey
from dicomnode.store.records import Instance
from dicomnode.store.sameness import same_content
from dicomnode.store.spool import Incoming, Spool, Stored

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UID_TAKEN = 0xC001
_TABLE = "PS3.4 table B.2-1"
ANSWERS: tuple[OwnStatus, ...] = (
    OwnStatus(SUCCESS, "safe on disk and recorded, also when it was here before", _TABLE, "kept in the spool"),
    OwnStatus(
        SUCCESS, "a result of this node comes back from where it was sent", _TABLE, "not kept: it is among the results"
    ),
    OwnStatus(
        SUCCESS,
        "other content has this SOP Instance UID, and a decision lets it take its place",
        _TABLE,
        "kept in the spool; the former content is kept aside",
    ),
    OwnStatus(
        OUT_OF_RESOURCES,
        "free space is below the mark, the disk or the catalogue failed, or the object is too large",
        _TABLE,
        "not kept",
    ),
    OwnStatus(
        DOES_NOT_MATCH, "class or instance UID of dataset, request and context differ", _TABLE, "kept in quarantine"
    ),
    OwnStatus(
        CANNOT_UNDERSTAND, "the header cannot be parsed, or a UID is missing or invalid", _TABLE, "kept in quarantine"
    ),
    OwnStatus(
        UID_TAKEN,
        "other content has this SOP Instance UID: the first stands until a person decides",
        _TABLE,
        "kept in quarantine",
    ),
)
#: How often the free space is looked at while an object comes in, bytes.
_LOOK_EVERY = 64 << 20


class Reception:
    """One C-STORE: `ANSWERS` says which answer it gets."""

    def __init__(
        self,
        request: StoreRequest,
        sop_class_uid: str,
        transfer_syntax: UID,
        spool: Spool,
        catalog: Catalog,
        *,
        quarantine: Quarantine,
        largest: int,
        has_space: Callable[[], bool],
        association_id: Callable[[], int],
        replacing: str = "",
        study_uid: str = "",
    ) -> None:
        """Begin an object; `sop_class_uid` and `transfer_syntax` are those of the presentation context.

        More than `largest` bytes are refused. `association_id` is asked once there is something to record. `replacing`
        names the caller where its objects replace others of the same UID; else they do not. `study_uid`: the study
        that it has to be of; "" for any.
        """
        self._study = study_uid
        self._replacing = replacing
        self._request, self._sop_class, self._syntax = request, sop_class_uid, transfer_syntax
        self._spool, self._catalog, self._association_id = spool, catalog, association_id
        self._quarantine, self._largest, self._has_space = quarantine, largest, has_space
        self._size, self._look_at = 0, min(_LOOK_EVERY, largest)
        self._incoming: Incoming | None = None
        self._why = "cannot store now"
        try:
            if has_space():
                named = [uid if is_uid(uid) else "" for uid in (request.sop_class_uid, request.sop_instance_uid)]
                self._incoming = spool.receive(encode(named[0], named[1], transfer_syntax))
            else:
                self._why = "out of disk space"
        except SpoolError as error:
            self._failed(error)

    def write(self, data: memoryview) -> None:
        """Add bytes of the data set."""
        if self._incoming is not None:
            try:
                self._incoming.write(data)
            except SpoolError as error:
                self._incoming = None
                self._failed(error)
            self._size += len(data)
            if self._size > self._look_at:
                self._look()

    def _look(self) -> None:
        """Refuse an object without an end, before the disk is full of it."""
        self._look_at = min(self._size + _LOOK_EVERY, self._largest)
        if self._size > self._largest:
            self._why = "larger than this node takes"
        elif self._has_space():
            return
        else:
            self._why = "out of disk space"
        if self._incoming is not None:
            log.error("cannot store %s: %s", logs.uid(self._request.sop_instance_uid), self._why)
            self._incoming.discard()
            self._incoming = None

    def abandon(self) -> None:
        """Give up the object: the association has ended in the middle of it."""
        if self._incoming is not None:
            self._incoming.discard()

    def finish(self) -> StoreAnswer:
        """All bytes are there: the answer."""
        answer = self._answer()
        is_stored = answer.status == SUCCESS
        counters.object_received("stored" if is_stored else f"0x{answer.status:04X}", self._size if is_stored else 0)
        return answer

    def _answer(self) -> StoreAnswer:
        if self._incoming is None:
            return StoreAnswer(OUT_OF_RESOURCES, self._why)
        try:
            return self._judge(self._incoming)
        except SpoolError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001  (whatever one image does: it is answered, and the next one may come)
            logs.log_unexpected(log, error, "cannot store %s", logs.uid(self._request.sop_instance_uid))
        self._incoming.discard()
        return StoreAnswer(OUT_OF_RESOURCES, self._why)

    def _failed(self, error: SpoolError) -> None:
        log.error("cannot store %s: %s", logs.uid(self._request.sop_instance_uid), error)

    def _judge(self, incoming: Incoming) -> StoreAnswer:
        try:
            header = self._header(incoming)
        except InvalidUidError as error:
            return self._refuse(incoming, CANNOT_UNDERSTAND, "invalid-uid", str(error))
        except HeaderError as error:
            return self._refuse(incoming, CANNOT_UNDERSTAND, "unreadable-header", str(error))
        named = (self._request.sop_class_uid, self._request.sop_instance_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != named or named[0] != self._sop_class:
            text = "SOP class or instance UID of dataset, request and context differ"
            return self._refuse(incoming, DOES_NOT_MATCH, "uid-mismatch", text)
        if self._study not in ("", header.study_uid):
            return self._refuse(incoming, DOES_NOT_MATCH, "study-mismatch", "the object is of another study")
        if header.is_own and self._catalog.is_result(header.sop_instance_uid):
            # A PACS that routes everything sends our results back, perhaps under a study or patient that it has
            # coerced: we have them, they are no new images, and no study comes about by them.
            log.info("our own result %s came back: it is not stored again", header.sop_instance_uid)
            incoming.discard()
            return StoreAnswer(SUCCESS)
        return self._keep(incoming, header)

    def _keep(self, incoming: Incoming, header: InstanceHeader) -> StoreAnswer:
        stored = self._spool.keep(incoming, header.study_uid, header.series_uid, header.sop_instance_uid)
        instance = _instance(header, stored, self._association_id(), self._catalog.patient_key)
        with logs.about(instance.study_uid, instance.association_id):
            return self._recorded(incoming, instance, stored.path)

    def _recorded(self, incoming: Incoming, instance: Instance, path: Path) -> StoreAnswer:
        """Record an instance whose file is safe: the answer."""
        if self._catalog.record(instance) != "conflict":
            # Housekeeping may have moved an old study away between file and record: then the sender has to try again.
            return StoreAnswer(SUCCESS) if path.exists() else StoreAnswer(OUT_OF_RESOURCES, "try again")
        replacing = self._replacing
        if self._is_resend(instance) or replace_known(self._spool, self._catalog, instance, replacing):
            return StoreAnswer(SUCCESS)
        text = f"SOP Instance UID {logs.uid(instance.sop_instance_uid)} is already stored with different content"
        answers: list[StoreAnswer] = []
        self._catalog.move_unused(
            [instance], lambda _: answers.append(self._refuse(incoming, UID_TAKEN, "uid-taken", text))
        )
        if not answers:  # a person has accepted this very version just now
            return StoreAnswer(SUCCESS)
        self._catalog.note_conflict(instance)
        return answers[0]

    def _header(self, incoming: Incoming) -> InstanceHeader:
        if not (is_uid(self._request.sop_class_uid) and is_uid(self._request.sop_instance_uid)):
            raise InvalidUidError("a UID of the request is not digits and dots of at most 64 characters")
        with incoming.dataset() as dataset:
            header = parse(dataset, self._syntax)
        header.require_uids()
        return header

    def _is_resend(self, instance: Instance) -> bool:
        """Whether this is the image that we hold, in another encoding: ours is kept, this association brought it."""
        held = self._catalog.held_instance(instance.sop_instance_uid)
        if held is None or not same_content(Path(held.path), Path(instance.path)):
            return False
        self._catalog.record(replace(held, received_at=instance.received_at, association_id=instance.association_id))
        self._spool.discard(Path(instance.path))
        return True

    def _refuse(self, incoming: Incoming, status: int, code: str, text: str) -> StoreAnswer:
        path = self._quarantine.set_aside(incoming, code, text, time.time())
        where = f"quarantined as {path}" if path else "not kept: it is too large for the quarantine, or that is full"
        log.warning("answered 0x%04X: %s; %s", status, text, where)
        return StoreAnswer(status, code)


def _instance(header: InstanceHeader, stored: Stored, association_id: int, key: PatientKey) -> Instance:
    return Instance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        path=str(stored.path),
        sha256=stored.sha256,
        size=stored.size,
        received_at=time.time(),
        association_id=association_id,
        patient_hash=key.keyed(header.patient_hash),
        modality=header.modality,
        image_type=header.image_type,
        orientation=header.orientation,
        slice_position=header.slice_position,
    )
