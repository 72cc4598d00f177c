"""The peers of a configuration, and whether they answer: for `dicomnode check` and the console."""

from dataclasses import dataclass

from pydicom.uid import UID

from dicomnode.config import Config
from dicomnode.config.remote import RemoteTable
from dicomnode.errors import DicomnodeError
from dicomnode.network import association
from dicomnode.network.find import STUDY_ROOT_FIND
from dicomnode.outbound.destinations import Destination, reach
from dicomnode.outbound.destinations.dicom import DicomDestination


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at; `text` says what is there, or what is wrong and what to do.

    `warning`: it works, and leaves something open.
    """

    what: str
    ok: bool
    text: str
    warning: bool = False


@dataclass(frozen=True)
class KnownPeer:
    """A peer that the node calls.

    Attributes:
        what: as people know it: "destination pacs", "worklist".
        reached: how it is called.
        services: the SOP classes that it has to accept beside C-ECHO.
    """

    what: str
    reached: Destination
    services: tuple[UID, ...] = ()


def known(config: Config) -> list[KnownPeer]:
    """Return the destinations and the other peers, in the order of the configuration."""
    found = []
    for table in config.destination:
        services = table.services if isinstance(table, RemoteTable) else ()
        if table.name == config.settle.count_at:
            services += (STUDY_ROOT_FIND,)
        found.append(KnownPeer(f"destination {table.name}", reach(table), services))
    found += [KnownPeer(one.peer_name, DicomDestination(one.peer), one.services) for one in config.remotes]
    return found


def ask(peer: KnownPeer) -> CheckResult:
    """Ask a peer for a sign of life, and a DICOM one whether it accepts what it is there for."""
    try:
        seconds = peer.reached.echo()
        lacks = []
        if peer.services and isinstance(peer.reached, DicomDestination):
            lacks = association.refused(peer.reached.peer, peer.services)
    except DicomnodeError as e:
        return CheckResult(peer.what, False, str(e))
    text = f"answered {peer.reached.answers} in {1000 * seconds:.0f} ms"
    names = " and ".join(service.name for service in lacks)
    cure = f"{text}, but does not accept {names}: allow this node's AE title to use it there"
    return CheckResult(peer.what, not lacks, cure if lacks else text)
