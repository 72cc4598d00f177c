"""What `/metrics` tells: the processes' counters added up, and figures of the catalogue at the moment of asking.

Every figure of the catalogue comes by an index. How long each stage takes is read from the steps that jobs have made
since the last look, so it is counted from the start of this process, as Prometheus expects of counters.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.errors import SpoolError
from dicomnode.metrics import counters
from dicomnode.monitoring.readiness import folders
from dicomnode.monitoring.traces import Traces
from dicomnode.network.certificates import inspect
from dicomnode.registry.latest_look import latest
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import JobState
from dicomnode.workflows.queue import WORKFLOW_VERSION

log = logging.getLogger(__name__)

#: One that asks more often gets the page of before.
_FRESH_S = 1.0
_STEPS_AT_ONCE = 5_000
#: A transaction may become visible behind later ones: so many steps back are looked at again.
_OVERLAP = 500
_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_STAGE = {
    ("", "queued"): "settle", ("", "held"): "settle", ("queued", "running"): "queue",
    ("running", "analysed"): "analysis",
    ("running", "refused"): "analysis", ("running", "failed"): "analysis", ("analysed", "delivered"): "delivery",
    ("analysed", "committed"): "delivery", ("routed", "delivered"): "delivery", ("routed", "committed"): "delivery",
    ("delivered", "committed"): "commitment",
}  # fmt: skip


class Metrics:
    """The page of figures. For one thread at a time."""

    def __init__(
        self, config: Config, folder: Path, catalog: Callable[[], Catalog], traces: Traces | None = None
    ) -> None:
        """Begin to count.

        Args:
            config: the node's.
            folder: of the processes' counters.
            catalog: opens the catalogue, or returns the open one.
            traces: is told of each step of a job.
        """
        self._config, self._folder, self._catalog, self._traces = config, folder, catalog, traces
        self._page, self._page_at = b"", 0.0
        self._seen: set[int] = set()
        self._newest: int | None = None
        self._steps = CollectorRegistry()
        self._outcomes = Counter("dicomnode_jobs", "Jobs that came to this state.", ["state"], registry=self._steps)
        self._stages = Histogram(
            "dicomnode_stage_seconds",
            "How long a stage took: settle (since the last image), queue, analysis, delivery, commitment.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._steps,
        )
        # With 0 from the beginning: Prometheus sees no increase in a figure that comes with it.
        for state in get_args(JobState):
            self._outcomes.labels(state)
        for stage in dict.fromkeys(_STAGE.values()):
            self._stages.labels(stage)

    def page(self) -> bytes:
        """Return the page in Prometheus' text format."""
        now = time.monotonic()
        if now - self._page_at >= _FRESH_S or not self._page:
            counters.forget_dead(self._folder)
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self._folder))
            registry.register(_Figures(self))
            self._page, self._page_at = generate_latest(registry) + generate_latest(self._steps), now
        return self._page

    def follow(self) -> None:
        """Look at the steps of jobs between two pages, so that a trace needs nobody who asks. Raises SpoolError."""
        self._follow(self._catalog())

    def figures(self) -> Iterator[Metric]:
        """Yield what is looked at now."""
        config = self._config
        build = {"version": __version__, "workflows": WORKFLOW_VERSION, "node": config.node.ae_title}
        yield InfoMetricFamily("dicomnode_build", "This node.", build)
        yield InfoMetricFamily(
            "dicomnode_bundle",
            "The model that is served.",
            {"bundle": config.analysis.bundle, "candidate": config.analysis.shadow_bundle},
        )
        yield from self._disk()
        yield from self._certificates()
        yield from self._model()
        up = GaugeMetricFamily("dicomnode_database_up", "Whether the catalogue answers.")
        try:
            found = list(self._of_catalog(self._catalog()))
            self._follow(self._catalog())
        except SpoolError as error:
            log.warning("no figures of the catalogue: %s", error)
            found = []
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
        yield up
        yield from found

    def _disk(self) -> Iterator[Metric]:
        free = GaugeMetricFamily("dicomnode_disk_free_bytes", "Free space of the disk.", labels=["folder"])
        size = GaugeMetricFamily("dicomnode_disk_size_bytes", "Size of the disk.", labels=["folder"])
        for name, path in folders(self._config).items():
            try:
                usage = shutil.disk_usage(path)
            except OSError:
                continue  # `/ready` says so
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        least = GaugeMetricFamily(
            "dicomnode_disk_minimum_bytes",
            "Below this much free space images are refused.",
            self._config.storage.minimum_free_gb * 1e9,
        )
        yield from (free, size, least)

    def _certificates(self) -> Iterator[Metric]:
        days = GaugeMetricFamily(
            "dicomnode_certificate_days", "Days until a certificate or a list ends.", labels=["file"]
        )
        now = datetime.now(UTC)
        until: dict[str, datetime] = {}
        for files in self._config.all_tls_files:
            for one in inspect(files, now):
                if one.until is not None:
                    until[str(one.path)] = min(one.until, until.get(str(one.path), one.until))
        for path, end in until.items():
            days.add_metric([path], (end - now).total_seconds() / 86_400)
        yield days

    def _model(self) -> Iterator[Metric]:
        """Yield what the last `registry monitor` found: no patient, counts alone."""
        found = latest(self._config) if self._config.registry.record else None
        if found is None:
            return
        scans = GaugeMetricFamily("dicomnode_model_month_scans", "Scans recorded this month.", found["month_scans"])
        drift = GaugeMetricFamily(
            "dicomnode_model_drift", "Whether an input of the model, or its risk, has changed.", labels=["input"]
        )
        raised: dict[str, bool] = {}
        for row in found["drift"]:
            raised[row["name"]] = raised.get(row["name"], False) or row["raised"]
        for name, is_raised in raised.items():
            drift.add_metric([name], is_raised)
        ratio = GaugeMetricFamily(
            "dicomnode_model_observed_expected", "Observed over expected deaths by the horizon.", labels=["years"]
        )
        for one in found["outcomes"]:
            if one["ratio"] is not None:
                ratio.add_metric([str(one["years"])], one["ratio"])
        yield from (scans, drift, ratio)
        if found["month_outside"] is not None:
            yield GaugeMetricFamily(
                "dicomnode_model_month_outside",
                "Of these, scans outside the population that the model was made on.",
                found["month_outside"],
            )

    def _of_catalog(self, catalog: Catalog) -> Iterator[Metric]:
        now = time.time()
        states = GaugeMetricFamily("dicomnode_studies", "Studies by their state.", labels=["state"])
        for state, count in catalog.count_studies().items():
            states.add_metric([state], count)
        yield states
        length = GaugeMetricFamily("dicomnode_queue_length", "Studies that wait for analysis.", labels=["priority"])
        age = GaugeMetricFamily(
            "dicomnode_queue_oldest_seconds", "How long the first of them has waited.", labels=["priority"]
        )
        for waiting in catalog.queued_by_priority():
            length.add_metric([waiting.priority], waiting.count)
            age.add_metric([waiting.priority], max(0.0, now - waiting.since))
        yield from (length, age)
        yield from self._deliveries(catalog, now)
        beat = GaugeMetricFamily(
            "dicomnode_worker_heartbeat_age_seconds", "Since the worker showed itself.", labels=["worker"]
        )
        for worker in catalog.workers("alive"):
            beat.add_metric([worker.name], max(0.0, now - worker.beat_at))
        yield beat
        yield GaugeMetricFamily(
            "dicomnode_audit_waiting", "Audit messages that wait for their server.", catalog.audit_waiting_count()
        )

    def _deliveries(self, catalog: Catalog, now: float) -> Iterator[Metric]:
        found = {(d.destination, d.state): d for d in catalog.open_deliveries()}
        open_ = GaugeMetricFamily(
            "dicomnode_deliveries_open", "Objects that have not arrived.", labels=["destination", "state"]
        )
        retried = GaugeMetricFamily(
            "dicomnode_deliveries_retrying", "Pending objects that were tried in vain.", labels=["destination"]
        )
        oldest = GaugeMetricFamily(
            "dicomnode_delivery_oldest_seconds", "Since the first pending object was touched.", labels=["destination"]
        )
        named = [d.name for d in self._config.destination]
        for name in dict.fromkeys([*named, *(destination for destination, _ in found)]):
            for state in ("pending", "failed", "rejected"):
                of = found.get((name, state))
                open_.add_metric([name, state], of.count if of else 0)
            pending = found.get((name, "pending"))
            retried.add_metric([name], pending.retried if pending else 0)
            oldest.add_metric([name], max(0.0, now - pending.since) if pending else 0.0)
        yield from (open_, retried, oldest)

    def _follow(self, catalog: Catalog) -> None:
        """Count the steps that jobs have made since the last look."""
        if self._newest is None:
            self._newest = catalog.newest_step()
            # What stands there already happened before this process counted.
            self._seen = set(range(max(0, self._newest - _OVERLAP), self._newest + 1))
            return
        while True:
            steps = catalog.steps_after(self._newest - _OVERLAP, _STEPS_AT_ONCE)
            new = [step for step in steps if step.id not in self._seen]
            for step in new:
                self._seen.add(step.id)
                self._outcomes.labels(step.state).inc()
                stage = _STAGE.get((step.before, step.state))
                if stage is not None:
                    self._stages.labels(stage).observe(step.seconds)
                if self._traces is not None:
                    self._traces.step(catalog, step)
            self._newest = max([self._newest, *(step.id for step in steps)])
            self._seen = {number for number in self._seen if number >= self._newest - _OVERLAP}
            if len(steps) < _STEPS_AT_ONCE:
                return


class _Figures(Collector):
    """As prometheus_client's registry asks for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield what is looked at now."""
        yield from self._metrics.figures()
