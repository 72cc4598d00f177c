"""What a configuration leaves open: who may reach the node, what is readable by others, where results go.

`serve` logs it as warnings at its start, `check` shows it in red. None of it stops the node: a site may have reasons.
"""

import grp
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from dicomnode.config import Config

#: Keys of the configuration whose value is the path of a file that holds a secret.
_SECRET_FILE = re.compile(r"^(secret_file|key|key_file|\w+_key|\w+_key_file)$")
#: What lies in the node's own folders and must stay there: keys of pseudonyms and hashes.
_OWN_KEYS = "*.key"


@dataclass(frozen=True)
class Exposure:
    """One thing that is left open; `text` says what, and how to close it."""

    what: str
    text: str


def find(config: Config, file: Path | None = None) -> list[Exposure]:
    """Return what is left open; `file` is the configuration's own, which may hold secrets too."""
    return [
        *_listening(config),
        *_monitoring(config),
        *_console(config),
        *_no_destination(config),
        *_readable(config, file),
    ]


def _monitoring(config: Config) -> Iterator[Exposure]:
    table = config.monitoring
    if table.port and is_beyond_this_machine(table.host):
        yield Exposure(
            "monitoring",
            f"http://{table.host}:{table.port} is reachable from other machines, without a login: let only the "
            "monitoring system reach it, or set monitoring.host to 127.0.0.1",
        )


def _console(config: Config) -> Iterator[Exposure]:
    table = config.console
    if table.enabled and table.certificate is None and is_beyond_this_machine(table.host):
        yield Exposure(
            "console",
            f"{table.host}:{table.port} is reachable from other machines without HTTPS, and believes whoever calls as "
            "it would its proxy: let only the proxy reach it, or set console.host to 127.0.0.1",
        )


def _listening(config: Config) -> Iterator[Exposure]:
    node = config.node
    if not is_beyond_this_machine(node.host):
        return
    if not node.callers:
        yield Exposure(
            "callers",
            f"{node.host}:{node.port} is reachable from other machines, and anyone who reaches it may send: list the "
            "senders in [[node.callers]], each with its address",
        )
    elif any(_is_everybody(caller.ae_title, caller.address) for caller in node.callers):
        yield Exposure(
            "callers",
            f"{node.host}:{node.port} is reachable from other machines, and a [[node.callers]] table admits any AE "
            "title from any address: name its address",
        )
    if _takes_plain_dicom(config):
        yield Exposure(
            "encryption",
            f"{node.host}:{node.port} is reachable from other machines without TLS: images cross the network in the "
            "clear, and an AE title proves nothing",
        )


def _takes_plain_dicom(config: Config) -> bool:
    """Whether a port without TLS is open; the one place that knows how TLS is configured."""
    return bool(getattr(config.node, "plain", True))


def is_beyond_this_machine(host: str) -> bool:
    """Return whether a listener there can be reached from elsewhere: a name that means nothing is taken for yes."""
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host or "0.0.0.0", None)}  # noqa: S104
    except OSError:
        return True
    return not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _is_everybody(ae_title: str, address: str) -> bool:
    return ae_title == "*" and (not address or ipaddress.ip_network(address, strict=False).prefixlen == 0)


def _no_destination(config: Config) -> Iterator[Exposure]:
    if not config.destination:
        yield Exposure(
            "destination", "none is configured: results stay in storage.results, and nobody sees them in the PACS"
        )


def _readable(config: Config, file: Path | None) -> Iterator[Exposure]:
    secret = dict.fromkeys(secret_files(config), "a secret")
    if file is not None and _holds_password(config):
        secret[file] = "a password"
    for path, what in secret.items():
        if (who := readable_by(path)) is not None:
            yield Exposure("secrets", f"{path} holds {what} and is open to {who}: chmod 600 {path}")


def secret_files(config: Config) -> Iterator[Path]:
    """Return the files that hold secrets: those that the configuration names, and the keys in the node's folders."""
    yield from _named_in(config)
    for folder in (config.registry.folder, config.storage.state):
        yield from sorted(folder.glob(_OWN_KEYS))


def _named_in(table: BaseModel) -> Iterator[Path]:
    for key in type(table).model_fields:
        value = getattr(table, key)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, BaseModel):
                yield from _named_in(one)
            elif isinstance(one, str) and one.startswith("file:"):
                yield Path(one.removeprefix("file:"))
            elif isinstance(one, str | Path) and str(one) and _SECRET_FILE.match(key):
                yield Path(one)


def _holds_password(config: Config) -> bool:
    """Whether the file itself holds one: in the database's URL, or in that of a webhook."""
    urls = (config.storage.database_url, *(to.url for to in config.notify))
    return any(urlsplit(url).password or urlsplit(url).query for url in urls)


def readable_by(path: Path) -> str | None:
    """Return who besides its owner can open a file, in words; None for nobody, or where there is no such file.

    As PostgreSQL sees its keys: a file that root keeps may be readable by the service's own group.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    handed_by_root = status.st_uid == 0 and os.geteuid() != 0 and status.st_gid == os.getegid()
    open_to = stat.S_IMODE(status.st_mode) & (stat.S_IRWXO | (stat.S_IWGRP if handed_by_root else stat.S_IRWXG))
    if open_to & stat.S_IRWXO:
        return "every user of this machine"
    return f"the group {_group(status.st_gid)}" if open_to else None


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
