"""C-MOVE and C-GET as SCU (PS3.4 C.4.2 and C.4.3): images of another node come to this one.

With C-MOVE the peer opens an association to our receiver. With C-GET they come on the association of the request, and
go through the same hands as the receiver's (`reception`): durable before they are answered.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from dicomnode.network import contexts, find as query
from dicomnode.network.commands import StoreRequest
from dicomnode.reception.c_store import Reception
from dicomnode.network.association import Destination, associated
from dicomnode.errors import PeerError
from dicomnode.store import process_names as processes
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool

#: A peer may read from tape, and many say nothing until all is done.
_SILENCE_S = 1800.0
_PENDING, _SUCCESS, _SOME_FAILED = 0xFF00, 0x0000, 0xB000


@dataclass(frozen=True)
class Retrieved:
    """How many images the peer says it has sent, and how many it could not send."""

    completed: int
    failed: int


def series(study_uid: str, series_uids: Sequence[str]) -> Dataset:
    """The identifier of some series of a study; a list of UIDs is allowed (PS3.4 C.4.2.2.1)."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    identifier.SeriesInstanceUID = list(series_uids)
    return identifier


def move(peer: Destination, identifier: Dataset, to: str) -> Retrieved:
    """C-MOVE to the AE title `to`, which the peer must know with host and port.

    Raises:
        PeerError: no connection, silence, a failure in passing.
        PeerRejectedError: refused for good: the destination is not known there, or the service is not offered.
    """
    proposed = [build_context(query.STUDY_ROOT_MOVE, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    with associated(_patient(peer), proposed) as association:
        return _end(peer, "C-MOVE", association.send_c_move(identifier, to, query.STUDY_ROOT_MOVE))


def get(peer: Destination, identifier: Dataset, spool: Spool, catalog: Catalog, minimum_free_bytes: int) -> Retrieved:
    """C-GET into the spool.

    Raises:
        PeerError, PeerRejectedError: as `move`.
    """
    storage = [one for one in contexts.accepted() if one.abstract_syntax != contexts.VERIFICATION]
    proposed = [build_context(query.STUDY_ROOT_GET, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]), *storage]
    roles = [build_role(UID(str(one.abstract_syntax)), scp_role=True) for one in storage]
    row = catalog.begin_association(processes.current(), peer.ae_title, peer.calling_ae, peer.host, time.time())

    def store(event: evt.Event) -> int:
        def has_space() -> bool:
            return spool.free_bytes() >= minimum_free_bytes

        request, context = cast(C_STORE, event.request), event.context
        assert context.context_id is not None
        named = StoreRequest(
            context.context_id,
            int(request.MessageID or 0),
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
        )
        coming = Reception(
            named,
            str(context.abstract_syntax),
            UID(context.transfer_syntax),
            spool,
            catalog,
            has_space=has_space,
            association_id=lambda: row,
        )
        assert request.DataSet is not None
        coming.write(request.DataSet.getbuffer())
        return coming.finish().status

    is_released = False
    try:
        with associated(_patient(peer), proposed, [(evt.EVT_C_STORE, store)], roles) as association:
            retrieved = _end(peer, "C-GET", association.send_c_get(identifier, query.STUDY_ROOT_GET))
        is_released = True
    finally:
        catalog.end_association(row, "released" if is_released else "aborted", time.time())
    return retrieved


def _patient(peer: Destination) -> Destination:
    return replace(peer, dimse_timeout_s=_SILENCE_S, network_timeout_s=_SILENCE_S)


def _end(peer: Destination, what: str, responses: Iterator[tuple[Dataset, Dataset | None]]) -> Retrieved:
    """Follow the responses to the last one."""
    for status, _ in responses:
        code = query.status_of(status, _patient(peer))
        if code == _PENDING:
            continue
        completed = int(status.get("NumberOfCompletedSuboperations") or 0)
        failed = int(status.get("NumberOfFailedSuboperations") or 0)
        if code in (_SUCCESS, _SOME_FAILED):
            return Retrieved(completed, failed)
        raise query.failure(peer, what, code)
    raise PeerError(f"{peer} ended the {what} without an answer")
