"""A destination that speaks HL7 version 2: one ORU^R01 for each result, over MLLP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

from dicomnode.config import Hl7DestinationTable, PartName
from dicomnode.errors import PeerRejectedError
from dicomnode.network import mllp
from dicomnode.network.association import Sent
from dicomnode.outbound.destinations.reports import send_each
from dicomnode.report.outward import hl7
from dicomnode.report.outward.message import ReportMessage


@dataclass(frozen=True)
class Hl7Destination:
    """A `Destination` over MLLP that takes reports, not objects."""

    server: mllp.MllpServer
    parts: tuple[PartName, ...]
    addressing: hl7.Addressing

    answers: ClassVar[str] = "a connection"

    @classmethod
    def of(cls, table: Hl7DestinationTable) -> "Hl7Destination":
        """As it is configured."""
        addressing = hl7.Addressing(
            table.sending_application,
            table.sending_facility,
            table.receiving_application,
            table.receiving_facility,
            table.processing_id,
            table.assigning_authority,
        )
        server = mllp.MllpServer(table.name, table.host, table.port, table.security, table.timeout_s)
        return cls(server, table.objects, addressing)

    def __str__(self) -> str:
        return str(self.server)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.server.name

    def echo(self) -> float:
        """Connect. See `mllp.echo`."""
        return mllp.echo(self.server)

    def send(self, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
        """Send the results whose measurements, or refusals, these files are.

        Raises:
            PeerError: a failure in passing.
            PeerRejectedError: a refusal for good, or no result.
        """

        def exchange(message: ReportMessage) -> None:
            content, number = hl7.encode(message, self.addressing)
            mllp.exchange(self.server, content, number)

        return send_each(self, paths, self.parts, exchange, on_result)

    def request_commitment(self, _transaction_uid: str, _objects: Sequence[tuple[str, str]]) -> NoReturn:
        """HL7 has no such request."""
        raise PeerRejectedError(f"{self} does not support storage commitment: set commitment = false")
