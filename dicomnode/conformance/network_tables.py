"""Tables of the network for the statement: contexts by service, syntaxes, statuses, policies."""

from collections.abc import Iterable, Sequence
from typing import Final

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from dicomnode.conformance.document import DocumentTable
from dicomnode.conformance.services import Service
from dicomnode.network import contexts
from dicomnode.network.association import FAILURES
from dicomnode.network.association_request import HANDLING
from dicomnode.network.statuses import OwnStatus, PeerStatus, Taken
from dicomnode.reception.receiver import REJECTIONS

#: What follows when a peer's answer is taken as this.
_BEHAVIOUR: Final[dict[Taken, str]] = {
    "success": "done",
    "warning": "done; the warning is logged and recorded",
    "pending": "more follows",
    "cancelled": "ended; what has come is used",
    "passing": "failed; it will be retried",
    "permanent": "failed permanently; a person has to act",
    "not ours": "the task is dropped",
}
#: What the data dictionary does not have yet.
_NAMES: Final = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}
_ROLES: Final = {(True, True): "SCU and SCP", (None, None): "", (False, True): "SCP", (True, False): "SCU"}


def syntax_sets() -> dict[str, tuple[UID, ...]]:
    """Return the lists of transfer syntaxes that the storage classes are accepted in, each under a name."""
    lists = dict.fromkeys(tuple(one.transfer_syntax) for one in contexts.negotiable(contexts.storage_classes()))
    ordered = sorted(lists, key=len)
    return {f"Set {chr(ord('A') + number)}": syntaxes for number, syntaxes in enumerate(ordered)}


def syntaxes_table() -> DocumentTable:
    """Return the sets of transfer syntaxes, in the acceptor's order of preference."""
    sets = syntax_sets()
    every = dict.fromkeys(syntax for syntaxes in sets.values() for syntax in syntaxes)
    rows = []
    for syntax in every:
        places = [str(one.index(syntax) + 1) if syntax in one else "" for one in sets.values()]
        rows.append((name_of(syntax), str(syntax), *places))
    return DocumentTable("transfer_syntaxes", ("Transfer syntax", "UID", *sets), tuple(rows))


def storage_table() -> DocumentTable:
    """Return every storage class of the standard with the set that it is accepted in."""
    names = {syntaxes: name for name, syntaxes in syntax_sets().items()}
    rows = []
    for one in contexts.negotiable(contexts.storage_classes()):
        sop_class = UID(str(one.abstract_syntax))
        retired = " (retired)" if sop_class.is_retired else ""
        rows.append(
            (f"{name_of(sop_class) or 'without a name'}{retired}", str(sop_class), names[tuple(one.transfer_syntax)])
        )
    return DocumentTable("storage_scp", ("SOP class", "UID", "Transfer syntaxes"), tuple(rows))


def contexts_table(name: str, offered: Iterable[PresentationContext]) -> DocumentTable:
    """Return presentation contexts with their transfer syntaxes."""
    rows = []
    for one in offered:
        sop_class = UID(str(one.abstract_syntax))
        syntaxes = ", ".join(f"{name_of(syntax)} ({syntax})" for syntax in one.transfer_syntax)
        rows.append((name_of(sop_class), str(sop_class), syntaxes, _ROLES[one.scu_role, one.scp_role]))
    return DocumentTable(name, ("SOP class", "UID", "Transfer syntaxes", "Role selection"), tuple(rows))


def peer_statuses_table(name: str, statuses: Sequence[PeerStatus]) -> DocumentTable:
    """Return what a peer's answers are taken as."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for one in statuses:
        alike.setdefault((one.meaning, one.source, _BEHAVIOUR[one.taken_as]), []).append(_status(one))
    rows = ((", ".join(values), *meaning) for meaning, values in alike.items())
    return DocumentTable(name, ("Status", "Meaning", "Source", "Behaviour"), tuple(rows))


def own_statuses_table(name: str, statuses: Sequence[OwnStatus]) -> DocumentTable:
    """Return what the node answers and when."""
    rows = ((f"0x{one.status:04X}", one.when, one.source, one.consequence) for one in statuses)
    return DocumentTable(name, ("Status", "When", "Source", "Object"), tuple(rows))


def failures_table() -> DocumentTable:
    """Return what failures without a status are taken as."""
    rows = ((what, source, _BEHAVIOUR[how]) for what, source, how in FAILURES)
    return DocumentTable("failures", ("Failure", "Source", "Behaviour"), tuple(rows))


def rejections_table() -> DocumentTable:
    """Return why the receiver rejects an association."""
    results, sources = {1: "rejected-permanent", 2: "rejected-transient"}, {1: "user", 2: "ACSE", 3: "presentation"}
    rows = (
        (f"{results[result]} ({result})", f"{sources[source]} ({source})", str(reason), why)
        for (result, source, reason), why in sorted(REJECTIONS.items())
    )
    return DocumentTable("rejections", ("Result", "Source", "Reason", "When"), tuple(rows))


def requests_table() -> DocumentTable:
    """Return how unusual association requests are handled."""
    return DocumentTable("association_requests", ("What comes", "PS3.8", "Handling"), HANDLING)


def services_table(services: Sequence[Service]) -> DocumentTable:
    """Return the services, the entity and role, and what of the configuration switches them on."""
    rows = ((one.name, one.entity, one.role, one.tables or "always") for one in services)
    return DocumentTable("services", ("Service", "AE", "Role", "Switched on by"), tuple(rows))


def _status(one: PeerStatus) -> str:
    if not one.source:
        return "other"
    return f"0x{one.status:04X}" + ("" if one.last is None else f" to 0x{one.last:04X}")


def name_of(value: str) -> str:
    """Return the name of a UID; the UID itself where it has none."""
    return _NAMES.get(value) or UID(value).name
