"""The images of a study, fetched from the PACS of [priors] as `priors.retrieve` says: by C-MOVE or C-GET."""

from collections.abc import Sequence

from dicomnode.config import Config, PriorsTable
from dicomnode.network import move
from dicomnode.reception import c_get
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool


def retrieve(
    config: Config, table: PriorsTable, catalog: Catalog, spool: Spool, study_uid: str, series_uids: Sequence[str]
) -> move.Retrieved:
    """Fetch these series of a study; with C-MOVE they come to the node's receiver.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, or refused.
    """
    identifier = move.series(study_uid, series_uids)
    if table.retrieve == "move":
        return move.move(table.peer, identifier, config.node.ae_title)
    storage = config.storage
    return c_get.get(
        table.peer,
        identifier,
        spool,
        catalog,
        minimum_free_bytes=int(storage.minimum_free_gb * 1e9),
        quarantine_bytes=int(storage.quarantine_gb * 1e9),
        largest=int(storage.largest_object_gb * 1e9),
    )
