"""The node itself: who may send, where files lie, when a study is complete, who analyses, what is logged."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from dicomnode.config.fields import IDENTITIES, AeTitle, ConfigTable, Identities, Network, Port
from dicomnode.limits import GB, SHARE, Limits, machine_memory_bytes
from dicomnode.logs import is_uid
from dicomnode.network.association import Peer
from dicomnode.network.early import DEFAULT_HOST, DEFAULT_PORT
from dicomnode.network.identities import identity
from dicomnode.network.tls import Security, TlsFiles

#: A requester waits for its storage commitment report, and asks again; images may take longer to be stored.
_REPORT_S, _MOVE_S = 10.0, 30.0


class CallerTable(ConfigTable):
    """Who may open an association. An AE title proves nothing by itself: name the address too."""

    ae_title: AeTitle = Field("*", description="give the caller's AE title (1 to 16 plain characters), or '*' for any")
    address: Network = Field(
        "0.0.0.0/0", description="give an address or a network, such as '10.1.2.3' or '10.1.0.0/16'"
    )
    certificates: Identities = Field(
        (), description=f"give the certificates that prove this caller, {IDENTITIES}; it then has to call by TLS"
    )
    report_to: str = Field(
        "",
        pattern=r"^$|^.+:\d{1,5}$",
        description="give 'host:port' for storage commitment reports to this caller, or '' for its own association",
    )
    query: bool = Field(
        False, description="give true to let this caller, named by its AE title, query and retrieve what the node holds"
    )
    move_to: str = Field(
        "",
        pattern=r"^$|^.+:\d{1,5}$",
        description="give the 'host:port' at which this caller receives C-MOVE transfers",
    )
    max_associations: int = Field(
        0, ge=0, le=900, description="give this caller's associations at a time, or 0 for as many as any address"
    )
    max_associations_per_minute: int = Field(
        0, ge=0, description="give this caller's new associations a minute, or 0 for as many as any address"
    )
    tls: bool = Field(False, description="give true if this caller's report_to and move_to speak TLS")
    on_conflict: Literal["hold", "newest"] = Field(
        "hold",
        description="give 'hold' to refuse other content under a known SOP Instance UID until a person decides, or "
        "'newest' to let this caller replace it",
    )

    @field_validator("query")
    @classmethod
    def _named(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("ae_title") == "*":
            raise ValueError("query = true for any AE title would let anyone retrieve images")
        return value

    def peer(
        self, address: str, calling_ae: str, timeout_s: float, network_timeout_s: float, files: TlsFiles | None
    ) -> Peer:
        """Return the caller as one that we call.

        Args:
            address: "host:port".
            calling_ae: our AE title.
            timeout_s: for the association and each answer.
            network_timeout_s: for any byte.
            files: of TLS. What proves the caller proves it here too; one without `certificates` has to prove its host.
        """
        host, _, port = address.rpartition(":")
        return Peer(
            name=f"caller {self.ae_title}",
            ae_title=self.ae_title,
            host=host.strip("[]"),
            port=int(port),
            calling_ae=calling_ae,
            acse_timeout_s=timeout_s,
            dimse_timeout_s=timeout_s,
            network_timeout_s=network_timeout_s,
            security=Security(files, tuple(map(identity, self.certificates))) if self.tls and files else None,
        )


class NodeTable(ConfigTable):
    """The DICOM listener."""

    ae_title: AeTitle = Field("DICOMNODE", description="give this node's AE title: 1 to 16 plain characters")
    host: str = Field(DEFAULT_HOST, description="give the address to listen on; '0.0.0.0' listens on every interface")
    port: Port = Field(DEFAULT_PORT, description="give a free TCP port from 1 to 65535 (below 1024 needs privileges)")
    plain: bool = Field(True, description="give false to close `port`, so that everybody has to call by TLS")
    tls_port: Port | None = Field(
        None,
        validate_default=True,
        description="give the port for DICOM TLS, such as 2762, or omit the key; it needs the table [tls]",
    )
    check_called_ae: bool = Field(True, description="give true to accept only calls to our AE title, else false")
    callers: tuple[CallerTable, ...] = Field(
        (), description="give [[node.callers]] tables; without any, anyone may send"
    )
    max_associations: int = Field(
        50, ge=1, le=900, description="give the number of associations per receiving process, from 1 to 900"
    )
    max_associations_per_address: int = Field(
        0, ge=0, le=900, description="give the number that one address may have, or 0 for four fifths of them"
    )
    max_associations_per_minute: int = Field(
        6000, ge=1, description="give the new associations that one address may open in a minute, at least 1"
    )
    receivers: int = Field(
        1, ge=1, le=16, description="give the number of receiving processes that share the port, 1 to 16"
    )
    private_storage: tuple[str, ...] = Field(
        (), description="give a list of private SOP Class UIDs that are kept and forwarded too, or omit the key"
    )
    max_pdu_bytes: int = Field(
        1 << 20, ge=4096, le=1 << 20, description="give the largest PDU accepted, in bytes: 4096 to 1048576"
    )
    network_timeout_s: float = Field(
        60, gt=0, description="give the seconds of inactivity after which a caller is disconnected"
    )

    @field_validator("private_storage")
    @classmethod
    def _uids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        odd = next((one for one in value if not is_uid(one)), None)
        if odd is not None:
            raise ValueError(f"{odd!r} is not a SOP Class UID: digits and dots, such as '1.3.12.2.1107.5.9.1'")
        return value

    @field_validator("callers")
    @classmethod
    def _proved_or_not(cls, value: tuple[CallerTable, ...], info: ValidationInfo) -> tuple[CallerTable, ...]:
        proved = {c.ae_title for c in value if c.certificates}
        if proved and info.data.get("tls_port", 1) is None:
            raise ValueError(f"{min(proved)!r} can prove its certificates by TLS only: give node.tls_port")
        for caller in value:
            if caller.ae_title in proved and not caller.certificates:
                raise ValueError(
                    f"{caller.ae_title!r} stands with and without certificates, and could be had without: give all "
                    "its tables `certificates`"
                )
        return value

    @field_validator("tls_port")
    @classmethod
    def _another_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and not info.data.get("plain", True):
            raise ValueError("plain = false needs tls_port: otherwise the node listens on no port")
        if value is not None and info.data.get("plain", True) and value == info.data.get("port"):
            raise ValueError("is node.port, which is without TLS")
        return value

    def report_to(self, files: TlsFiles | None) -> tuple[Peer, ...]:
        """Return the callers whose storage commitment reports go on an association of our own."""
        return tuple(
            c.peer(c.report_to, self.ae_title, _REPORT_S, self.network_timeout_s, files)
            for c in self.callers
            if c.report_to
        )

    def move_to(self, files: TlsFiles | None) -> tuple[Peer, ...]:
        """Return the callers that C-MOVE may send to."""
        return tuple(
            c.peer(c.move_to, self.ae_title, _MOVE_S, self.network_timeout_s, files) for c in self.callers if c.move_to
        )


class StorageTable(ConfigTable):
    """Folders (relative to the configuration file) and the database."""

    spool: Path = Field(Path("var/spool"), description="give the folder for received images")
    results: Path = Field(Path("var/results"), description="give the folder for results")
    state: Path = Field(Path("var/state"), description="give the folder for the catalogue and the queue")
    database_url: str = Field(
        "",
        pattern=r"^$|^postgresql://",
        description="give '' for SQLite files in `state`, or a URL that starts with postgresql://",
    )
    retention_days: float = Field(
        7.0, ge=0, description="give the minimum days to keep a delivered study after its last image"
    )
    findings_days: float = Field(
        3650.0, ge=0, description="give the days to keep findings for comparison with later scans"
    )
    held_days: float = Field(180.0, ge=0, description="give the days after which a held study's images are removed")
    cancelled_days: float = Field(
        30.0, ge=0, description="give the days after which a cancelled study's images are removed"
    )
    notice_days: float = Field(
        7.0, ge=0, description="give the days before such a removal on which those who ask for 'expiring' are notified"
    )
    low_free_gb: float = Field(
        10.0, ge=0, description="give the free disk space, in GB, below which delivered studies are removed"
    )
    minimum_free_gb: float = Field(
        2.0, ge=0, description="give the free disk space, in GB, below which images are no longer accepted"
    )

    quarantine_gb: float = Field(
        5.0, ge=0, description="give the size of the quarantine, in GB; the oldest refused objects go first"
    )
    replaced_days: float = Field(
        30.0, ge=0, description="give the days to keep objects that were replaced or taken out of a study"
    )
    largest_object_gb: float = Field(
        4.0, gt=0, description="give the size, in GB, above which a received object is refused"
    )

    @field_validator("minimum_free_gb")
    @classmethod
    def _marks(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("low_free_gb", value):
            raise ValueError("is above low_free_gb: images would be refused before any study is removed")
        return value


class SettleTable(ConfigTable):
    """When a study counts as complete."""

    release_s: float = Field(5, ge=0, description="give the seconds to wait after a complete study's last association")
    quiet_s: float = Field(
        60, gt=0, description="give the seconds without images after which a possibly incomplete study is processed"
    )
    tick_s: float = Field(1, gt=0, le=60, description="give the polling interval in seconds, above 0 and up to 60")
    count_at: str = Field(
        "",
        description="give the name of a destination that receives the same images and can count them, or ''",
    )
    count_wait_s: float = Field(
        300, ge=0, description="give the longest wait, in seconds, for images that this destination lists"
    )


class WorkerTable(ConfigTable):
    """The process that analyses."""

    processes: int = Field(1, ge=0, le=64, description="give the number of workers that `serve` starts, 0 to 64")
    concurrency: int = Field(
        1, ge=1, le=16, description="give the number of studies a worker analyses at once, 1 to 16"
    )
    drain_s: float = Field(30, ge=0, description="give the seconds that running work is allowed to finish")
    dead_after_s: float = Field(
        60, ge=1, description="give the seconds without heartbeat after which a worker's work is reassigned, 1 or more"
    )
    memory_gb: float = Field(
        0,
        ge=0,
        description="give the GB of memory that one analysis may use; 0 for its share of 3/4 of the machine's",
    )
    analysis_s: float = Field(3600, ge=10, description="give the seconds that one analysis may take, 10 or more")

    @property
    def limits(self) -> Limits:
        """Of one analysis."""
        if self.memory_gb:
            return Limits(int(self.memory_gb * GB), self.analysis_s)
        together = max(1, self.processes) * self.concurrency
        return Limits(int(machine_memory_bytes() * SHARE / together), self.analysis_s)


class LoggingTable(ConfigTable):
    """Send logs to standard error, for journald or a container to keep; the console shows those about a study."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="give 'debug', 'info', 'warning' or 'error'; only 'debug' may show patient data"
    )
    format: Literal["text", "json"] = Field(
        "text", description="give 'text', or 'json' for a line of JSON with study and association as fields"
    )
    keep_mb: float = Field(
        10, ge=0, le=10_000, description="give the MB of storage.state for log lines about studies, or 0 to keep none"
    )
