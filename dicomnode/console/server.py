"""The console's process: HTTP or HTTPS, until it is told to stop."""

import logging
import ssl
import threading

from dicomnode.config import Config, ConsoleTable
from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.errors import ConfigurationError
from dicomnode.network import web

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 100


def run(config: Config, stop: threading.Event) -> None:
    """Answer until `stop` is set.

    Raises:
        ConfigurationError: the address cannot be bound, or certificate or key cannot be used.
        SpoolError: the catalogue cannot be opened.
    """
    table = config.console
    tls = _tls(table)
    with web.listen(web.WebAddress("console", table.host, table.port, "enabled = false for no console")) as listener:
        site = ConsoleSite(config)
        try:
            log.info("console on %s://%s:%d", "http" if tls is None else "https", table.host, table.port)
            web.serve(
                application(site),
                listener,
                stop,
                most_connections=_MOST_CONNECTIONS,
                tls=tls,
                tick=site.accounts.tell_refused,
            )
        finally:
            site.close()


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
