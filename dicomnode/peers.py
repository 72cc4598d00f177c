"""Peers as people name them: a destination of the configuration, or AET@HOST:PORT."""

import re
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode import config
from dicomnode.config import Config, TransferSyntaxName
from dicomnode.dimse import sender
from dicomnode.errors import UsageError

_SYNTAXES: dict[TransferSyntaxName, str] = {
    "explicit-le": ExplicitVRLittleEndian,
    "implicit-le": ImplicitVRLittleEndian,
}
_ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")


def to_peer(destination: config.Destination, settings: Config) -> sender.Destination:
    """The sender's record of a configured destination."""
    return sender.Destination(
        name=destination.name,
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae=destination.calling_ae_title or settings.node.ae_title,
        acse_timeout_s=destination.timeout_s,
        dimse_timeout_s=destination.timeout_s,
        network_timeout_s=destination.timeout_s,
        preferred_syntax=_SYNTAXES[destination.transfer_syntax],
    )


def parse(text: str) -> config.Destination:
    """A destination from AET@HOST:PORT.

    Raises:
        UsageError: the text is not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UsageError(f"{text!r} is not of the form AET@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return config.Destination(
        name="peer", ae_title=match["ae"], host=match["host"].strip("[]"), port=int(match["port"])
    )


def find(text: str, path: Path) -> sender.Destination:
    """The peer that `text` names; the configuration file is needed for a destination's name only.

    Raises:
        UsageError: neither of the two forms.
        ConfigurationError: the configuration is wrong.
    """
    if "@" in text:
        return to_peer(parse(text), config.load(path) if path.is_file() else Config())
    settings = config.load(path)
    for destination in settings.destination:
        if destination.name == text:
            return to_peer(destination, settings)
    names = ", ".join(d.name for d in settings.destination) or "none"
    raise UsageError(f"{text!r} is no destination of {path} (known: {names}); or name a peer as AET@HOST:PORT")
