"""`serve`: the receiver and the workers in processes of their own, the clock in this one; drained on SIGTERM.

    serve ──┬── receivers   pynetdicom, spool, catalogue: no torch, so that they stay small and always answer;
            │               started first, stopped last, replaced without a gap when the configuration is read anew
            ├── workers     the analysis and the deliveries
            └── the clock   settle, reconcile

A child that dies is started again, later and later while it keeps dying. A child whose parent dies sees its standard
input close and drains too: nothing is left behind holding the port.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from apscheduler.triggers.interval import IntervalTrigger

from dicomnode.audit import messages, trail
from dicomnode.config import Config
from dicomnode.errors import DatabaseError
from dicomnode.metrics import counters
from dicomnode.registry.background import BackgroundCommand
from dicomnode.registry.retraining import Retraining, trigger
from dicomnode.service import audit, reloading
from dicomnode.service.alerts import Alerts, AlertSender
from dicomnode.service.child import Child, receiver
from dicomnode.service.clock import Housekeeping
from dicomnode.service.database_away import DatabaseAway
from dicomnode.service.processes import begin_counting, prepare_folders
from dicomnode.service.signals import SignalRequest
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows.queue import Queue

log = logging.getLogger(__name__)

#: What a child needs beyond `worker.drain_s`, to close its connections.
_AFTER_DRAIN_S = 5.0
#: So long new receivers may take until they listen.
_LISTENING_S = 60.0
#: No more of them are left behind: who reloads in a loop does not fill the memory with receivers.
_MOST_LEAVING = 16
#: How often the children are looked at.
_LOOK_S = 0.2


def serve(config: Config, path: Path, stop: threading.Event, reload: SignalRequest, first: Child) -> None:
    """Run the node until `stop` is set; take up the changed configuration each time that `reload` is.

    The receivers are started first and stopped last, and at a change the new ones listen before the old ones end: the
    port is without a listener for as long as the node needs to start, and for no longer.

    Args:
        config: the node's.
        path: the configuration file, which the children read for themselves.
        stop: ends the node.
        reload: asks for a look at the file. A file that is wrong, or needs a restart, changes nothing.
        first: the first receiver, which was started and is listened to already.
    """
    receivers, leaving = [first], list[Child]()
    current: Config | None = config
    try:
        prepare_folders(config)
        if config.counters_folder is not None:
            # Prometheus expects the counters to begin anew with the node.
            counters.forget_dead(config.counters_folder, counted=True)
        reloading.note_process(config)
        receivers += _start_receivers(path, range(1, config.node.receivers))
        catalog = _open(config)
        try:
            while current is not None:
                config = current
                current = _run(config, path, catalog, receivers, leaving, stop, reload)
        finally:
            catalog.close()
    finally:
        drain([*receivers, *leaving], config.worker.drain_s)
        log.info("stopped")


def _start_receivers(path: Path, numbers: Iterable[int]) -> list[Child]:
    receivers = [receiver(path, i) for i in numbers]
    for child in receivers:
        child.start()
    return receivers


def _run(
    config: Config,
    path: Path,
    catalog: Catalog,
    receivers: list[Child],
    leaving: list[Child],
    stop: threading.Event,
    reload: SignalRequest,
) -> Config | None:
    """Run all but the receivers under one configuration. Returns the next one; None: the node ends."""
    begin_counting(config, "clock")
    audit.begin(config, catalog)
    trail.note(messages.activity, time.time(), started=True)
    audit.noted_configuration(config, path)
    sender = audit.Sender(config, catalog)
    queue = Queue(config)
    housekeeping = Housekeeping(config, catalog, queue)
    retraining = Retraining(path)
    if config.retraining.schedule:
        housekeeping.add(retraining.begin, trigger(config.retraining.schedule))
    monitoring = BackgroundCommand(path, "monitor", "model monitoring")
    if config.registry.record and config.registry.monitor:
        housekeeping.add(monitoring.begin, trigger(config.registry.monitor, "registry.monitor"))
    workers = [
        Child(f"worker-{i}", ["work", "--config", str(path), "--index", str(i)]) for i in range(config.worker.processes)
    ]
    watched = [Child("monitoring", ["monitor", "--config", str(path)])] if config.monitoring.port else []
    if config.console.enabled:
        watched.append(Child("console", ["console", "serve", "--config", str(path)]))
    for child in (*workers, *watched):
        child.start()
    alerts, teller = Alerts(config, catalog, [*receivers, *workers]), AlertSender(config, catalog)
    for tick in (alerts.look_at_node, alerts.ask_peers, alerts.look_at_database):
        housekeeping.add(tick, IntervalTrigger(seconds=config.alerts.every_s))
    housekeeping.start()
    sender.start()
    teller.start()
    following: Config | None = None
    try:
        while following is None and not stop.wait(_LOOK_S):
            for child in (*receivers, *workers, *watched):
                child.watch()
            leaving[:] = [child for child in leaving if not child.has_left()]
            for child in leaving[:-_MOST_LEAVING]:
                child.terminate()
            if reload.taken():
                following = _reloaded(config, path, receivers, leaving, stop)
    finally:
        log.info("draining" if following is None else "draining, to go on with the changed configuration")
        housekeeping.stop()
        retraining.stop()
        monitoring.stop()
        teller.stop()
        # The receivers go on: who sends is not turned away while an analysis ends.
        drain([*workers, *watched], config.worker.drain_s)
        queue.close()
        trail.note(messages.activity, time.time(), started=False)
        sender.stop()
        trail.begin(None)
    return following


def _reloaded(
    config: Config, path: Path, receivers: list[Child], leaving: list[Child], stop: threading.Event
) -> Config | None:
    """Return the changed configuration, once new receivers listen by it; None where all stays as it is."""
    changed = reloading.changed(config, path)
    if changed is None:
        return None
    started = _start_receivers(path, range(changed.node.receivers))
    deadline = time.monotonic() + _LISTENING_S
    if not all(child.tells_before(deadline, stop) for child in started):
        if not stop.is_set():
            log.error("not reloaded: the receivers do not start with the changed configuration; all stays as it was")
        drain(started, 0.0)
        return None
    for child in receivers:
        child.leave()
    leaving += receivers
    receivers[:] = started
    log.info("reloaded %s", path)
    return changed


def _open(config: Config) -> Catalog:
    try:
        return Catalog.open(config.catalog_url, config.storage.state)
    except DatabaseError:
        DatabaseAway(config).is_away()  # started again and again, the node tells it in the end
        raise


def drain(children: Sequence[Child], drain_s: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that are still there after `drain_s` and a little."""
    deadline = time.monotonic() + drain_s + _AFTER_DRAIN_S
    for child in children:
        child.terminate()
    for child in children:
        child.stop(max(0.0, deadline - time.monotonic()))
