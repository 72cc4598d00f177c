"""The workflow engine of a worker: start it with its queues, and stop it. Whoever imports this has every workflow."""

from collections.abc import Iterator
from typing import Any

from dbos import DBOS, DBOSConfig

from dicomnode.config import Config
from dicomnode.store.catalog.database import make_private
from dicomnode.workflows import deliver, fetch, notify, route, study, worker
from dicomnode.workflows.calls import (
    FETCH_QUEUE,
    PREFETCH_QUEUE,
    ROUTE_QUEUE,
    STUDY_QUEUE,
    delivery_queue,
    notify_queue,
)
from dicomnode.workflows.queue import POLL_S, SLOW_POLL_S, UNUSED_POLL_S, WORKFLOW_VERSION
from dicomnode.workflows.serializer import install
from dicomnode.workflows.worker import Work

#: Importing a module registers its workflows; this worker runs these.
WORKFLOWS = (study.study, route.route, deliver.deliver, fetch.prefetch_patient, fetch.fetch, notify.notify)


def start(work: Work, executor_id: str) -> None:
    """Start taking work from the queues, and take up again what this executor had begun before it was killed."""
    worker.begin(work)
    if not work.config.storage.database_url:
        make_private(str(work.config.storage.state / "queue.sqlite"))
    settings: DBOSConfig = {
        "name": "dicomnode",
        "system_database_url": work.config.queue_url,
        "application_version": WORKFLOW_VERSION,
        "executor_id": executor_id,
        "enable_otlp": False,
        "log_level": "WARNING",
        "serializer": install(),
    }
    DBOS(config=settings)
    DBOS.launch()
    for name, poll_s, options in _queues(work.config):
        DBOS.register_queue(name, polling_interval_sec=poll_s, on_conflict="always_update", **options)


def _queues(config: Config) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Each queue, how often a worker looks into it, and its limits."""
    yield STUDY_QUEUE, POLL_S, {"worker_concurrency": config.worker.concurrency}
    table = config.priors
    priors_s = UNUSED_POLL_S if table is None else SLOW_POLL_S
    yield PREFETCH_QUEUE, priors_s, {"global_concurrency": 1}
    limiter = None if table is None else {"limit": table.studies_per_hour, "period": 3600.0}
    yield FETCH_QUEUE, priors_s, {"global_concurrency": 1, "limiter": limiter}
    yield ROUTE_QUEUE, POLL_S if config.routes_studies else UNUSED_POLL_S, {"worker_concurrency": 1}
    for to in config.notify:
        yield notify_queue(to.name), SLOW_POLL_S, {"global_concurrency": 1}
    for d in config.destination:
        yield delivery_queue(d.name), POLL_S, {"global_concurrency": d.concurrency}


def stop(drain_s: float) -> None:
    """Stop taking work; what still runs after `drain_s` seconds is taken up again at the next start."""
    DBOS.destroy(workflow_completion_timeout_sec=int(drain_s))
