"""Whether the peers of a configuration answer: for `dicomnode check` and the console."""

from dataclasses import dataclass

from dicomnode.errors import DicomnodeError
from dicomnode.network import association
from dicomnode.outbound.destinations.dicom import DicomDestination
from dicomnode.outbound.peers import KnownPeer


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at; `text` says what is there, or what is wrong and what to do.

    `warning`: it works, and leaves something open.
    """

    what: str
    ok: bool
    text: str
    warning: bool = False


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
