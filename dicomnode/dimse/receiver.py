"""The receiver: C-ECHO and C-STORE as SCP (PS3.4 annexes A and B). It runs in a process of its own.

Order of a C-STORE: header from the bytes; file (temporary, fsync, rename, fsync of the directory); catalogue (commit);
answer. 0x0000 is said only when all of it has happened. If this process is killed before the answer, the sender sends
again, and `Catalog.record` calls it «same» or, if only the file had come about, «new».

| status | when (PS3.4 table B.2-1, PS3.7 annex C) | bytes kept |
|---|---|---|
| 0x0000 | safe on disk and recorded, also when it was here before | spool |
| 0xA700 out of resources | free space below the mark, the disk or the catalogue failed: try again | no |
| 0xA900 does not match SOP class | class or instance UID of dataset, request and context differ | quarantine |
| 0xC000 cannot understand | the header cannot be parsed or lacks a UID | quarantine |
| 0xC001 cannot understand | another content has this SOP Instance UID; the first is kept, never replaced | quarantine |

0xC001 is a failure on purpose: a success or a warning would let the sender delete a copy that is not in the study.
"""

import ipaddress
import logging
import threading
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicomnode.dimse import commitment, contexts
from dicomnode.dimse.file_meta import encode
from dicomnode.dimse.header import Header, HeaderError, parse
from dicomnode.dimse.transport import Server
from dicomnode.errors import SpoolError
from dicomnode.intake import processes
from dicomnode.intake.catalog import Catalog
from dicomnode.intake.records import Instance
from dicomnode.intake.spool import Spool, Stored

LOGGER = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UID_TAKEN = 0xC001

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 table 9-21).
_CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
_CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
_TEMPORARY_CONGESTION = (2, 3, 1)
_POLL_S = 0.05


@dataclass(frozen=True)
class Caller:
    """A peer that may call: its AE title, and its address (`192.0.2.7`, `192.0.2.0/24`; empty = any)."""

    ae_title: str
    address: str = ""

    def admits(self, ae_title: str, address: str) -> bool:
        """An AE title is no authentication; with an address it is at least not enough to know the name."""
        if ae_title.strip() != self.ae_title:
            return False
        return not self.address or ipaddress.ip_address(address) in ipaddress.ip_network(self.address, strict=False)


@dataclass(frozen=True)
class ReceiverSettings:
    """How the receiver listens.

    Attributes:
        host: address to bind; "" is every address of the machine.
        port: 0 takes a free one.
        check_called_ae: refuse peers that call another AE title than `ae_title`.
        callers: who may call; empty = everyone.
        max_pdu: largest PDU that peers may send, bytes; 0 = no limit.
        network_timeout_s: an association that says nothing for so long is aborted.
        acse_timeout_s: wait for the peer's side of opening and closing an association.
        dimse_timeout_s: wait for a DIMSE message that is due.
        minimum_free_bytes: below it, nothing new is accepted.
        report_to: (AE title, host, port) of callers whose storage commitment reports go on an association of our own.
    """

    ae_title: str
    host: str = ""
    port: int = 11112
    check_called_ae: bool = True
    callers: tuple[Caller, ...] = ()
    max_associations: int = 64
    max_pdu: int = 0
    network_timeout_s: float = 60.0
    acse_timeout_s: float = 30.0
    dimse_timeout_s: float = 30.0
    minimum_free_bytes: int = 5_000_000_000
    report_to: tuple[tuple[str, str, int], ...] = ()


class Receiver:
    """Listens from `start` to `stop`. Associations that store nothing (C-ECHO) leave no row in the catalogue."""

    def __init__(self, settings: ReceiverSettings, spool: Spool, catalog: Catalog) -> None:
        self._settings = settings
        self._spool = spool
        self._catalog = catalog
        self._run = processes.current()
        self._association_ids: dict[Association, int] = {}
        self._server: Server | None = None
        self._entity = _entity(settings)

    def start(self) -> int:
        """Listens; returns the port.

        Raises:
            SpoolError: the address cannot be bound (in use, not this machine's, no right to a port below 1024).
        """
        settings = self._settings
        # Its standard handlers format every PDU for a log that nobody reads: they cost a tenth of the throughput.
        _config.LOG_HANDLER_LEVEL = "none"
        reports = {ae_title: (host, port) for ae_title, host, port in settings.report_to}
        try:
            server = Server(
                self._entity,
                (settings.host or "0.0.0.0", settings.port),  # noqa: S104 - "" says: every address
                settings.ae_title,
                [*contexts.accepted(), commitment.context()],
                first_byte_timeout_s=settings.acse_timeout_s,
                network_timeout_s=settings.network_timeout_s,
                ended=self._ended,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_C_STORE, self._store),
                    *commitment.receiver_handlers(settings.ae_title, self._catalog, reports),
                ],
            )
        except OSError as error:
            where = f"{settings.host or '*'}:{settings.port}"
            raise SpoolError(f"cannot listen on {where}: {error.strerror}; change [receiver] host or port") from error
        self._server = server
        threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="dicom-accept", daemon=True).start()
        port = int(server.server_address[1])
        LOGGER.info("listening as %s on port %d", settings.ae_title, port)
        return port

    def stop(self, grace_s: float) -> None:
        """Accepts nothing new; running associations may finish for `grace_s`, then they are aborted."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server = None
        deadline = time.monotonic() + grace_s
        while self._running() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for association in self._running():
            association.abort()
        # Their ends are still to be written to the catalogue.
        deadline = time.monotonic() + self._settings.acse_timeout_s
        while (self._running() or self._association_ids) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _running(self) -> list[Association]:
        return [one for one in self._entity.active_associations if one.is_acceptor]

    # Association

    def _requested(self, event: evt.Event) -> None:
        """Refuses an A-ASSOCIATE-RQ before contexts are negotiated; pynetdicom itself refuses too many associations."""
        association = event.assoc
        rejection = self._rejection(association)
        if rejection is not None:
            association.acse.send_reject(*rejection)
            association.kill()

    def _rejection(self, association: Association) -> tuple[int, int, int] | None:
        request, address = _request(association), association.requestor.address
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        settings = self._settings
        if settings.check_called_ae and called != settings.ae_title:
            LOGGER.warning("refused %s at %s: it calls %s, this is %s", calling, address, called, settings.ae_title)
            return _CALLED_AE_NOT_RECOGNISED
        if settings.callers and not any(caller.admits(calling, address) for caller in settings.callers):
            LOGGER.warning("refused %s at %s: no such pair among the callers", calling, address)
            return _CALLING_AE_NOT_RECOGNISED
        if not self._has_space():
            LOGGER.error("refused %s at %s: the spool's disk is full below its mark", calling, address)
            return _TEMPORARY_CONGESTION
        return None

    def _has_space(self) -> bool:
        try:
            return self._spool.free_bytes() >= self._settings.minimum_free_bytes
        except SpoolError:
            LOGGER.exception("the spool does not answer")
            return False

    def _ended(self, association: Association) -> None:
        association_id = self._association_ids.get(association)
        how = "released" if association.is_released else "aborted"
        LOGGER.info("association with %s at %s %s", association.requestor.ae_title, association.requestor.address, how)
        if association_id is None:
            return
        try:
            self._catalog.end_association(
                association_id, "released" if association.is_released else "aborted", time.time()
            )
        except SpoolError:
            # It stays open in the catalogue until this process ends: the settle rule then waits for the silence.
            LOGGER.exception("cannot note the end of association %d", association_id)
        finally:
            del self._association_ids[association]

    def _association_id(self, association: Association) -> int:
        """The association's row, made at its first C-STORE: monitoring by C-ECHO would fill the table."""
        found = self._association_ids.get(association)
        if found is None:
            requestor, called_ae = association.requestor, _request(association).called_ae_title.strip()
            found = self._catalog.begin_association(
                self._run, requestor.ae_title, called_ae, requestor.address, time.time()
            )
            self._association_ids[association] = found
        return found

    # C-STORE

    def _store(self, event: evt.Event) -> Dataset | int:
        """One C-STORE request: the module's table says which answer it gets."""
        request, context = cast(C_STORE, event.request), event.context
        # pynetdicom asked is_valid_request before: a dataset and both UIDs are there.
        dataset = cast(BytesIO, request.DataSet).getvalue()
        named = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        file_meta = encode(*named, context.transfer_syntax)
        try:
            if not self._has_space():
                return _answer(OUT_OF_RESOURCES, "disk full below its mark")
            try:
                header = parse(dataset, context.transfer_syntax)
            except HeaderError as error:
                return self._refuse(CANNOT_UNDERSTAND, "unreadable-header", str(error), file_meta, dataset)
            if (header.sop_class_uid, header.sop_instance_uid) != named or named[0] != context.abstract_syntax:
                text = "SOP class or instance UID of dataset, request and context differ"
                return self._refuse(DOES_NOT_MATCH, "uid-mismatch", text, file_meta, dataset)
            return self._keep(header, file_meta, dataset, event.assoc)
        except SpoolError as error:
            LOGGER.error("cannot store %s: %s", named[1], error)
            return _answer(OUT_OF_RESOURCES, "cannot store now")

    def _keep(self, header: Header, file_meta: bytes, dataset: bytes, association: Association) -> Dataset | int:
        stored = self._spool.store(header.study_uid, header.series_uid, header.sop_instance_uid, file_meta, dataset)
        instance = _instance(header, stored, self._association_id(association))
        if self._catalog.record(instance) != "conflict":
            return SUCCESS
        text = f"SOP Instance UID {header.sop_instance_uid} is stored with other content"
        answer = self._refuse(UID_TAKEN, "uid-taken", text, file_meta, dataset)
        self._spool.discard(stored.path)
        return answer

    def _refuse(self, status: int, code: str, text: str, file_meta: bytes, dataset: bytes) -> Dataset:
        path = self._spool.quarantine(file_meta, dataset, code, text, time.time())
        LOGGER.warning("answered 0x%04X: %s; kept as %s", status, text, path)
        return _answer(status, code)


def run_receiver(settings: ReceiverSettings, spool_root: Path, catalog_url: str, stop: threading.Event) -> None:
    """A receiving process from start to end: sweeps what dead receivers left, listens until `stop` is set, drains.

    Raises:
        SpoolError: spool, catalogue or address are not usable.
    """
    spool = Spool(spool_root)
    swept = spool.sweep()
    catalog = Catalog.open(catalog_url)
    try:
        lost = catalog.lose_associations(processes.is_alive, time.time())
        if swept or lost:
            LOGGER.warning("a receiver died here: %d unfinished files removed, %d associations lost", swept, lost)
        receiver = Receiver(settings, spool, catalog)
        receiver.start()
        stop.wait()
        receiver.stop(settings.network_timeout_s)
    finally:
        catalog.close()


def _request(association: Association) -> A_ASSOCIATE:
    """The A-ASSOCIATE request, which has come before any of our handlers is called."""
    request = association.requestor.primitive
    assert request is not None
    return request


def _entity(settings: ReceiverSettings) -> ApplicationEntity:
    entity = ApplicationEntity(settings.ae_title)
    entity.maximum_associations = settings.max_associations
    entity.maximum_pdu_size = settings.max_pdu
    entity.network_timeout = settings.network_timeout_s
    entity.acse_timeout = settings.acse_timeout_s
    entity.dimse_timeout = settings.dimse_timeout_s
    return entity


def _instance(header: Header, stored: Stored, association_id: int) -> Instance:
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
        patient_hash=header.patient_hash,
        modality=header.modality,
        image_type=header.image_type,
        orientation=header.orientation,
        slice_position=header.slice_position,
    )


def _answer(status: int, comment: str) -> Dataset:
    """A response status; the comment reaches the sender's log as Error Comment (0000,0902), at most 64 characters."""
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment
    return answer
