"""Where a monitoring system asks."""

from typing import Self

from pydantic import Field, model_validator

from dicomnode.config.fields import ConfigTable


class MonitoringTable(ConfigTable):
    """`/live`, `/ready` and `/metrics` by HTTP: figures, no patient data, nothing that changes anything."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="give the address to listen on; '0.0.0.0' listens on every interface"
    )
    port: int = Field(0, ge=0, le=65535, description="give a free TCP port from 1 to 65535, or 0 for no monitoring")
    traces: str = Field(
        "",
        pattern=r"^$|^https?://[^@\s?#]+$",
        description="give the OTLP/HTTP URL of a collector, such as 'http://127.0.0.1:4318/v1/traces', or ''",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.traces and not self.port:
            raise ValueError("traces needs a port: monitoring sends them")
        return self
