"""Peers as people name them: a destination of the configuration, or AET@HOST:PORT."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.config import Config, DestinationTable, TransferSyntaxName, load
from dicomnode.errors import UsageError
from dicomnode.network import association, stow

_SYNTAXES: dict[TransferSyntaxName, str] = {
    "explicit-le": ExplicitVRLittleEndian,
    "implicit-le": ImplicitVRLittleEndian,
}
Outbound = association.Peer | stow.StowServer
_ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")


def to_peer(destination: DestinationTable, config: Config) -> association.Peer:
    """Return the sender's record of a configured destination."""
    return association.Peer(
        name=destination.name,
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae=destination.calling_ae_title or config.node.ae_title,
        acse_timeout_s=destination.timeout_s,
        dimse_timeout_s=destination.timeout_s,
        network_timeout_s=destination.timeout_s,
        preferred_syntax=_SYNTAXES[destination.transfer_syntax],
    )


def outbound(destination: DestinationTable, config: Config) -> Outbound:
    """How a configured destination is reached."""
    if destination.kind == "dicom":
        return to_peer(destination, config)
    return stow.StowServer(
        name=destination.name,
        url=destination.url,
        user=destination.user,
        password=destination.password,
        token=destination.token,
        ca_file=destination.ca_file,
        timeout_s=destination.timeout_s,
    )


def echo(peer: Outbound) -> float:
    """Ask for a sign of life; return the seconds that it took.

    Raises:
        PeerError, PeerRejectedError: there was none; see `association.echo` and `stow.echo`.
    """
    return stow.echo(peer) if isinstance(peer, stow.StowServer) else association.echo(peer)


def send(
    peer: Outbound, paths: Sequence[Path], on_result: Callable[[Path, association.Sent], None] | None = None
) -> list[association.Sent]:
    """Store files at a peer.

    Raises:
        PeerError, PeerRejectedError: see `association.send` and `stow.send`.
    """
    return (
        stow.send(peer, paths, on_result)
        if isinstance(peer, stow.StowServer)
        else association.send(peer, paths, on_result)
    )


def parse(text: str) -> DestinationTable:
    """Return a destination from AET@HOST:PORT.

    Raises:
        UsageError: the text is not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UsageError(f"{text!r} is not of the form AET@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return DestinationTable(name="peer", ae_title=match["ae"], host=match["host"].strip("[]"), port=int(match["port"]))


def find(text: str, path: Path) -> Outbound:
    """Return the peer that `text` names; the configuration file is needed for a destination's name only.

    Raises:
        UsageError: neither of the two forms.
        ConfigurationError: the configuration is wrong.
    """
    if "@" in text:
        return to_peer(parse(text), load(path) if path.is_file() else Config())
    settings = load(path)
    for destination in settings.destination:
        if destination.name == text:
            return outbound(destination, settings)
    names = ", ".join(d.name for d in settings.destination) or "none"
    raise UsageError(f"{text!r} is no destination of {path} (known: {names}); or name a peer as AET@HOST:PORT")
