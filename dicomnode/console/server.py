"""The console's process: HTTP or HTTPS, until it is told to stop."""

import logging
import threading

from dicomnode.config import Config
from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.network import web
from dicomnode.network.tls import page_context

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 100


def run(config: Config, stop: threading.Event) -> None:
    """Answer until `stop` is set.

    Raises:
        ConfigurationError: the address cannot be bound, or certificate or key cannot be used.
        SpoolError: the catalogue cannot be opened.
    """
    table = config.console
    tls = None if table.files is None else page_context(table.files, "console")
    with web.listen(web.WebAddress("console", table.host, table.port, "enabled = false for no console")) as listener:
        site = ConsoleSite(config)
        try:
            if table.dicomweb:
                threading.Thread(target=site.look_at_names, name="names", daemon=True).start()
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
