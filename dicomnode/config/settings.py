"""All tables together."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from dicomnode.config.alerts import AlertsTable
from dicomnode.config.analysis import AnalysisTable, WeightsTable
from dicomnode.config.audit import AuditTable
from dicomnode.config.console import ConsoleTable
from dicomnode.config.destination import Destination
from dicomnode.config.fields import ConfigTable
from dicomnode.config.monitoring import MonitoringTable
from dicomnode.config.node import LoggingTable, NodeTable, SettleTable, StorageTable, WorkerTable
from dicomnode.config.notify import NotifyTable
from dicomnode.config.priors import PriorsTable
from dicomnode.config.registry import RegistryTable, RetrainingTable
from dicomnode.config.remote import RemoteTable, TcpTable
from dicomnode.config.results import ResultsTable
from dicomnode.config.routing import ProfileTable, RouteTable, RoutingTable, check_names
from dicomnode.config.steps import MppsTable, UpsTable
from dicomnode.config.tls import TlsTable
from dicomnode.config.worklist import WorklistTable
from dicomnode.errors import ConfigurationError
from dicomnode.logs.kept import KeptLines
from dicomnode.network.association import Peer
from dicomnode.network.tls import TlsFiles
from dicomnode.routing.rules import DEFAULT_PROFILE, RuleSet

Named = ProfileTable | RouteTable | NotifyTable


class Config(ConfigTable):
    """The whole file. `folder` is where the file lies: relative paths have been resolved against it."""

    tls: TlsTable | None = None
    node: NodeTable = NodeTable()
    storage: StorageTable = StorageTable()
    settle: SettleTable = SettleTable()
    analysis: AnalysisTable = AnalysisTable()
    results: ResultsTable = ResultsTable()
    weights: WeightsTable = WeightsTable()
    destination: tuple[Destination, ...] = Field((), validate_default=True)
    routing: RoutingTable = RoutingTable()
    profile: tuple[ProfileTable, ...] = ()
    route: tuple[RouteTable, ...] = ()
    notify: tuple[NotifyTable, ...] = ()
    worker: WorkerTable = WorkerTable()
    registry: RegistryTable = RegistryTable()
    retraining: RetrainingTable = RetrainingTable()
    logging: LoggingTable = LoggingTable()
    audit: AuditTable = AuditTable()
    alerts: AlertsTable = AlertsTable()
    monitoring: MonitoringTable = MonitoringTable()
    console: ConsoleTable = ConsoleTable()
    worklist: WorklistTable | None = None
    priors: PriorsTable | None = None
    ups: UpsTable | None = None
    mpps: MppsTable | None = None

    @field_validator("destination")
    @classmethod
    def _unique(cls, value: tuple[Destination, ...], info: ValidationInfo) -> tuple[Destination, ...]:
        names = [d.name for d in value]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"two destinations are named {doubled[0]!r}: give each its own name")
        counted = info.data["settle"].count_at if "settle" in info.data else ""
        if counted and counted not in [d.name for d in value if d.peer is not None]:
            raise ValueError(f"settle.count_at = {counted!r} is not the name of a DICOM destination")
        return value

    @field_validator("destination")
    @classmethod
    def _called_as_the_node(cls, value: tuple[Destination, ...], info: ValidationInfo) -> tuple[Destination, ...]:
        # Our AE title is decided here, once, for all who call a peer.
        return tuple(d.called_as(info.data["node"].ae_title) for d in value) if "node" in info.data else value

    @field_validator("worklist", "priors", "ups", "mpps")
    @classmethod
    def _asked_as_the_node(cls, value: RemoteTable | None, info: ValidationInfo) -> RemoteTable | None:
        return value.called_as(info.data["node"].ae_title) if value is not None and "node" in info.data else value

    @field_validator("node")
    @classmethod
    def _can_speak_tls(cls, value: NodeTable, info: ValidationInfo) -> NodeTable:
        if "tls" in info.data and info.data["tls"] is None:
            if value.tls_port is not None:
                raise ValueError(f"tls_port = {value.tls_port} needs certificate, key and ca_file in the table [tls]")
            for caller in value.callers:
                if caller.tls or caller.certificates:
                    raise ValueError(f"caller {caller.ae_title!r} by TLS needs the table [tls]")
        return value

    @field_validator("destination")
    @classmethod
    def _destinations_secured(cls, value: tuple[Destination, ...], info: ValidationInfo) -> tuple[Destination, ...]:
        if "tls" not in info.data:
            return value
        return tuple(d.secured_by(info.data["tls"]) if isinstance(d, TcpTable) else d for d in value)

    @field_validator("worklist", "priors", "ups", "mpps")
    @classmethod
    def _secured(cls, value: RemoteTable | None, info: ValidationInfo) -> RemoteTable | None:
        return value.secured_by(info.data["tls"]) if value is not None and "tls" in info.data else value

    @field_validator("profile", "route", "notify")
    @classmethod
    def _each_named_once(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        names = [one.name for one in value]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"two tables are named {doubled[0]!r}: give each its own name")
        return value

    @field_validator("route")
    @classmethod
    def _names_are_known(cls, value: tuple[RouteTable, ...], info: ValidationInfo) -> tuple[RouteTable, ...]:
        check_names(value, info.data)
        return value

    @property
    def remotes(self) -> tuple[RemoteTable, ...]:
        """The DICOM peers that are no destinations, as far as they are configured."""
        return tuple(t for t in (self.worklist, self.priors, self.ups, self.mpps) if t is not None)

    @property
    def move_to(self) -> tuple[Peer, ...]:
        """Where a C-MOVE that is asked of the node may send to."""
        return (*(d.peer for d in self.destination if d.peer is not None), *self.node.move_to(self.tls_files))

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of [tls]."""
        return self.tls.files if self.tls is not None else None

    @property
    def all_tls_files(self) -> tuple[TlsFiles, ...]:
        """The files of [tls], and those that single peers have in their place."""
        shared = (self.tls_files,) if self.tls_files is not None else ()
        peers: list[TcpTable] = [*self.remotes, *(d for d in self.destination if isinstance(d, TcpTable))]
        served = (self.console.files,) if self.console.enabled and self.console.files is not None else ()
        return tuple(dict.fromkeys([*shared, *(p.security.files for p in peers if p.security is not None), *served]))

    @property
    def catalog_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return _driver(self.storage.database_url) or f"sqlite:///{self.storage.state / 'catalog.sqlite'}"

    @property
    def queue_url(self) -> str:
        """SQLAlchemy URL of the workflow engine's tables (DBOS keeps them in a schema of its own)."""
        return self.storage.database_url or f"sqlite:///{self.storage.state / 'queue.sqlite'}"

    @property
    def counters_folder(self) -> Path | None:
        """Where the processes of this machine count for monitoring; None where nobody asks."""
        return self.storage.state / "metrics" if self.monitoring.port else None

    @property
    def kept_lines(self) -> KeptLines | None:
        """Where the log lines about studies are kept; None where they are not."""
        most = int(self.logging.keep_mb * 1e6)
        return KeptLines(self.storage.state, most) if most else None

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """The folders that hold patients' data, or the key to them: nobody else may look into them."""
        storage = self.storage
        return storage.spool, storage.results, storage.state, self.registry.folder, self.retraining.folder

    @property
    def rules(self) -> RuleSet:
        """The rules of routing."""
        return RuleSet(tuple(r.rule for r in self.route), self.routing.mode, self.routing.otherwise)

    @property
    def routes_studies(self) -> bool:
        """Whether there is anything to decide: without rules every study is analysed."""
        return bool(self.route) or self.routing.otherwise != "analyse"

    @property
    def profile_names(self) -> list[str]:
        """The names of the profiles that a study can be analysed with, [analysis] itself first."""
        return [DEFAULT_PROFILE, *(one.name for one in self.profile)]

    def analysis_of(self, profile: str) -> AnalysisTable:
        """Return the table [analysis] as the named profile varies it. Raises ConfigurationError."""
        if profile == DEFAULT_PROFILE:
            return self.analysis
        for one in self.profile:
            if one.name == profile:
                return one.applied_to(self.analysis)
        raise ConfigurationError(f"profile {profile!r} is no longer configured: restore it, or retry the study")

    def on_device(self, device: str) -> Self:
        """Return the same with another compute device, for one worker. Raises ConfigurationError."""
        try:
            analysis = AnalysisTable.model_validate({**self.analysis.model_dump(), "device": device})
        except ValidationError:
            raise ConfigurationError(f"device {device!r}: give 'cpu', 'cuda' or 'cuda:0'") from None
        return self.model_copy(update={"analysis": analysis})

    def resolved(self, folder: Path) -> Self:
        """Return the same with every path made absolute against `folder`."""
        storage = self.storage.model_copy(
            update={k: folder / getattr(self.storage, k) for k in ("spool", "results", "state")}
        )
        files = {k: getattr(self.analysis, k) for k in ("lungmask_weights", "lungmask_lobe_weights")}
        analysis = self.analysis.model_copy(
            update={
                "weights": folder / self.analysis.weights,
                "trusted_keys": tuple(folder / key for key in self.analysis.trusted_keys),
                **{k: None if file is None else folder / file for k, file in files.items()},
            }
        )
        lists = {
            name: tuple(one.resolved(folder) for one in getattr(self, name))
            for name in ("destination", "profile", "notify")
        }
        registry = self.registry.model_copy(update={"folder": folder / self.registry.folder})
        retraining = self.retraining.model_copy(
            update={k: folder / getattr(self.retraining, k) for k in ("settings", "folder")}
        )
        tables: dict[str, ConfigTable] = {
            "storage": storage,
            "analysis": analysis,
            "registry": registry,
            "retraining": retraining,
            "audit": self.audit.resolved(folder),
            "console": self.console.resolved(folder),
        }
        asked = {name: getattr(self, name) for name in ("worklist", "priors", "ups", "mpps")}
        tables |= {name: table.files_resolved(folder) for name, table in asked.items() if table is not None}
        if self.tls is not None:
            tables["tls"] = self.tls.resolved(folder)
        return self.model_copy(update={**tables, **lists})


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
