"""Where the audit trail goes."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from dicomnode.audit.messages import AuditSource
from dicomnode.audit.syslog import FileSink, Sink, TlsSink, UdpSink
from dicomnode.config.fields import ConfigTable

_PATHS = ("file", "ca_file", "certificate", "key")


class AuditTable(ConfigTable):
    """The audit trail (PS3.15 A.5): who did what with whose images, for a syslog server to keep."""

    to: Literal["off", "tls", "udp", "file"] = Field("off", description="give 'tls', 'udp', 'file', or 'off'")
    server: str = Field("", pattern=r"^$|^.+:\d{1,5}$", description="give the syslog server as 'host:port' (TLS: 6514)")
    file: str = Field("var/audit/audit.log", min_length=1, description="give the file to append to, for to = 'file'")
    ca_file: str = Field("", description="give the PEM file of trusted CA certificates (default: the system's)")
    certificate: str = Field("", description="give the PEM file of the node's own certificate, for to = 'tls'")
    key: str = Field("", description="give the PEM file of its private key")
    source_id: str = Field("", description="give the name under which the node reports (default: its AE title)")
    site_id: str = Field("", description="give the name of the site, or ''")
    timeout_s: float = Field(10, gt=0, description="give the seconds to wait for the syslog server")
    keep_days: float = Field(7, ge=0, description="give the days to keep messages that were sent")
    most_waiting: int = Field(500_000, ge=1000, description="give the largest number of messages that may wait")
    warn_after_s: float = Field(900, gt=0, description="give the seconds after which a waiting message is a problem")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.to in ("tls", "udp") and not self.server:
            raise ValueError(f"to = {self.to!r} needs server")
        if self.key and not self.certificate:
            raise ValueError("key needs certificate")
        return self

    def resolved(self, folder: Path) -> Self:
        """Return the same with its paths made absolute against `folder`."""
        given = {name: getattr(self, name) for name in _PATHS}
        return self.model_copy(update={k: str(folder / path) for k, path in given.items() if path})

    def source(self, ae_title: str) -> AuditSource | None:
        """Return who reports; None where nothing is noted."""
        return None if self.to == "off" else AuditSource(self.source_id or ae_title, ae_title, self.site_id)

    def sink(self, own_name: str) -> Sink | None:
        """Return where messages go; `own_name` is this host's."""
        host, _, port = self.server.rpartition(":")
        host = host.strip("[]")
        if self.to == "tls":
            ca_file, certificate, key = (Path(n) if n else None for n in (self.ca_file, self.certificate, self.key))
            return TlsSink(host, int(port), ca_file, certificate, key, self.timeout_s, own_name)
        if self.to == "udp":
            return UdpSink(host, int(port), own_name)
        return FileSink(Path(self.file), own_name) if self.to == "file" else None
