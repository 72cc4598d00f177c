"""A destination that speaks FHIR R4: one transaction for each result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dicomnode.config import FhirDestinationTable, PartName
from dicomnode.errors import PeerRejectedError
from dicomnode.network import fhir as client
from dicomnode.network.association import Sent
from dicomnode.outbound.destinations.reports import send_each
from dicomnode.report.outward import fhir
from dicomnode.report.outward.message import ReportMessage


@dataclass(frozen=True)
class FhirDestination:
    """A `Destination` over HTTP that takes reports, not objects."""

    server: client.FhirServer
    parts: tuple[PartName, ...]
    patient_systems: Mapping[str, str]

    @classmethod
    def of(cls, table: FhirDestinationTable) -> "FhirDestination":
        """As it is configured."""
        return cls(table.server(client.FhirServer), table.objects, table.patient_systems)

    def __str__(self) -> str:
        return str(self.server)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.server.name

    @property
    def answers(self) -> str:
        """The server's base."""
        return f"at {self.server.url}"

    def echo(self) -> float:
        """Ask for its capabilities. See `network.fhir.echo`."""
        return client.echo(self.server)

    def send(self, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
        """Store the results whose measurements, or refusals, these files are.

        Raises:
            PeerError: a failure in passing.
            PeerRejectedError: a refusal for good, or no result.
        """

        def submit(message: ReportMessage) -> None:
            transaction, entries = fhir.transaction(message, self.patient_systems)
            client.submit(self.server, transaction, entries)

        return send_each(self, paths, self.parts, submit, on_result)

    def request_commitment(self, _transaction_uid: str, _objects: Sequence[tuple[str, str]]) -> NoReturn:
        """FHIR has no such request."""
        raise PeerRejectedError(f"{self} does not support storage commitment: set commitment = false")
