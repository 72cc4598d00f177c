"""The processes of a node: the receiver, and a worker. `service` starts and watches them."""

import logging
import os
import queue
import signal
import socket
import threading
import time
from types import FrameType

from dicomnode.config import CallerTable, Config
from dicomnode.errors import SpoolError
from dicomnode.files import FOLDER_MODE, tighten
from dicomnode.network.identities import identity
from dicomnode.reception.process import run_receiver
from dicomnode.reception.receiver import PermittedCaller, ReceiverSettings
from dicomnode.service import audit
from dicomnode.store.catalog.catalog import Catalog

log = logging.getLogger(__name__)

_AWAKE_S = 0.5


def receive(config: Config, stop: threading.Event) -> None:
    """Run the receiving process until `stop` is set."""
    prepare_folders(config)
    storage = config.storage
    with audit.receiving(config):
        run_receiver(
            receiver_settings(config), storage.spool, storage.state, config.catalog_url, config.worker.drain_s, stop
        )


def work(config: Config, index: int, stop: threading.Event) -> None:
    """Run a worker until `stop` is set. `index` tells the workers of one host apart, the same over restarts."""
    from dicomnode.models.serving import Models  # noqa: PLC0415
    from dicomnode.workflows import runtime, worker  # noqa: PLC0415  (torch, which the receiving process must not load)
    from dicomnode.workflows.analyst import Analyst  # noqa: PLC0415
    from dicomnode.workflows.queue import WORKFLOW_VERSION  # noqa: PLC0415

    prepare_folders(config)
    models = Models(config)
    catalog = Catalog.open(config.catalog_url, config.storage.state)
    audit.begin(config, catalog)
    name = f"{socket.gethostname()}-{index}"
    lease = catalog.register_worker(name, WORKFLOW_VERSION)
    heart = worker.Heartbeat(catalog, lease, config.worker.dead_after_s)
    analyst = Analyst(config, lease)
    leased = catalog.leased(lease, worker.exit_without_lease)
    runtime.start(worker.Work(config, leased, models, analyst), executor_id=name)
    log.info(
        "worker %d ready: segmenter %s, bundle %s",
        index,
        config.analysis.segmenter,
        config.analysis.bundle or "none",
    )
    stop.wait()
    runtime.stop(config.worker.drain_s)
    analyst.close()
    heart.stop()
    catalog.close()
    worker.exit_after_drain()


def prepare_folders(config: Config) -> None:
    """Make the folders of the configuration where they are missing, and take other users' rights from those there.

    Raises:
        SpoolError: one cannot be made.
    """
    for key in ("spool", "results", "state"):
        folder = getattr(config.storage, key)
        try:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as e:
            raise SpoolError(
                f"storage.{key} = {folder}: cannot create this folder ({e.strerror}); change the path, or the "
                "permissions of its parent folder"
            ) from None
    for folder in config.private_folders:
        try:
            tighten(folder)
        except OSError as e:
            log.warning(
                "other users may read %s, and its rights cannot be changed (%s): chmod 0700", folder, e.strerror
            )


def receiver_settings(config: Config) -> ReceiverSettings:
    """Return the receiver's record of the configuration."""
    node = config.node
    return ReceiverSettings(
        ae_title=node.ae_title,
        more_ae_titles=config.routing.ae_titles,
        host=node.host,
        port=node.port,
        plain=node.plain,
        tls_port=node.tls_port,
        tls=config.tls_files,
        check_called_ae=node.check_called_ae,
        callers=tuple(_permitted(c) for c in node.callers),
        max_associations=node.max_associations,
        max_per_address=node.max_associations_per_address,
        per_minute=node.max_associations_per_minute,
        max_pdu=node.max_pdu_bytes,
        network_timeout_s=node.network_timeout_s,
        minimum_free_bytes=int(config.storage.minimum_free_gb * 1e9),
        quarantine_bytes=int(config.storage.quarantine_gb * 1e9),
        largest_object_bytes=int(config.storage.largest_object_gb * 1e9),
        share_port=node.receivers > 1,
        report_to=node.report_to(config.tls_files),
        queriers=tuple(_permitted(c) for c in node.callers if c.query),
        move_to=config.move_to,
        results=config.storage.results,
        private_storage=node.private_storage,
    )


def _permitted(caller: CallerTable) -> PermittedCaller:
    return PermittedCaller(
        caller.ae_title,
        caller.address,
        tuple(map(identity, caller.certificates)),
        caller.max_associations,
        caller.max_associations_per_minute,
        replaces=caller.on_conflict == "newest",
    )


class _Stop(threading.Event):
    """An event that a signal handler sets and the main thread waits for.

    Python runs handlers in the main thread, between any two steps of its own. Setting the event there takes a lock that
    the main thread may hold at this moment, in `wait`: it then waits for itself for ever. So a handler only puts a mark
    into a queue that may be used in handlers (`queue.SimpleQueue`), and the event is set where it is read. And a signal
    that comes just before the main thread blocks, or to another thread, wakes nobody: `wait` looks up now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self) -> None:
        """Set the event, from a signal handler or anywhere else."""
        self._asked.put(None)

    def is_set(self) -> bool:
        """As `threading.Event`."""
        return super().is_set() or not self._asked.empty()

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event`, for one thread that waits."""
        end = None if timeout is None else time.monotonic() + timeout
        while not super().is_set():
            left = _AWAKE_S if end is None else min(_AWAKE_S, max(0.0, end - time.monotonic()))
            try:
                self._asked.get(timeout=left)
            except queue.Empty:
                if end is not None and time.monotonic() >= end:
                    return super().is_set()
            else:
                self.set()
        return True


def stopper(*, supervised: bool) -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, and the end of standard input for a supervised child."""
    stop = _Stop()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.ask()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if supervised:

        def wait_for_end() -> None:
            # Not sys.stdin: its lock, held by this thread, would stop the interpreter from ending.
            while os.read(0, 4096):
                pass
            stop.ask()

        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
    return stop
