"""Where results and images go: what a destination can do, and how each kind of it does that."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from dicomnode.config import DestinationTable
from dicomnode.network.association import Sent
from dicomnode.network.commitment import Report
from dicomnode.outbound.destinations.dicom import DicomDestination

OnResult = Callable[[Path, Sent], None]


class Destination(Protocol):
    """One place that takes objects, whatever it speaks. As text it is its name and its address."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def answers(self) -> str:
        """What `echo` asks it, in words that follow «answered»: `check` prints them."""

    def echo(self) -> float:
        """Ask for a sign of life: the seconds that it took.

        Raises:
            PeerError, PeerRejectedError: there was none.
        """

    def send(self, paths: Sequence[Path], on_result: OnResult | None = None) -> list[Sent]:
        """Store files there, in their order, and return what it has stored.

        The first failure ends it; what was stored before has been told to `on_result`, one call for each object.

        Raises:
            PeerError: a failure in passing.
            PeerRejectedError: a refusal for good, or a path that is no DICOM file.
        """

    def request_commitment(self, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Report | None:
        """Ask for storage commitment to (SOP class UID, SOP Instance UID)s.

        Returns the report if it comes at once; else it comes to the receiver.

        Raises:
            PeerError: a failure in passing.
            PeerRejectedError: it does not offer storage commitment, or refuses the request for good.
        """


def _fhir(table: Any) -> Destination:
    # Here, as those below: httpx and the reports, for what few destinations speak; no receiver starts later for it.
    from dicomnode.outbound.destinations.fhir import FhirDestination  # noqa: PLC0415

    return FhirDestination.of(table)


def _hl7(table: Any) -> Destination:
    from dicomnode.outbound.destinations.hl7 import Hl7Destination  # noqa: PLC0415

    return Hl7Destination.of(table)


def _stow(table: Any) -> Destination:
    from dicomnode.outbound.destinations.stow import StowDestination  # noqa: PLC0415

    return StowDestination.of(table)


#: How a destination of each `kind` of the configuration is reached, made from its table there.
KINDS: Final[dict[str, Callable[[Any], Destination]]] = {
    "dicom": DicomDestination.of,
    "fhir": _fhir,
    "hl7": _hl7,
    "stow": _stow,
}


def reach(table: DestinationTable) -> Destination:
    """How a configured destination is reached."""
    return KINDS[table.kind](table)
