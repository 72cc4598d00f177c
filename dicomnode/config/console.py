"""Where people look at the node and act: the console."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dicomnode.config.fields import ConfigTable, File, Port
from dicomnode.network.tls import TlsFiles

_SECURE = "give certificate and key, or behind_proxy = true behind a proxy that speaks HTTPS, or host = '127.0.0.1'"


class ConsoleTable(ConfigTable):
    """Web pages for those who run the node. Users are made with `dicomnode console user add`."""

    enabled: bool = Field(False, description="give true to have `serve` start the console, or false")
    host: str = Field(
        "127.0.0.1", min_length=1, description="give the address to listen on; '0.0.0.0' listens on every interface"
    )
    port: Port = Field(8480, description="give a free TCP port from 1 to 65535")
    names: tuple[str, ...] = Field(
        (), description="give the host names under which browsers call it, such as ['dicomnode.hospital.example']"
    )
    certificate: File | None = Field(None, description="give the PEM file of the certificate, or omit the key")
    key: File | None = Field(None, description="give the PEM file of its private key (mode 0600), or omit the key")
    behind_proxy: bool = Field(
        False, description="give true where only a proxy that speaks HTTPS can reach the console, or false"
    )
    idle_minutes: float = Field(
        30, ge=1, le=1440, description="give the minutes after which an unused session ends (at most 1440)"
    )
    session_hours: float = Field(
        10, gt=0, le=168, description="give the hours after which a session ends in any case (at most 168)"
    )

    dicomweb: bool = Field(
        False, description="give true to have the console's address serve DICOMweb (/dicom-web) too, or false"
    )

    @model_validator(mode="after")
    def _is_secure(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.enabled and not (self.is_secure or _is_this_machine(self.host)):
            raise ValueError(f"host = {self.host!r} would send passwords across the network in the clear: {_SECURE}")
        return self

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it by HTTPS."""
        return self.certificate is not None or self.behind_proxy

    @property
    def files(self) -> TlsFiles | None:
        """The certificate's files; browsers show none of their own, so its own chain stands for the trusted CAs."""
        if self.certificate is None or self.key is None:
            return None
        return TlsFiles(self.certificate, self.key, self.certificate)

    def resolved(self, folder: Path) -> Self:
        """Return the same with its paths made absolute against `folder`."""
        given = {name: getattr(self, name) for name in ("certificate", "key")}
        return self.model_copy(update={name: folder / path for name, path in given.items() if path is not None})


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
