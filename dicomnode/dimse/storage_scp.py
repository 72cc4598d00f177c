"""A small archive that stands in for a PACS in the demo and in tests: C-ECHO, C-STORE and Storage Commitment as SCP."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_context, build_role

from dicomnode.dimse import contexts
from dicomnode.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.dimse.transport import RequestorEntity, disable_nagle
from dicomnode.errors import SpoolError
from dicomnode.intake.spool import folder_name

LOGGER = logging.getLogger(__name__)

_REQUEST_COMMITMENT = 1  # N-ACTION action type, PS3.4 J.3.2
_ALL_COMMITTED, _SOME_FAILED = 1, 2  # N-EVENT-REPORT event types, PS3.4 J.3.3
_NO_SUCH_OBJECT = 0x0112  # Failure Reason (0008,1197), PS3.3 C.14
_CLASS_INSTANCE_CONFLICT = 0x0119
_NO_SUCH_ACTION = 0x0123  # PS3.7 annex C.5.18
_INVALID_ARGUMENT = 0x0115
_ANSWER_SENT_S = 10.0


class StoragePeer:
    """Keeps what it gets as `folder/<SOP Instance UID>.dcm`, and commits to what it truly holds there.

    `report_to` maps a requester's AE title to the (host, port) where its commitment reports go, on a new association
    (as Orthanc does); a requester that is not in it gets the report on the association of its request (PS3.4 J.3.3).
    """

    def __init__(
        self, ae_title: str, host: str, port: int, folder: Path, report_to: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.folder = folder
        self._report_to = dict(report_to or {})
        self._entity = ApplicationEntity(ae_title)
        self._entity.maximum_pdu_size = 0
        # The requester's turn comes when the answer to its N-ACTION is on its way.
        self._answers: dict[Association, threading.Event] = {}

    def start(self) -> int:
        """Listens; returns the port.

        Raises:
            SpoolError: the address cannot be bound or the folder not made.
        """
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, lambda event: disable_nagle(event.assoc)),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_PDU_SENT, self._pdu_sent),
        ]
        commitment = build_context(STORAGE_COMMITMENT)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            server = self._entity.start_server(
                (self.host, self.port), block=False, contexts=[*contexts.accepted(), commitment], evt_handlers=handlers
            )
        except OSError as error:
            raise SpoolError(
                f"cannot listen on {self.host}:{self.port} or make {self.folder}: {error.strerror}"
            ) from error
        assert server is not None
        self.port = int(server.server_address[1])
        return self.port

    def stop(self) -> None:
        """Closes the port; running associations are aborted."""
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        path = self._path(str(cast(C_STORE, event.request).AffectedSOPInstanceUID))
        # A reader of the folder never sees half a file.
        temporary = path.with_suffix(f".{threading.get_ident()}.part")
        temporary.write_bytes(event.encoded_dataset())
        temporary.rename(path)
        return 0x0000

    def _path(self, sop_instance_uid: str) -> Path:
        return self.folder / f"{folder_name(sop_instance_uid)}.dcm"

    # Storage Commitment Push Model, PS3.4 annex J

    def _commit(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if event.action_type != _REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        request = event.action_information
        if "TransactionUID" not in request or "ReferencedSOPSequence" not in request:
            return _INVALID_ARGUMENT, None
        association = event.assoc
        answered = self._answers[association] = threading.Event()
        threading.Thread(
            target=self._report, args=(association, answered, self._judge(request)), name="commitment", daemon=True
        ).start()
        return 0x0000, None

    def _judge(self, request: Dataset) -> Dataset:
        """The report: what is on disk as a file with that SOP class, and what is not."""
        held, failed = [], []
        for wanted in request.ReferencedSOPSequence:
            item = Dataset()
            item.ReferencedSOPClassUID = wanted.ReferencedSOPClassUID
            item.ReferencedSOPInstanceUID = wanted.ReferencedSOPInstanceUID
            reason = self._missing(wanted.ReferencedSOPClassUID, wanted.ReferencedSOPInstanceUID)
            if reason is None:
                held.append(item)
            else:
                item.FailureReason = reason
                failed.append(item)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if held:
            report.ReferencedSOPSequence = Sequence(held)
        if failed:
            report.FailedSOPSequence = Sequence(failed)
        return report

    def _missing(self, sop_class_uid: str, sop_instance_uid: str) -> int | None:
        try:
            meta = read_file_meta_info(self._path(sop_instance_uid))
        except FileNotFoundError:
            return _NO_SUCH_OBJECT
        return None if meta.MediaStorageSOPClassUID == sop_class_uid else _CLASS_INSTANCE_CONFLICT

    def _pdu_sent(self, event: evt.Event) -> None:
        # DIMSE is synchronous here: the first data PDU sent after an N-ACTION holds its answer.
        answered = self._answers.get(event.assoc)
        if answered is not None and isinstance(event.pdu, P_DATA_TF):
            answered.set()

    def _report(self, association: Association, answered: threading.Event, report: Dataset) -> None:
        answered.wait(_ANSWER_SENT_S)
        self._answers.pop(association, None)
        requester = association.requestor.ae_title.strip()
        address = self._report_to.get(requester)
        try:
            if address is None:
                self._send_report(association, report)
            else:
                self._send_on_new_association(requester, address, report)
        except (RuntimeError, ValueError, OSError) as error:
            LOGGER.warning("cannot report commitment %s to %s: %s", report.TransactionUID, requester, error)

    def _send_on_new_association(self, requester: str, address: tuple[str, int], report: Dataset) -> None:
        host, port = address
        # The association's requestor is by default an SCU: we ask for the SCP's role (PS3.7 D.3.3.4).
        role: SCP_SCU_RoleSelectionNegotiation = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        context = build_context(STORAGE_COMMITMENT)
        association = RequestorEntity(self.ae_title).associate(host, port, [context], requester, ext_neg=[role])
        if not association.is_established:
            raise OSError(f"no association with {host}:{port}")
        try:
            self._send_report(association, report)
        finally:
            association.release()

    @staticmethod
    def _send_report(association: Association, report: Dataset) -> None:
        event_type = _SOME_FAILED if "FailedSOPSequence" in report else _ALL_COMMITTED
        status, _ = association.send_n_event_report(report, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        if "Status" not in status or status.Status != 0x0000:
            LOGGER.warning("the requester did not accept commitment report %s", report.TransactionUID)
