"""C-GET as SCU (PS3.4 C.4.3): what comes is received as everything else (`c_store`)."""

import time
from typing import cast

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from dicomnode.network import contexts, find
from dicomnode.network.association import Peer, associated
from dicomnode.network.commands import StoreRequest
from dicomnode.network.move import Retrieved, follow, patient
from dicomnode.reception.c_store import Reception
from dicomnode.reception.quarantine import Quarantine
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool


def get(
    peer: Peer,
    identifier: Dataset,
    spool: Spool,
    catalog: Catalog,
    *,
    minimum_free_bytes: int,
    quarantine_bytes: int,
    largest: int,
) -> Retrieved:
    """C-GET into the spool; the sizes are as in `receiver.ReceiverSettings`.

    Raises:
        PeerError, PeerRejectedError: as `move`.
    """
    storage = [one for one in contexts.accepted() if one.abstract_syntax != contexts.VERIFICATION]
    proposed = [build_context(find.STUDY_ROOT_GET, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]), *storage]
    roles = [build_role(UID(str(one.abstract_syntax)), scp_role=True) for one in storage]
    quarantine = Quarantine(spool, quarantine_bytes)
    row = catalog.begin_association(process_names.current(), peer.ae_title, peer.calling_ae, peer.host, time.time())

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
            quarantine=quarantine,
            largest=largest,
            has_space=has_space,
            association_id=lambda: row,
        )
        assert request.DataSet is not None
        coming.write(request.DataSet.getbuffer())
        return coming.finish().status

    is_released = False
    try:
        with associated(patient(peer), proposed, [(evt.EVT_C_STORE, store)], roles) as association:
            retrieved = follow(peer, "C-GET", association.send_c_get(identifier, find.STUDY_ROOT_GET))
        is_released = True
    finally:
        catalog.end_association(row, "released" if is_released else "aborted", time.time())
    return retrieved
