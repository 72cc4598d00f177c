"""Where people look at the node and act: the console."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dicomnode.config.fields import ConfigTable, File, Port
from dicomnode.network.openid_provider import OpenIdProvider, is_private
from dicomnode.network.tls import TlsFiles

Role = Literal["reader", "operator", "administrator", "researcher"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_SECURE = "give certificate and key, or behind_proxy = true behind a proxy that speaks HTTPS, or host = '127.0.0.1'"


#: Where the provider sends browsers back to, below `public_url`.
LOGIN_BACK: Final = "/login/provider/back"


class OidcTable(ConfigTable):
    """The site's OpenID provider, by which users of the console log in."""

    issuer: str = Field(
        pattern=r"^https?://[^@\s?#]+$",
        description="give the provider's issuer as it writes it itself, such as 'https://login.hospital.example/realms/ct'",
    )
    client_id: str = Field(min_length=1, description="give the name under which the provider knows this node")
    client_secret: str = Field(
        "",
        pattern=r"^$|^env:[A-Za-z_][A-Za-z0-9_]*$|^file:.+$",
        description="give the place of the client's secret: 'env:NAME' or 'file:path', or '' where it has none",
    )
    public_url: str = Field(
        pattern=r"^https?://[^@\s?#/]+$",
        description="give the URL under which browsers reach the console, such as 'https://dicomnode.hospital.example'",
    )
    roles: Mapping[str, Role] = Field(
        min_length=1, description="give roles by values of role_claim, such as {'ct-operators' = 'operator'}"
    )
    role_claim: str = Field(
        "groups",
        min_length=1,
        description="give the claim that says to what a user belongs ('realm_access.roles': a path)",
    )
    allowed_groups: tuple[str, ...] = Field(
        (), description="give values of role_claim one of which a user must have besides, or [] for no such demand"
    )
    name_claim: str = Field(
        "preferred_username",
        min_length=1,
        description="give the claim that holds a user's name; users must not choose it",
    )
    scopes: tuple[str, ...] = Field(
        ("openid", "profile"), description="give what the provider is asked for; 'openid' is among it"
    )
    label: str = Field(
        "the hospital's account", pattern=r"^[^\x00-\x1f\x7f]{1,60}$", description="give the words after «Log in with»"
    )
    ask_again: bool = Field(
        False, description="give true to have the provider ask for the password at each login (shared workstations)"
    )
    local_users: bool = Field(True, description="give false to let in nobody but the provider's users")
    ca_file: str = Field("", description="give a file of trusted CA certificates, or '' for the system's")
    timeout_s: float = Field(10, gt=0, le=60, description="give the seconds to wait for the provider (at most 60)")

    @field_validator("issuer", "public_url")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        if not is_private(value):
            raise ValueError("would be sent unencrypted: the url must begin with https://")
        return value

    @field_validator("scopes")
    @classmethod
    def _openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("without 'openid' the provider names nobody")
        return value

    def resolved(self, folder: Path) -> Self:
        """Return the same with its files' paths made absolute against `folder`."""
        files = {"ca_file": str(folder / self.ca_file)} if self.ca_file else {}
        if self.client_secret.startswith("file:"):
            files["client_secret"] = f"file:{folder / self.client_secret.removeprefix('file:')}"
        return self.model_copy(update=files)

    @property
    def provider(self) -> OpenIdProvider:
        """How it is reached, and what it knows us as."""
        return OpenIdProvider(
            self.issuer,
            self.client_id,
            self.client_secret,
            self.public_url + LOGIN_BACK,
            self.scopes,
            self.ask_again,
            self.ca_file,
            self.timeout_s,
        )


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
    oidc: OidcTable | None = Field(None, description="give the table of the site's OpenID provider, or omit it")

    @model_validator(mode="after")
    def _is_secure(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.enabled and not (self.is_secure or _is_this_machine(self.host)):
            raise ValueError(f"host = {self.host!r} would send passwords across the network in the clear: {_SECURE}")
        return self

    @model_validator(mode="after")
    def _comes_back(self) -> Self:
        """Refuse a URL to which the provider would send browsers in vain."""
        if self.oidc is None:
            return self
        url = urlsplit(self.oidc.public_url)
        if (url.scheme == "https") != self.is_secure:
            cure = _SECURE if url.scheme == "https" else "it begins with https:// here"
            raise ValueError(f"oidc.public_url = {self.oidc.public_url!r} does not lead here: {cure}")
        known = {*(name.lower() for name in self.names), self.host.lower(), "localhost", "127.0.0.1", "::1"}
        if url.hostname not in known:
            raise ValueError(f"oidc.public_url: {url.hostname!r} is not known here: add it to console.names")
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
        files = {name: folder / path for name, path in given.items() if path is not None}
        return self.model_copy(update={**files, "oidc": None if self.oidc is None else self.oidc.resolved(folder)})


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
