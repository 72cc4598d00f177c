"""Connections that have no association yet: how many may wait, and who has to go for whom.

An honest request comes within moments of its connection. Where too many wait, the one that has waited longest goes, of
the address with the most: whoever opens connections and sends nothing, or a byte a minute, takes no place from others.
"""

import socket
import threading
from contextlib import suppress


class Lobby:
    """At most `per_address` connections of one address, and `in_all` of all together."""

    def __init__(self, per_address: int, in_all: int) -> None:
        self._per_address, self._in_all = per_address, in_all
        self._addresses: dict[socket.socket, str] = {}
        self._waiting: dict[str, dict[socket.socket, None]] = {}  # in the order of their coming
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._addresses)

    def enter(self, connection: socket.socket, address: str) -> str | None:
        """Let a connection in; where it is one too many, close another and return the address of that one."""
        with self._lock:
            self._addresses[connection] = address
            mine = self._waiting.setdefault(address, {})
            mine[connection] = None
            if len(mine) > self._per_address:
                crowd = mine
            elif len(self._addresses) > self._in_all:
                crowd = max(self._waiting.values(), key=len)
            else:
                return None
            longest = next(iter(crowd))
            whose = self._forget(longest)
        with suppress(OSError):  # it has just gone by itself
            # Its thread wakes and closes it. The plain socket's own: TLS would begin to talk.
            socket.socket.shutdown(longest, socket.SHUT_RDWR)
        return whose

    def leave(self, connection: socket.socket) -> None:
        """Let go a connection that has become an association, or has ended. It need not be here."""
        with self._lock:
            self._forget(connection)

    def renew(self, connection: socket.socket, wrapped: socket.socket) -> None:
        """Go on with another socket for a connection: TLS takes the descriptor of the first."""
        with self._lock:
            address = self._addresses.pop(connection, None)
            if address is not None:
                self._waiting[address].pop(connection)
                self._addresses[wrapped] = address
                self._waiting[address][wrapped] = None

    def _forget(self, connection: socket.socket) -> str | None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            waiting = self._waiting[address]
            del waiting[connection]
            if not waiting:
                del self._waiting[address]
        return address
