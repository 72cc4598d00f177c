"""Web pages by a process of their own, for people and programs that look at the node: HTTP or HTTPS, with bounds."""

import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from dicomnode.errors import ConfigurationError

#: A connection that asks for nothing more is closed after so long.
_IDLE_S = 15
#: So long, or twice as long, a connection may be silent or send half a request's head.
_REQUEST_S = 10.0
#: Of a request's head, bytes.
_LONGEST_HEAD = 16_384
_POLL_S = 0.2


@dataclass(frozen=True)
class WebAddress:
    """Where a server listens. `table`: of the configuration; `off`: what to write there to have none."""

    table: str
    host: str
    port: int
    off: str


class _Impatient(H11Protocol):
    """Ends a connection from which no whole request comes, and gives its place to another where places are few."""

    def connection_made(self, transport: Any) -> None:
        """Begin to look whether whole requests come."""
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._make_room()
        self._seen = self.cycle
        self._next_look = self.loop.call_later(_REQUEST_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Note since when it is the caller's turn again."""
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def _make_room(self) -> None:
        """Close those that have waited longest, each of the address with the most, as `network.lobby` does.

        uvicorn bounds what is answered, and looks only when a request comes: a silent caller would keep the places.
        """
        others = [one for one in self.connections if isinstance(one, _Impatient) and one is not self]
        waiting = sorted((one for one in others if one._waits()), key=lambda one: one._waits_since)
        for _ in range(min(len(waiting), len(others) - (self.limit_concurrency or 0) + 2)):
            crowd, _most = Counter(one.client and one.client[0] for one in waiting).most_common(1)[0]
            longest = next(one for one in waiting if (one.client and one.client[0]) == crowd)
            waiting.remove(longest)
            # At once: a caller who does not read would keep a place until he has taken what was written.
            longest.transport.abort()
            self.connections.discard(longest)

    def _waits(self) -> bool:
        """Say whether nothing happens here before the caller has sent, or taken, something."""
        answers = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        return not answers or self.flow.write_paused

    def _look(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is self._seen and self.timeout_keep_alive_task is None:
            self.transport.close()
            return
        self._seen = self.cycle
        self._next_look = self.loop.call_later(_REQUEST_S, self._look)


class _Door(socket.socket):
    """Listens for TLS. Of the callers who are still shaking hands, the one that has been let in first goes.

    asyncio tells a protocol of its connection only after the handshake, for which it waits a minute.
    """

    def __init__(self, listener: socket.socket, most: int, state: ServerState) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self._most, self._state = most, state
        self._shaking: dict[tuple[str, int], socket.socket] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """Let one in; where `most` are shaking hands, close one of the address with the most."""
        connection, address = super().accept()
        made = {one.client for one in self._state.connections if isinstance(one, H11Protocol)}
        self._shaking = {who: one for who, one in self._shaking.items() if one.fileno() >= 0 and who not in made}
        if len(self._shaking) >= self._most:
            crowd, _many = Counter(host for host, _port in self._shaking).most_common(1)[0]
            first = next(who for who in self._shaking if who[0] == crowd)
            with suppress(OSError):  # it has just gone by itself
                self._shaking.pop(first).shutdown(socket.SHUT_RDWR)
        self._shaking[address[:2]] = connection
        return connection, address


def listen(at: WebAddress) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError: the address cannot be bound."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    try:
        return socket.create_server((at.host, at.port), family=family)
    except OSError as error:
        text = f"[{at.table}] cannot listen on {at.host}:{at.port}: {error.strerror}"
        raise ConfigurationError(f"{text}; change host or port, or give {at.off}") from error


def serve(
    application: ASGIApp,
    listener: socket.socket,
    stop: threading.Event,
    *,
    most_connections: int,
    tls: ssl.SSLContext | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Answer until `stop` is set, or the server ends by itself.

    Args:
        application: what answers, ASGI 3.
        listener: the socket; closed at the end.
        stop: ends it.
        most_connections: beyond so many at once, the one that has waited longest for its caller goes; where none
            waits, the new one is answered 503.
        tls: for HTTPS; None for HTTP.
        tick: called a few times a second meanwhile.
    """
    settings = uvicorn.Config(
        application,
        interface="asgi3",
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        http=_Impatient,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        # It answers while there are fewer than this, the asking one among them.
        limit_concurrency=most_connections + 1,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
    )
    server = uvicorn.Server(settings)
    if tls is not None:
        listener = _Door(listener, most_connections, server.server_state)
    # Its own handlers of signals are for a main thread: `stop` is ours.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    while not stop.wait(_POLL_S) and thread.is_alive():
        tick()
    server.should_exit = True
    thread.join(5)
    listener.close()  # uvicorn has done so, unless it hangs
