"""Whether the node can do its work now: what `/ready` answers."""

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.config import Config
from dicomnode.errors import SpoolError
from dicomnode.store.catalog.catalog import Catalog

_CONNECT_S = 2.0


@dataclass(frozen=True)
class Check:
    """One thing that has to be in order. `text`: what is wrong."""

    what: str
    ok: bool
    text: str = ""


def ready(config: Config, catalog: Callable[[], Catalog]) -> list[Check]:
    """Look at the database, the disk, the receivers and the workers.

    Args:
        config: the node's.
        catalog: opens the catalogue, or returns the one that is open.
    """
    return [*_database(config, catalog), _disk(config), *(_listening(config, port) for port in _ports(config))]


def _database(config: Config, catalog: Callable[[], Catalog]) -> list[Check]:
    try:
        alive = catalog().workers("alive")
    except SpoolError as error:
        return [Check("database", ok=False, text=str(error)), Check("worker", ok=False, text="not known")]
    fresh = [w for w in alive if time.time() - w.beat_at < config.worker.dead_after_s]
    text = "" if fresh else f"no worker has shown itself for {config.worker.dead_after_s:g} s"
    return [Check("database", ok=True), Check("worker", ok=bool(fresh), text=text)]


def _disk(config: Config) -> Check:
    storage = config.storage
    try:
        free_gb = shutil.disk_usage(storage.spool).free / 1e9
    except OSError as error:
        return Check("disk", ok=False, text=f"storage.spool: {error.strerror}")
    enough = free_gb >= storage.minimum_free_gb
    text = "" if enough else f"{free_gb:.1f} GB are free, storage.minimum_free_gb is {storage.minimum_free_gb:g}"
    return Check("disk", ok=enough, text=text)


def _ports(config: Config) -> list[int]:
    node = config.node
    return [port for port in (node.port if node.plain else None, node.tls_port) if port is not None]


def _listening(config: Config, port: int) -> Check:
    # A connection, and no association: the receiver takes it for one of a monitor and says nothing of it.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.node.host, config.node.host)  # noqa: S104
    try:
        with socket.create_connection((host, port), _CONNECT_S):
            return Check(f"receiver on port {port}", ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Check(f"receiver on port {port}", ok=False, text=f"nobody listens on {host}:{port} ({why})")


def folders(config: Config) -> dict[str, Path]:
    """Return the folders whose disk is watched, by their key in [storage]."""
    storage = config.storage
    return {"spool": storage.spool, "results": storage.results, "state": storage.state}
