"""What every DICOM peer of the configuration has: its address, our name towards it, and how long it may take."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator
from pydicom.uid import UID

from dicomnode.config.fields import IDENTITIES, AeTitle, ConfigTable, File, Identities, Port
from dicomnode.config.tls import TlsTable
from dicomnode.network.association import Peer
from dicomnode.network.identities import identity
from dicomnode.network.tls import Security, TlsFiles

#: A host that is there takes a connection at once, however long it then needs for its answers.
_CONNECT_S = 10.0
_FILES = ("tls_certificate", "tls_key", "tls_ca_file", "tls_crl_file")


class RemoteTable(ConfigTable):
    """A DICOM peer that the node calls: `peer` is how everybody calls it.

    `timeout_s` bounds the wait for the association and for each answer, and the wait for the connection too where it is
    shorter than ten seconds. `Config` has filled in `calling_ae_title`, and what [tls] gives for the files of TLS.
    """

    #: What people call it.
    peer_name: ClassVar[str] = "peer"

    ae_title: AeTitle = Field(description="give the peer's AE title: 1 to 16 plain characters")
    host: str = Field(min_length=1, description="give the peer's host name or address")
    port: Port = Field(description="give the peer's TCP port, 1 to 65535")
    calling_ae_title: AeTitle = Field("", description="give the AE title to call with (default: the node's)")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for a response")
    tls: bool = Field(False, description="give true to call this peer by TLS, with the files of [tls]")
    certificates: Identities = Field(
        (), description=f"give what the peer's certificate must show, {IDENTITIES}; without it, its host's name"
    )
    tls_certificate: File | None = Field(None, description="give our certificate for this peer, instead of [tls]'s")
    tls_key: File | None = Field(None, description="give the key of `tls_certificate`")
    tls_ca_file: File | None = Field(None, description="give the CAs trusted for this peer, instead of [tls]'s")
    tls_crl_file: File | None = Field(None, description="give the revocation lists for this peer, instead of [tls]'s")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [key for key in ("certificates", *_FILES) if getattr(self, key)]
        if given and not self.tls:
            raise ValueError(f"{given[0]} has no effect without tls = true")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give tls_certificate and tls_key together")
        return self

    def secured_by(self, shared: TlsTable | None) -> Self:
        """Return the same with the files of [tls] where it names none of its own. Raises ValueError if one is missing.

        Of a pair of CAs and revocation lists, both are the peer's or both are [tls]'s.
        """
        if not self.tls:
            return self
        own = {key: getattr(self, key) for key in _FILES}
        if shared is not None:
            if self.tls_certificate is None:
                own |= {"tls_certificate": shared.certificate, "tls_key": shared.key}
            if self.tls_ca_file is None:
                own |= {"tls_ca_file": shared.ca_file, "tls_crl_file": self.tls_crl_file or shared.crl_file}
        if own["tls_certificate"] is None or own["tls_ca_file"] is None:
            name = getattr(self, "name", self.peer_name)
            raise ValueError(f"{name}: tls = true needs certificate, key and ca_file in the table [tls]")
        return self.model_copy(update=own)

    def files_resolved(self, folder: Path) -> Self:
        """Return the same with the paths of TLS made absolute against `folder`."""
        given = {key: getattr(self, key) for key in _FILES}
        return self.model_copy(update={key: folder / path for key, path in given.items() if path is not None})

    @property
    def services(self) -> tuple[UID, ...]:
        """The SOP classes that the peer has to provide, besides C-ECHO."""
        return ()

    @property
    def security(self) -> Security | None:
        """TLS towards this peer."""
        if not self.tls:
            return None
        assert self.tls_certificate is not None
        assert self.tls_key is not None
        assert self.tls_ca_file is not None
        files = TlsFiles(self.tls_certificate, self.tls_key, self.tls_ca_file, self.tls_crl_file)
        return Security(files, tuple(map(identity, self.certificates)))

    def called_as(self, ae_title: str) -> Self:
        """Return the same, called under our AE title `ae_title` where it names none of its own."""
        return self if self.calling_ae_title else self.model_copy(update={"calling_ae_title": ae_title})

    @property
    def peer(self) -> Peer:
        """How it is reached."""
        return Peer(
            name=self.peer_name,
            ae_title=self.ae_title,
            host=self.host,
            port=self.port,
            calling_ae=self.calling_ae_title,
            connect_timeout_s=min(_CONNECT_S, self.timeout_s),
            acse_timeout_s=self.timeout_s,
            dimse_timeout_s=self.timeout_s,
            network_timeout_s=self.timeout_s,
            security=self.security,
        )
