"""Peers as people name them: a destination of the configuration, or AET@HOST:PORT."""

import re
from pathlib import Path

from dicomnode.audit.messages import AuditPeer
from dicomnode.config import Config, DicomDestinationTable, load
from dicomnode.errors import UsageError
from dicomnode.outbound.destinations import Destination, reach

_ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")


def parse(text: str) -> DicomDestinationTable:
    """Return a destination from AET@HOST:PORT.

    Raises:
        UsageError: the text is not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UsageError(f"{text!r} is not of the form AET@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return DicomDestinationTable(
        name="peer", ae_title=match["ae"], host=match["host"].strip("[]"), port=int(match["port"])
    )


def audit_peer(config: Config, destination: str) -> AuditPeer:
    """Return a destination as the audit trail names it; its name alone where it is no longer configured."""
    for table in config.destination:
        if table.name == destination:
            return AuditPeer(*table.audited)
    return AuditPeer(destination, "")


def find(text: str, path: Path, *, tls: bool = False) -> Destination:
    """Return the peer that `text` names; the configuration file is needed for a destination's name, and for TLS.

    `tls`: call AET@HOST:PORT by TLS, with the files of [tls]; a destination says so itself.

    Raises:
        UsageError: neither of the two forms.
        ConfigurationError: the configuration is wrong.
    """
    if "@" in text:
        config = load(path) if path.is_file() else Config()
        called = parse(text).called_as(config.node.ae_title).model_copy(update={"tls": tls})
        try:
            return reach(called.secured_by(config.tls))
        except ValueError:
            raise UsageError(f"--tls needs the table [tls] in {path}: certificate, key and ca_file") from None
    config = load(path)
    for table in config.destination:
        if table.name == text:
            return reach(table)
    names = ", ".join(d.name for d in config.destination) or "none"
    raise UsageError(f"{text!r} is not a destination in {path} (known: {names}) and not of the form AET@HOST:PORT")
