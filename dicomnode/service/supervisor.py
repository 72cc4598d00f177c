"""`serve`: the receiver and the workers in processes of their own, the clock in this one; drained on SIGTERM.

    serve ──┬── receivers   pynetdicom, spool, catalogue: no torch, so that they stay small and always answer
            ├── workers     the analysis and the deliveries
            └── the clock   settle, reconcile

A child that dies is started again, later and later while it keeps dying. A child whose parent dies sees its standard
input close and drains too: nothing is left behind holding the port.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode import logs
from dicomnode.audit import messages, trail
from dicomnode.config import Config
from dicomnode.metrics import counters
from dicomnode.registry.retraining import Retraining, trigger
from dicomnode.retry import backoff_s
from dicomnode.service import audit
from dicomnode.service.clock import Housekeeping
from dicomnode.service.processes import begin_counting, prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows.queue import Queue

log = logging.getLogger(__name__)

#: A child that ends with one of these will not do better by being started again at once: configuration, bundle,
#: weights.
_NEEDS_A_PERSON = (2, 4)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: What a child needs beyond `worker.drain_s`, to close its connections.
_AFTER_DRAIN_S = 5.0


@dataclass
class Child:
    """A supervised process."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = field(default=0.0)
    start_again_at: float = field(default=0.0)

    def start(self) -> None:
        """Start the process; its standard input is the line by which it notices that we are gone."""
        command = [sys.executable, "-m", "dicomnode", *self.arguments, "--supervised"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        logs.pass_on(self.process.stderr, self.name)
        self.started_at = time.monotonic()
        log.info("%s started as process %d", self.name, self.process.pid)

    def watch(self) -> None:
        """Start the process again if it has ended, after a pause that grows while it keeps failing."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_again_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            if self.failures and now - self.started_at > _LONGEST_PAUSE_S:
                self.failures = 0
            return
        self.failures += 1
        # By its process too: the workers of several machines that have lost one database bear the same names.
        pause = backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, self.failures, f"{self.name} {self.process.pid}")
        if code in _NEEDS_A_PERSON:
            pause = _LONGEST_PAUSE_S
        what = f"signal {-code}" if code < 0 else f"exit status {code}"
        log.error("%s ended with %s; restarting in %.0f s", self.name, what, pause)
        self._close()
        self.start_again_at = now + pause

    def stop(self, wait_s: float) -> None:
        """SIGTERM, then SIGKILL after `wait_s` seconds: what is killed is taken up again at the next start."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not finish within %.0f s, killing it", self.name, wait_s)
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def serve(config: Config, path: Path, stop: threading.Event) -> None:
    """Run the node until `stop` is set. `path` is the configuration file, which the children read for themselves."""
    prepare_folders(config)
    if config.counters_folder is not None:
        # Prometheus expects the counters to begin anew with the node.
        counters.forget_dead(config.counters_folder, counted=True)
    begin_counting(config, "clock")
    catalog = Catalog.open(config.catalog_url, config.storage.state)
    audit.begin(config, catalog)
    trail.note(messages.activity, time.time(), started=True)
    audit.noted_configuration(config, path)
    sender = audit.Sender(config, catalog)
    queue = Queue(config)
    housekeeping = Housekeeping(config, catalog, queue)
    retraining = Retraining(path)
    if config.retraining.schedule:
        housekeeping.add(retraining.begin, trigger(config.retraining.schedule))
    receivers = [Child(f"receiver-{i}", ["receive", "--config", str(path)]) for i in range(config.node.receivers)]
    workers = [
        Child(f"worker-{i}", ["work", "--config", str(path), "--index", str(i)]) for i in range(config.worker.processes)
    ]
    watched = [Child("monitoring", ["monitor", "--config", str(path)])] if config.monitoring.port else []
    children = [*receivers, *workers, *watched]
    for child in children:
        child.start()
    housekeeping.start()
    sender.start()
    try:
        while not stop.wait(0.2):
            for child in children:
                child.watch()
    finally:
        log.info("draining")
        housekeeping.stop()
        retraining.stop()
        drain(children, config.worker.drain_s)
        queue.close()
        trail.note(messages.activity, time.time(), started=False)
        sender.stop()
        trail.begin(None)
        catalog.close()
        log.info("stopped")


def drain(children: Sequence[Child], drain_s: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that are still there after `drain_s` and a little."""
    deadline = time.monotonic() + drain_s + _AFTER_DRAIN_S
    for child in children:
        if child.process is not None:
            child.process.terminate()
    for child in children:
        child.stop(max(0.0, deadline - time.monotonic()))
