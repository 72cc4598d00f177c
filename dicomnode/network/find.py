"""C-FIND as SCU (PS3.4 C.4.1 and K.4.1): a question, and its answers as they came.

The bound on time is one for all: connecting, negotiating and answering together. A peer that is down, slow or endless
costs its caller no more than that. What each status is taken as: `STATUSES`.
"""

import logging
import time
from dataclasses import dataclass, replace
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context

from dicomnode.audit import messages, trail
from dicomnode.audit.messages import AuditPeer
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.association import Peer, associated
from dicomnode.network.statuses import PeerStatus, every_other, taken

log = logging.getLogger(__name__)

MODALITY_WORKLIST = UID("1.2.840.10008.5.1.4.31")
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_ROOT_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_ROOT_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")

#: What cures a refusal, by its status.
_CURES = {
    0xA801: "it does not know {calling} as a move destination: register it there with this node's host and port",
    0xA900: "the query does not match its information model",
    0x0122: "it does not offer this service",
    0x0124: "it does not authorise {calling}: grant the right there",
}
#: What no query or retrieval gets by a second attempt.
REFUSALS: tuple[PeerStatus, ...] = (
    PeerStatus(0xA801, "move destination unknown", "PS3.4 table C.4-2", "permanent"),
    PeerStatus(0xA900, "dataset does not match SOP class", "PS3.4 table C.4-1", "permanent"),
    PeerStatus(0x0122, "SOP class not supported", "PS3.7 annex C", "permanent"),
    PeerStatus(0x0124, "not authorised", "PS3.7 annex C", "permanent"),
)
STATUSES: tuple[PeerStatus, ...] = (
    PeerStatus(0xFF00, "a match", "PS3.4 table C.4-1", "pending", last=0xFF01),
    PeerStatus(0x0000, "the end of the matches", "PS3.4 table C.4-1", "success"),
    PeerStatus(0xFE00, "cancelled by this node after as many matches as it takes", "PS3.4 table C.4-1", "cancelled"),
    *REFUSALS,
    every_other("passing"),
)
_MESSAGE_ID = 1


@dataclass(frozen=True)
class Found:
    """The answers, each as a DICOM file (PS3.10) whose data set is byte for byte what came (`read`).

    `is_complete` is False where there were more than was asked for.
    """

    answers: tuple[bytes, ...]
    is_complete: bool


def find(peer: Peer, model: UID, identifier: Dataset, *, within_s: float, most: int) -> Found:
    """Ask `peer`; after `most` answers the query is cancelled.

    Raises:
        PeerError: no connection, or no end of the answers within `within_s` seconds, or a failure in passing.
        PeerRejectedError: the peer refuses the association or the query for good.
    """
    deadline = time.monotonic() + within_s
    bounded = replace(
        peer,
        connect_timeout_s=within_s / 2,
        acse_timeout_s=within_s / 2,
        dimse_timeout_s=within_s,
        network_timeout_s=within_s,
    )
    with associated(bounded, [build_context(model, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]) as association:
        return _ask(association, bounded, model, identifier, deadline, most)


def _ask(association: Association, peer: Peer, model: UID, identifier: Dataset, deadline: float, most: int) -> Found:
    syntax = UID(association.accepted_contexts[0].transfer_syntax[0])
    association.dimse_timeout = _left(deadline, peer)
    answers: list[bytes] = []
    is_cancelled = False
    asked = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian) or b""
    whom = AuditPeer(peer.ae_title, peer.host)
    trail.note(messages.query, time.time(), whom, str(model), asked, str(syntax), incoming=False)
    try:
        responses = association.send_c_find(identifier, model, msg_id=_MESSAGE_ID)
    except ValueError:
        raise PeerRejectedError(f"the query for {peer} cannot be encoded in its own character set") from None
    for status, answer in responses:
        code = status_of(status, peer)
        how = taken(STATUSES, code)
        if how == "pending":
            if answer is None:
                log.warning("unreadable response from %s", peer)
            elif len(answers) < most:
                answers.append(_as_file(answer, syntax))
            elif not is_cancelled:
                association.send_c_cancel(_MESSAGE_ID, query_model=model)
                is_cancelled = True
            association.dimse_timeout = _left(deadline, peer)
        elif how not in ("success", "cancelled"):
            raise failure(peer, "C-FIND", code)
    return Found(tuple(answers), not is_cancelled)


def read(answer: bytes) -> Dataset:
    """Return an answer as a data set whose elements have not been decoded yet."""
    return dcmread(BytesIO(answer))


def status_of(status: Dataset, peer: Peer) -> int:
    """Return the status of a response.

    Raises:
        PeerError: there is none, because the peer fell silent or aborted.
    """
    if "Status" not in status:
        raise PeerError(f"{peer} did not answer within {peer.dimse_timeout_s:g} s, or aborted: see its log")
    return int(status.Status)


def failure(peer: Peer, what: str, code: int) -> PeerError | PeerRejectedError:
    """Return the error that a final status other than success stands for."""
    message = f"{peer} answered the {what} with status 0x{code:04X}"
    if taken((*REFUSALS, every_other("passing")), code) == "permanent":
        return PeerRejectedError(f"{message}: {_CURES[code].format(calling=peer.calling_ae)}")
    return PeerError(f"{message}: see its log for the reason")


def _left(deadline: float, peer: Peer) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise PeerError(f"{peer} did not complete its response within {peer.dimse_timeout_s:g} s")
    return left


def _as_file(answer: Dataset, syntax: UID) -> bytes:
    # Written in the syntax that it came in, an element that nobody has looked at is written as it was read.
    answer.preamble = b"\0" * 128
    answer.file_meta = FileMetaDataset()
    answer.file_meta.TransferSyntaxUID = syntax
    content = BytesIO()
    dcmwrite(content, answer, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return content.getvalue()
