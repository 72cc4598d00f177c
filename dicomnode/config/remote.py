"""What every DICOM peer of the configuration has: its address, our name towards it, and how long it may take."""

from typing import ClassVar, Self

from pydantic import Field

from dicomnode.config.fields import AeTitle, ConfigTable, Port
from dicomnode.network.association import Peer

#: A host that is there takes a connection at once, however long it then needs for its answers.
_CONNECT_S = 10.0


class RemoteTable(ConfigTable):
    """A DICOM peer that the node calls: `peer` is how everybody calls it.

    `timeout_s` bounds the wait for the association and for each answer, and the wait for the connection too where it is
    shorter than ten seconds. `Config` has filled `calling_ae_title` in.
    """

    #: What people call it.
    peer_name: ClassVar[str] = "peer"

    ae_title: AeTitle = Field(description="give the peer's AE title: 1 to 16 plain characters")
    host: str = Field(min_length=1, description="give the peer's host name or address")
    port: Port = Field(description="give the peer's TCP port, 1 to 65535")
    calling_ae_title: AeTitle = Field("", description="give the AE title to call with (default: the node's)")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for a response")

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
        )
