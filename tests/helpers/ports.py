"""Ports for tests, each for one taker: no other test, worker of pytest-xdist or outgoing connection gets the same."""

import atexit
import random
import socket
from pathlib import Path

#: Reservations of this process, kept to its end.
_reserved: list[socket.socket] = []


@atexit.register
def _release() -> None:
    for reservation in _reserved:
        reservation.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody else is given while this process lives.

    It lies below the range from which the system takes ports for connections, and is reserved by a name of its own
    (an abstract Unix socket), so that two test processes that look at once find two ports.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(max(10_000, first_ephemeral - 20_000), first_ephemeral))
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0dicomnode-tests-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return port
    raise RuntimeError("no port is free")
