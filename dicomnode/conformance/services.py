"""The services of the node's application entities, with the presentation contexts that the code itself offers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.config import SYNTAXES
from dicomnode.network import association, commitment, contexts, find, move, mpps, ups
from dicomnode.network.statuses import OwnStatus, PeerStatus
from dicomnode.reception import c_store, commitment_scp, query_model, query_retrieve_scp

Role = Literal["SCU", "SCP"]
RECEIVER, SENDER, ORDERS, PRIORS, STEPS = "RECEIVER", "SENDER", "ORDERS", "PRIORS", "STEPS"
#: What each entity does, and what makes it begin.
ENTITIES: Final = {
    RECEIVER: "Listens on the configured ports. It verifies, stores what comes, answers queries and retrievals of "
    "callers that may ask, and commits to what it durably holds. It never modifies what it has received.",
    SENDER: "Stores results, originals and rejection notes at the configured destinations, and asks them for storage "
    "commitment; sends results to systems without DICOM. It begins when a result is ready or a routing rule forwards "
    "a study.",
    ORDERS: "Asks the modality worklist for the day's orders, at intervals and for each received study.",
    PRIORS: "Looks for prior scans of a patient, and for the studies of a cohort's list, in a PACS and retrieves them; "
    "also counts a study's images there.",
    STEPS: "Performs tasks of a UPS worklist and reports analyses as performed procedure steps.",
}
_UNCOMPRESSED: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@dataclass(frozen=True)
class Service:
    """One service of one entity in one role.

    Attributes:
        name: as the standard calls it, with its part.
        tables: of the configuration, that switch it on; empty: always on.
        offered: presentation contexts, proposed (SCU) or accepted (SCP).
        peer_statuses: as SCU, what answers are taken as.
        own_statuses: as SCP, what the node answers.
        remarks: what else there is to say.
    """

    entity: str
    name: str
    role: Role
    tables: str
    offered: tuple[PresentationContext, ...] = field(repr=False)
    peer_statuses: tuple[PeerStatus, ...] = ()
    own_statuses: tuple[OwnStatus, ...] = ()
    remarks: tuple[str, ...] = ()


def accepted(*, queries: bool) -> list[PresentationContext]:
    """Return what the receiver accepts of everything that the standard has, as its negotiation decides.

    Args:
        queries: of a caller that may query and retrieve.
    """
    asked = [contexts.VERIFICATION, *contexts.storage_classes()]
    offered = contexts.negotiable(asked)
    if queries:
        offered = query_retrieve_scp.offered(offered)
    return [*offered, commitment.context()]


def _of(offered: Sequence[PresentationContext], wanted: Sequence[str]) -> tuple[PresentationContext, ...]:
    return tuple(one for one in offered if one.abstract_syntax in wanted)


def _contexts(*classes: str) -> tuple[PresentationContext, ...]:
    return tuple(build_context(one, [*_UNCOMPRESSED]) for one in classes)


def services(sent: Sequence[tuple[UID, UID]]) -> list[Service]:
    """Return all services. `sent`: SOP class and transfer syntax of each object that the node makes."""
    received = accepted(queries=True)
    queries = [str(one) for roots in (query_model.PATIENT_ROOT, query_model.STUDY_ROOT) for one in roots]
    storage = [str(one) for one in contexts.storage_classes()]
    return [
        Service(RECEIVER, "Verification (PS3.4 annex A)", "SCP", "", _of(received, [contexts.VERIFICATION])),
        Service(
            RECEIVER, "Storage (PS3.4 annex B)", "SCP", "", _of(received, storage), own_statuses=c_store.ANSWERS,
            remarks=(
                "Level 2 (Full): objects are kept byte for byte, private attributes included.",
                "Success is answered only when the object is durable on disk and recorded in the catalogue.",
                "SOP classes outside the standard are accepted where `node.private_storage` names them, in the "
                "syntaxes of the images.",
                "An acceptor's choice among several syntaxes of one context follows the order of the list.",
            ),
        ),
        Service(
            RECEIVER, "Query/Retrieve (PS3.4 annex C)", "SCP", "`node.callers` with `query = true`",
            _of(received, queries), own_statuses=query_retrieve_scp.ANSWERS,
            remarks=(
                "Other callers are not offered these contexts.",
                "C-MOVE sends to configured addresses alone: destinations, and callers with `move_to`.",
                "C-GET brings objects on the association of the request, in the storage contexts for which the "
                "requester has taken the role of an SCP.",
                "No relational queries, no extended negotiation, no fuzzy matching; a date range, a list of UIDs and "
                "wild cards match (PS3.4 C.2.2.2).",
            ),
        ),
        Service(
            RECEIVER, "Storage Commitment Push Model (PS3.4 annex J)", "SCP", "",
            _of(received, [contexts.STORAGE_COMMITMENT]), own_statuses=commitment_scp.ANSWERS,
            remarks=(
                "The report goes on an association of its own to callers with `report_to`, under the role of an SCP, "
                "and is tried again also after a restart; to others it goes on the association of the request.",
                f"At most {commitment.MOST_OBJECTS} objects in one transaction.",
            ),
        ),
        Service(
            SENDER, "Storage (PS3.4 annex B)", "SCU", "`destination` of kind `dicom`, `route`",
            _sent(sent), association.STATUSES,
            remarks=(
                "One transfer syntax in each context. Results are written as Explicit VR Little Endian and go as "
                "Implicit VR Little Endian where the peer takes no other or `transfer_syntax` prefers it. Deflated "
                'Explicit VR Little Endian is proposed to destinations with `transfer_syntax = "deflated-le"`, and '
                "used where they accept it.",
                'Label map segmentations go to destinations with `segmentation = "labelmap"`, in the place of the '
                "binary one, and compressed as they were made: they are converted to no other syntax.",
                "Received objects are forwarded in the SOP class and transfer syntax in which they came; an "
                "uncompressed one may be converted as results are, no other is.",
                "What fails in passing is tried again with growing pauses for `retry_for_s`; what is refused "
                "permanently waits for a person.",
            ),
        ),
        Service(
            SENDER, "Storage Commitment Push Model (PS3.4 annex J)", "SCU", "`destination` with `commitment = true`",
            (commitment.proposal(),), commitment.STATUSES, commitment.ANSWERS,
            remarks=("The report may come on the association of the request, or on one that the peer opens.",),
        ),
        Service(
            SENDER, "Verification (PS3.4 annex A)", "SCU",
            "every peer, by `dicomnode check`, `dicomnode echo` and `alerts.ask_peers`",
            _contexts(contexts.VERIFICATION),
        ),
        Service(
            ORDERS, "Modality Worklist (PS3.4 annex K)", "SCU", "`worklist`", _contexts(find.MODALITY_WORKLIST),
            find.STATUSES,
            remarks=(
                "A query is cancelled after `worklist.most` answers.",
                "With `worklist.late_orders = true` a study whose order appears after its results is reported again.",
            ),
        ),
        Service(
            PRIORS, "Query/Retrieve, study root: find (PS3.4 annex C)", "SCU", "`priors`, `settle.count_at`",
            _contexts(find.STUDY_ROOT_FIND), find.STATUSES,
        ),
        Service(
            PRIORS, "Query/Retrieve, study root: move and get (PS3.4 annex C)", "SCU", "`priors`",
            _contexts(find.STUDY_ROOT_MOVE, find.STUDY_ROOT_GET), move.STATUSES,
            remarks=(
                "`priors.retrieve` says which. With C-GET the node is SCP of the storage classes of a chest CT study, "
                "by role selection (PS3.7 D.3.3.4).",
            ),
        ),
        Service(
            STEPS, "Unified Procedure Step: Pull, Push (PS3.4 annex CC)", "SCU", "`ups`",
            tuple(ups.contexts(may_create=True)), ups.STATUSES,
            remarks=(
                "A performer: C-FIND for scheduled tasks, N-ACTION to claim and to end them, N-SET for progress and "
                "results. Push (N-CREATE) only with `ups.create = true`. No Watch, no Event.",
                f"A claim that is answered with 0x{ups.ALREADY_IN_PROGRESS:04X} is tried as an N-SET under the same "
                f"Transaction UID; an N-CREATE that is answered with 0x{ups.DUPLICATE_UID:04X} counts as done.",
            ),
        ),
        Service(
            STEPS, "Modality Performed Procedure Step (PS3.4 annex F)", "SCU", "`mpps`", tuple(mpps.contexts()),
            mpps.STATUSES,
            remarks=(
                f"An N-SET that is answered with Error ID 0x{mpps.ENDED_ALREADY:04X}, and an N-CREATE that is answered "
                f"with 0x{ups.DUPLICATE_UID:04X}, count as done.",
            ),
        ),
    ]  # fmt: skip


def _sent(sent: Sequence[tuple[UID, UID]]) -> tuple[PresentationContext, ...]:
    """Return what the sender proposes of these to one destination or another."""
    proposed: dict[UID, dict[UID, None]] = {}
    for sop_class, own in sent:
        for preferred in SYNTAXES.values():
            proposed.setdefault(sop_class, {}).update(dict.fromkeys(association.syntaxes(own, preferred)))
    return tuple(build_context(sop_class, [*syntaxes]) for sop_class, syntaxes in proposed.items())
