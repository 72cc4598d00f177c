"""C-MOVE and C-GET as SCU (PS3.4 C.4.2 and C.4.3): images of another node come to this one.

With C-MOVE the peer opens an association to our receiver. With C-GET they come on the association of the request, and
go through the same hands as the receiver's (`reception`): durable before they are answered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context

from dicomnode.errors import PeerError
from dicomnode.network import find
from dicomnode.network.association import Peer, associated
from dicomnode.network.statuses import PeerStatus, every_other, taken

#: A peer may read from tape, and many say nothing until all is done.
_SILENCE_S = 1800.0
#: Of a C-MOVE or C-GET. Images that the peer could not send are counted, and the retrieval goes on without them.
STATUSES: tuple[PeerStatus, ...] = (
    PeerStatus(0xFF00, "sub-operations continue", "PS3.4 table C.4-2", "pending"),
    PeerStatus(0x0000, "all sub-operations done", "PS3.4 table C.4-2", "success"),
    PeerStatus(0xB000, "some sub-operations failed", "PS3.4 table C.4-2", "warning"),
    *find.REFUSALS,
    every_other("passing"),
)


@dataclass(frozen=True)
class Retrieved:
    """How many images the peer says it has sent, and how many it could not send."""

    completed: int
    failed: int


def series(study_uid: str, series_uids: Sequence[str]) -> Dataset:
    """Return the identifier of some series of a study; a list of UIDs is allowed (PS3.4 C.4.2.2.1)."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    identifier.SeriesInstanceUID = list(series_uids)
    return identifier


def move(peer: Peer, identifier: Dataset, to: str) -> Retrieved:
    """C-MOVE to the AE title `to`, which the peer must know with host and port.

    Raises:
        PeerError: no connection, silence, a failure in passing.
        PeerRejectedError: refused for good: the destination is not known there, or the service is not offered.
    """
    proposed = [build_context(find.STUDY_ROOT_MOVE, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    with associated(patient(peer), proposed) as association:
        return follow(peer, "C-MOVE", association.send_c_move(identifier, to, find.STUDY_ROOT_MOVE))


def patient(peer: Peer) -> Peer:
    """Return the peer with time enough for a retrieval, in which it may be silent for long."""
    return replace(peer, dimse_timeout_s=_SILENCE_S, network_timeout_s=_SILENCE_S)


def follow(peer: Peer, what: str, responses: Iterator[tuple[Dataset, Dataset | None]]) -> Retrieved:
    """Follow the responses to the last one."""
    for status, _ in responses:
        code = find.status_of(status, patient(peer))
        how = taken(STATUSES, code)
        if how == "pending":
            continue
        completed = int(status.get("NumberOfCompletedSuboperations") or 0)
        failed = int(status.get("NumberOfFailedSuboperations") or 0)
        if how in ("success", "warning"):
            return Retrieved(completed, failed)
        raise find.failure(peer, what, code)
    raise PeerError(f"{peer} ended the {what} without a response")
