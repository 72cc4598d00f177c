"""All tables together."""

from pathlib import Path
from typing import Self

from pydantic import ValidationError, field_validator

from dicomnode.config.analysis import AnalysisTable, WeightsTable
from dicomnode.config.destination import Destination
from dicomnode.config.fields import Table
from dicomnode.config.node import Logging, Node, Settle, Storage, Worker
from dicomnode.config.priors import Priors
from dicomnode.config.worklist import Worklist
from dicomnode.errors import ConfigurationError


class Config(Table):
    """The whole file. `folder` is where the file lies: relative paths have been resolved against it."""

    node: Node = Node()
    storage: Storage = Storage()
    settle: Settle = Settle()
    analysis: AnalysisTable = AnalysisTable()
    weights: WeightsTable = WeightsTable()
    destination: tuple[Destination, ...] = ()
    worker: Worker = Worker()
    logging: Logging = Logging()
    worklist: Worklist | None = None
    priors: Priors | None = None

    @field_validator("destination")
    @classmethod
    def _unique(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [d.name for d in value]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"two destinations are named {doubled[0]!r}: give each a name of its own")
        return value

    @property
    def catalog_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return _driver(self.storage.database_url) or f"sqlite:///{self.storage.state / 'catalog.sqlite'}"

    @property
    def queue_url(self) -> str:
        """SQLAlchemy URL of the workflow engine's tables (DBOS keeps them in a schema of its own)."""
        return self.storage.database_url or f"sqlite:///{self.storage.state / 'queue.sqlite'}"

    def on_device(self, device: str) -> Self:
        """The same with another compute device, for one worker. Raises ConfigurationError."""
        try:
            analysis = AnalysisTable.model_validate({**self.analysis.model_dump(), "device": device})
        except ValidationError:
            raise ConfigurationError(f"device {device!r}: give 'cpu', 'cuda' or 'cuda:0'") from None
        return self.model_copy(update={"analysis": analysis})

    def resolved(self, folder: Path) -> Self:
        """The same with every path made absolute against `folder`."""
        storage = self.storage.model_copy(
            update={k: folder / getattr(self.storage, k) for k in ("spool", "results", "state")}
        )
        weights = self.analysis.lungmask_weights
        analysis = self.analysis.model_copy(
            update={
                "weights": folder / self.analysis.weights,
                "lungmask_weights": None if weights is None else folder / weights,
            }
        )
        destinations = tuple(d.resolved(folder) for d in self.destination)
        return self.model_copy(update={"storage": storage, "analysis": analysis, "destination": destinations})


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
