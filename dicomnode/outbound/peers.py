"""Peers as people name them: those of the configuration, or AET@HOST:PORT."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from dicomnode.audit.messages import AuditPeer
from dicomnode.config import Config, DicomDestinationTable, load
from dicomnode.config.remote import RemoteTable
from dicomnode.errors import UsageError
from dicomnode.network.find import STUDY_ROOT_FIND
from dicomnode.outbound.destinations import Destination, reach
from dicomnode.outbound.destinations.dicom import DicomDestination

_ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class KnownPeer:
    """A peer that the node calls.

    Attributes:
        what: as people know it: "destination pacs", "worklist".
        reached: how it is called.
        services: the SOP classes that it has to accept beside C-ECHO.
    """

    what: str
    reached: Destination
    services: tuple[UID, ...] = ()


def known(config: Config) -> list[KnownPeer]:
    """Return the destinations and the other peers, in the order of the configuration."""
    found = []
    for table in config.destination:
        services = table.services if isinstance(table, RemoteTable) else ()
        if table.name == config.settle.count_at:
            services += (STUDY_ROOT_FIND,)
        found.append(KnownPeer(f"destination {table.name}", reach(table), services))
    found += [KnownPeer(one.peer_name, DicomDestination(one.peer), one.services) for one in config.remotes]
    return found


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
