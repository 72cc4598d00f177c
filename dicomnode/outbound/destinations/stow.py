"""A destination that speaks DICOMweb: STOW-RS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dicomnode.config import StowDestinationTable
from dicomnode.errors import PeerRejectedError
from dicomnode.network import stow
from dicomnode.network.association import Sent


@dataclass(frozen=True)
class StowDestination:
    """A `Destination` over HTTP."""

    server: stow.StowServer

    @classmethod
    def of(cls, table: StowDestinationTable) -> "StowDestination":
        """As it is configured."""
        return cls(table.server(stow.StowServer))

    def __str__(self) -> str:
        return str(self.server)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.server.name

    @property
    def answers(self) -> str:
        """The service's root."""
        return f"at {self.server.url}"

    def echo(self) -> float:
        """Return a query for nothing. See `stow.echo`."""
        return stow.echo(self.server)

    def send(self, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
        """STOW-RS. See `stow.send`."""
        return stow.send(self.server, paths, on_result)

    def request_commitment(self, _transaction_uid: str, _objects: Sequence[tuple[str, str]]) -> NoReturn:
        """DICOMweb has no such request."""
        raise PeerRejectedError(f"{self} does not support storage commitment: set commitment = false")
