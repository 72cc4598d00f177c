"""The ports of a node that starts are opened first of all: who calls meanwhile waits, instead of being refused.

    serve ── open ports ── start receiver-0 with them ── read the configuration, …
                            └── import, look after the spool, then answer those who wait

A receiver needs a second or two until it can answer. Connections wait in the socket's backlog meanwhile, which is less
than any peer waits for the answer to its request. Nothing heavy is imported here. Whatever is wrong with the file or
the address is left to those who read it in earnest: then nothing is opened early.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dicomnode.files import parse_toml

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 11112
#: Connections that may wait for `accept`: more than come in a busy morning or a flood. Whom the kernel finds no place
#: calls again after a second or three.
BACKLOG: Final = 1024


def open_ports(config_file: Path) -> list[socket.socket]:
    """Return the listening sockets of the configuration's ports, or none."""
    try:
        node = parse_toml(config_file.read_text("utf-8-sig")).get("node", {})
        addresses = _addresses(node)
    except (OSError, ValueError, AttributeError):
        return []
    opened: list[socket.socket] = []
    for address in addresses:
        listening = _open(address)
        if listening is None:
            for other in opened:
                other.close()
            return []
        opened.append(listening)
    return opened


def taken_over(descriptors: str) -> dict[int, socket.socket]:
    """Return the sockets that a parent process has opened, by port; `descriptors`: their numbers, "4,5"."""
    sockets = [socket.socket(fileno=int(number)) for number in descriptors.split(",") if number]
    return {int(one.getsockname()[1]): one for one in sockets}


def _addresses(node: Mapping[str, Any]) -> list[tuple[str, int]]:
    host, plain = node.get("host", DEFAULT_HOST), node.get("plain", True)
    ports = [*([node.get("port", DEFAULT_PORT)] if plain else []), *([node["tls_port"]] if "tls_port" in node else [])]
    if not isinstance(host, str) or not all(isinstance(port, int) and 0 < port < 1 << 16 for port in ports):
        raise ValueError("no host and ports")
    return [(host or "0.0.0.0", port) for port in ports]  # noqa: S104 - "" says: every address


def _open(address: tuple[str, int]) -> socket.socket | None:
    # Without SO_REUSEPORT first: an address that another node of this user listens on could be joined with it.
    with suppress(OSError):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            opened.bind(address)
            opened.listen(BACKLOG)
        except OSError:
            opened.close()
            raise
        return opened
    return None
