"""The console's process: HTTP or HTTPS, until it is told to stop."""

import logging
import socket
import ssl
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicomnode.config import Config, ConsoleTable
from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.errors import ConfigurationError

log = logging.getLogger(__name__)

#: Beyond so many connections at once, one is answered 503.
_MOST_CONNECTIONS = 100
_IDLE_S = 15
#: So long, or twice as long, a connection may be silent or send half a request's head.
_REQUEST_S = 10.0
#: Of a request's head, bytes.
_LONGEST_HEAD = 16_384
_POLL_S = 0.2


class _Impatient(H11Protocol):
    """Ends a connection from which no whole request comes."""

    def connection_made(self, transport: Any) -> None:
        """Begin to look whether whole requests come."""
        super().connection_made(transport)
        self._seen = self.cycle
        self._next_look = self.loop.call_later(_REQUEST_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is self._seen and self.timeout_keep_alive_task is None:
            self.transport.close()
            return
        self._seen = self.cycle
        self._next_look = self.loop.call_later(_REQUEST_S, self._look)


def run(config: Config, stop: threading.Event) -> None:
    """Answer until `stop` is set.

    Raises:
        ConfigurationError: the address cannot be bound, or certificate or key cannot be used.
        SpoolError: the catalogue cannot be opened.
    """
    table = config.console
    try:
        listener = socket.create_server((table.host, table.port), family=_family(table.host))
    except OSError as error:
        raise ConfigurationError(
            f"[console] cannot listen on {table.host}:{table.port}: {error.strerror}; change host or port, or give "
            "enabled = false for no console"
        ) from error
    with listener:
        site = ConsoleSite(config)
        try:
            _serve(config, site, listener, stop)
        finally:
            site.close()


def _serve(config: Config, site: ConsoleSite, listener: socket.socket, stop: threading.Event) -> None:
    table = config.console
    context = _tls(table)
    settings = uvicorn.Config(
        application(site),
        interface="asgi3",
        ssl_context_factory=None if context is None else lambda _config, _default: context,
        http=_Impatient,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
    )
    server = uvicorn.Server(settings)
    # Its own handlers of signals are for a main thread: `stop` is ours.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    log.info("console on %s://%s:%d", "http" if context is None else "https", table.host, table.port)
    while not stop.wait(_POLL_S) and thread.is_alive():
        pass
    server.should_exit = True
    thread.join(5)


def _tls(table: ConsoleTable) -> ssl.SSLContext | None:
    if table.certificate is None or table.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(table.certificate, table.key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"[console] certificate {table.certificate} and key {table.key} cannot be used ({type(error).__name__}): "
            "give a PEM certificate and its private key without a password"
        ) from error
    return context


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
