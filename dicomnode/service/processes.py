"""The processes of a node: the receiver, and a worker. `service` starts and watches them."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

from dicomnode.config import CallerTable, Config
from dicomnode.errors import SpoolError
from dicomnode.files import FOLDER_MODE, make_folder, tighten
from dicomnode.metrics import counters
from dicomnode.network import early
from dicomnode.network.identities import identity
from dicomnode.reception.process import run_receiver
from dicomnode.reception.receiver import PermittedCaller, ReceiverSettings
from dicomnode.service import audit
from dicomnode.store import restoring
from dicomnode.store.catalog.catalog import Catalog

log = logging.getLogger(__name__)


def receive(
    config: Config,
    stop: threading.Event,
    ready: int | None = None,
    hurry: Callable[[], bool] = lambda: True,
    opened: str = "",
) -> None:
    """Run the receiving process until `stop` is set.

    Args:
        config: the node's.
        stop: closes the port; open associations go on until their end.
        ready: the descriptor on which the process says that it listens.
        hurry: whether they may go on for `worker.drain_s` at most.
        opened: the descriptors of its ports where they are open already (`network.early`): "4,5".
    """
    prepare_folders(config)
    begin_counting(config, "receiver")
    storage = config.storage
    # Always: at a change of the configuration the next one listens before this one ends.
    settings = replace(receiver_settings(config), share_port=True)

    def listening() -> None:
        if ready is not None:
            os.write(ready, b"1")
            os.close(ready)

    with audit.receiving(config):
        run_receiver(
            settings,
            storage.spool,
            storage.state,
            config.catalog_url,
            config.worker.drain_s,
            stop,
            listening,
            hurry,
            early.taken_over(opened),
        )


def work(config: Config, index: int, stop: threading.Event) -> None:
    """Run a worker until `stop` is set. `index` tells the workers of one host apart, the same over restarts."""
    from dicomnode.workflows import worker  # noqa: PLC0415  (slow to import, and nothing for the receiver)
    from dicomnode.workflows.analyst import Analyst  # noqa: PLC0415
    from dicomnode.workflows.queue import WORKFLOW_VERSION  # noqa: PLC0415

    prepare_folders(config)
    begin_counting(config, "worker")
    analyst = Analyst(config)
    from dicomnode.workflows import runtime  # noqa: PLC0415  (while the analyst loads its models)
    from dicomnode.workflows.lookout import Lookout  # noqa: PLC0415

    # Before the lease: a worker that cannot analyse is none.
    analyst.begin()
    catalog = Catalog.open(config.catalog_url, config.storage.state)
    audit.begin(config, catalog)
    name = f"{socket.gethostname()}-{index}"
    lease = catalog.register_worker(name, WORKFLOW_VERSION)
    heart = worker.Heartbeat(catalog, lease, config.worker.dead_after_s)
    analyst.hold(lease)
    leased = catalog.leased(lease, worker.exit_without_lease)
    own = worker.Work(config, leased, analyst=analyst)
    runtime.start(own, executor_id=name)
    lookout = Lookout(own)
    lookout.start()
    log.info(
        "worker %d ready: segmenter %s, bundle %s",
        index,
        config.analysis.segmenter,
        config.analysis.bundle or "none",
    )
    stop.wait()
    lookout.stop()
    runtime.stop(config.worker.drain_s)
    analyst.close()
    heart.stop()
    worker.exit_after_drain(lambda: worker.give_back(config, catalog, lease))
    catalog.close()


def prepare_folders(config: Config) -> None:
    """Make the folders of the configuration where they are missing, and take other users' rights from those there.

    Raises:
        SpoolError: one cannot be made, or a restore into them was cut short.
    """
    restoring.refuse(config.storage.state)
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


def begin_counting(config: Config, role: counters.Role) -> None:
    """Count for monitoring from now on, where it is configured."""
    if config.counters_folder is not None:
        make_folder(config.counters_folder)
        counters.begin(config.counters_folder, role, [one.name for one in config.destination])


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
