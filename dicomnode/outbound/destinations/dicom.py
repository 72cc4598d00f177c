"""A destination that speaks DICOM: C-ECHO, C-STORE and storage commitment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dicomnode.config import DicomDestinationTable
from dicomnode.network import association, commitment
from dicomnode.network.association import Peer, Sent


@dataclass(frozen=True)
class DicomDestination:
    """A `Destination` over DIMSE."""

    peer: Peer

    answers: ClassVar[str] = "C-ECHO"

    @classmethod
    def of(cls, table: DicomDestinationTable) -> "DicomDestination":
        """As it is configured."""
        return cls(table.peer)

    def __str__(self) -> str:
        return str(self.peer)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.peer.name

    def echo(self) -> float:
        """C-ECHO. See `association.echo`."""
        return association.echo(self.peer)

    def send(self, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
        """C-STORE. See `association.send`."""
        return association.send(self.peer, paths, on_result)

    def request_commitment(self, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> commitment.Report | None:
        """N-ACTION. See `commitment.request`."""
        return commitment.request(self.peer, transaction_uid, objects)
