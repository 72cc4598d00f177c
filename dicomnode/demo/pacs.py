"""A small archive that stands in for a PACS in the demo and in tests: C-ECHO, C-STORE and Storage Commitment as SCP."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pydicom.filereader import read_file_meta_info
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import EventHandlerType

from dicomnode.errors import SpoolError
from dicomnode.files import name_of, write_whole
from dicomnode.network import commitment, contexts
from dicomnode.network.association import Peer
from dicomnode.network.tls import ReloadingContext
from dicomnode.network.transport import disable_nagle
from dicomnode.reception import commitment_scp


class StoragePeer:
    """Keeps what it receives as `folder/<SOP Instance UID>.dcm`, and commits to what it really holds there.

    `report_to` are the requesters whose commitment reports go on a new association (as Orthanc does); others get the
    report on the association of their request (PS3.4 J.3.3). `security`: everybody has to call by TLS.
    """

    def __init__(
        self,
        ae_title: str,
        host: str,
        port: int,
        folder: Path,
        report_to: Iterable[Peer] = (),
        security: ReloadingContext | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.folder = folder
        self._security = security
        self._entity = ApplicationEntity(ae_title)
        self._entity.maximum_pdu_size = 0
        self._provider = commitment_scp.CommitmentProvider(self._missing, report_to)

    def start(self) -> int:
        """Listen; returns the port.

        Raises:
            SpoolError: the address cannot be bound or the folder not made.
        """
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, lambda event: disable_nagle(event.assoc)),
            (evt.EVT_C_STORE, self._store),
            *self._provider.handlers,
        ]
        offered = [*contexts.accepted(), commitment.context()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            server = self._entity.start_server(
                (self.host, self.port),
                block=False,
                contexts=offered,
                evt_handlers=handlers,
                ssl_context=None if self._security is None else self._security.current(),
            )
        except OSError as error:
            raise SpoolError(
                f"cannot listen on {self.host}:{self.port} or make {self.folder}: {error.strerror}"
            ) from error
        assert server is not None
        self.port = int(server.server_address[1])
        return self.port

    def stop(self) -> None:
        """Close the port; running associations are aborted."""
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        path = self._path(str(cast(C_STORE, event.request).AffectedSOPInstanceUID))
        write_whole(path, event.encoded_dataset(), durable=False)
        return 0x0000

    def _path(self, sop_instance_uid: str) -> Path:
        return self.folder / f"{name_of(sop_instance_uid)}.dcm"

    def _missing(self, sop_class_uid: str, sop_instance_uid: str) -> int | None:
        try:
            meta = read_file_meta_info(self._path(sop_instance_uid))
        except FileNotFoundError:
            return commitment_scp.NO_SUCH_OBJECT
        return None if meta.MediaStorageSOPClassUID == sop_class_uid else commitment_scp.CLASS_INSTANCE_CONFLICT
