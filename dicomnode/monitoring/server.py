"""The process that answers a monitoring system: HTTP, three pages, nothing that changes anything.

| page | answers |
|---|---|
| `/live` | 200 while this process runs; `serve` ends it with itself |
| `/ready` | 200 where database, disk, receivers and a worker are in order, else 503; JSON says what is not |
| `/metrics` | Prometheus' text format |
"""

import logging
import threading
import time
from contextlib import closing

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dicomnode.config import Config
from dicomnode.errors import SpoolError
from dicomnode.files import make_folder
from dicomnode.monitoring import traces
from dicomnode.monitoring.collector import Metrics
from dicomnode.monitoring.readiness import ready
from dicomnode.network import web
from dicomnode.store.catalog.catalog import Catalog

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 50
#: Traces are sent so often.
_FOLLOW_S = 5.0


def run(config: Config, stop: threading.Event) -> None:
    """Answer until `stop` is set.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    table = config.monitoring
    address = web.WebAddress("monitoring", table.host, table.port, "port = 0 for no monitoring")
    with web.listen(address) as listener, closing(MonitoringPages(config)) as pages:
        log.info("monitoring on http://%s:%d", table.host, table.port)
        web.serve(application(pages), listener, stop, most_connections=_MOST_CONNECTIONS, tick=pages.follow)


class MonitoringPages:
    """The three pages. One look at a time: whoever asks meanwhile waits."""

    def __init__(self, config: Config) -> None:
        self._config = config
        folder = config.counters_folder
        assert folder is not None
        make_folder(folder)
        self._opened: Catalog | None = None
        self._lock = threading.Lock()
        self._followed = time.monotonic()
        self._traces = traces.begin(config)
        self._metrics = Metrics(config, folder, self._catalog, self._traces)

    def _catalog(self) -> Catalog:
        if self._opened is None:
            self._opened = Catalog.reading(self._config.catalog_url, self._config.storage.state)
        return self._opened

    def live(self, _request: Request) -> Response:
        """Say that this process runs."""
        return PlainTextResponse("alive\n")

    def ready(self, _request: Request) -> Response:
        """Say whether the node can do its work."""
        with self._lock:
            checks = ready(self._config, self._catalog)
        is_ready = all(check.ok for check in checks)
        body = {"ready": is_ready, "checks": {c.what: {"ok": c.ok, "text": c.text} for c in checks}}
        return JSONResponse(body, 200 if is_ready else 503)

    def metrics(self, _request: Request) -> Response:
        """Return the figures."""
        with self._lock:
            return Response(self._metrics.page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def follow(self) -> None:
        """Now and then, send the traces of the jobs that have ended; where there are none, or no database, nothing."""
        if self._traces is not None and time.monotonic() - self._followed >= _FOLLOW_S:
            self._followed = time.monotonic()
            try:
                with self._lock:
                    self._metrics.follow()
            except SpoolError as error:
                log.warning("no traces: %s", error)

    def close(self) -> None:
        """Send the traces that wait, and close the catalogue."""
        if self._traces is not None:
            self._traces.close()
        if self._opened is not None:
            self._opened.close()


def application(pages: MonitoringPages) -> Starlette:
    """Return the three pages as an ASGI application."""
    found = {"/live": pages.live, "/ready": pages.ready, "/metrics": pages.metrics}
    return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in found.items()])
