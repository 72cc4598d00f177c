"""The catalogue at size: 100,000 studies, on SQLite and PostgreSQL.

    python -m tests.benchmarks.catalog [--studies 100000]

Measured, the median of several: a settle tick with nothing to do and one that settles a study; `jobs list`; a page of
what retention may release; recording an image; and the time from enqueueing a study until its workflow begins.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from dbos import DBOS
from sqlalchemy import insert

from dicomnode import config
from dicomnode.operations import jobs
from dicomnode.service.clock import Housekeeping
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.tables import deliveries, instances, studies
from dicomnode.store.catalog.tables import jobs as jobs_table
from dicomnode.store.records import Instance
from dicomnode.workflows.calls import STUDY_QUEUE
from dicomnode.workflows.queue import POLL_S, WORKFLOW_VERSION, Queue
from tests.helpers.databases import PostgreSQL
from tests.helpers.prerequisites import check_or_exit

_REPEATS = 7
_BATCH = 2000
_NOW = 1_800_000_000.0


def fill(catalog: Catalog, count: int) -> None:
    """Studies that were delivered, with four images and three deliveries each."""
    with catalog._engine.begin() as connection:
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            connection.execute(insert(studies), [_study(n) for n in numbers])
            connection.execute(insert(jobs_table), [_job(n) for n in numbers])
            connection.execute(insert(instances), [_instance(n, i) for n in numbers for i in range(4)])
            connection.execute(
                insert(deliveries), [_delivery(n, o) for n in numbers for o in ("seg", "risk", "summary")]
            )


def _study(n: int) -> dict[str, object]:
    return {
        "study_uid": f"1.2.{n}",
        "generation": 1,
        "state": "delivered",
        "first_seen": _NOW - n,
        "last_seen": _NOW - n,
        "instances": 4,
    }


def _job(n: int) -> dict[str, object]:
    return {
        "study_uid": f"1.2.{n}",
        "generation": 1,
        "state": "delivered",
        "reason": None,
        "created_at": _NOW - n,
        "updated_at": _NOW - n,
    }


def _instance(n: int, i: int) -> dict[str, object]:
    uid = f"1.2.{n}.{i}"
    return vars(
        Instance(uid, "1.9", f"1.2.{n}", f"1.2.{n}.9", f"/spool/{uid}", "0" * 64, 500_000, _NOW - n, None, "a" * 64)
    )


def _delivery(n: int, name: str) -> dict[str, object]:
    return {
        "study_uid": f"1.2.{n}",
        "generation": 1,
        "destination": "pacs",
        "object": name,
        "sop_class_uid": "1.9",
        "sop_instance_uid": f"2.25.{n}.{len(name)}",
        "path": "/results/x.dcm",
        "state": "delivered",
        "status": 0,
        "text": "stored",
        "attempts": 1,
        "updated_at": _NOW - n,
        "commitment": False,
    }


def timed(call: Callable[[], object]) -> float:
    """Milliseconds, the median of several."""
    taken = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return median(taken)


def measure(settings: config.Config, count: int) -> dict[str, float]:
    """Milliseconds by what was measured."""
    catalog, queue = Catalog.open(settings.catalog_url, settings.storage.state), Queue(settings)
    fill(catalog, count)
    clock = Housekeeping(settings, catalog, queue, clock=lambda: _NOW + 1e6)
    clock._since = 0.0
    numbers = iter(range(10**6))

    def image() -> None:
        n = next(numbers)
        instance = _instance(count, n)
        catalog.record(Instance(**(instance | {"study_uid": f"1.3.{n}", "sop_instance_uid": f"1.3.{n}.1"})))  # type: ignore[arg-type]

    found = {"settle tick, nothing to do": timed(clock.settle)}
    begun = _start_worker(settings)
    try:
        found["recording an image"] = timed(image)
        found["settle tick that settles a study"] = timed(lambda: (image(), clock.settle()))
        found["`jobs list` of 50"] = timed(lambda: jobs.overview(settings, None, 50))
        found["`jobs list --state failed`"] = timed(lambda: jobs.overview(settings, "failed", 50))
        found["what retention may release"] = timed(lambda: catalog.releasable(_NOW + 1e6, 86400 * 365))
        found["from enqueueing to the workflow's start"] = timed(lambda: _until_begun(queue, next(numbers), begun))
    finally:
        DBOS.destroy()
        queue.close()
        catalog.close()
    return found


def _start_worker(settings: config.Config) -> dict[str, threading.Event]:
    """A worker whose study workflow only says that it has begun: the analysis is not what is measured."""
    begun: dict[str, threading.Event] = {}

    @DBOS.workflow(name="study")
    def study(study_uid: str, generation: int, run: int) -> str:
        event = begun.get(study_uid)
        if event is not None:
            event.set()
        return "begun"

    DBOS(
        config={
            "name": "dicomnode",
            "system_database_url": settings.queue_url,
            "application_version": WORKFLOW_VERSION,
            "executor_id": "benchmark",
            "enable_otlp": False,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    DBOS.register_queue(STUDY_QUEUE, worker_concurrency=1, polling_interval_sec=POLL_S, on_conflict="always_update")
    return begun


def _until_begun(queue: Queue, number: int, begun: dict[str, threading.Event]) -> None:
    uid = f"1.4.{number}"
    event = begun[uid] = threading.Event()
    queue.enqueue(uid, 1)
    if not event.wait(30):
        raise TimeoutError("the workflow did not begin within 30 s")


def main() -> int:
    """The command line; exit status 1 where anything takes a second or more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="one of them; without it, both in turn")
    given = parser.parse_args()
    check_or_exit(programs=[("initdb", "postgresql")] if given.database != "sqlite" else [])
    if given.database is None:
        import subprocess

        # One process for each: DBOS keeps one database in a process.
        command = [sys.executable, "-m", "tests.benchmarks.catalog", "--studies", str(given.studies), "--database"]
        return max(subprocess.run([*command, name], check=False).returncode for name in ("sqlite", "postgresql"))
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as temporary:
        folder = Path(temporary)
        server = PostgreSQL(folder / "pg").start() if given.database == "postgresql" else None
        url = "" if server is None else server.url
        settings = config.parse({"storage": {"database_url": url}}, folder / "ae_config.toml")
        prepare_folders(settings)
        try:
            found = measure(settings, given.studies)
        finally:
            if server is not None:
                server.stop()
    for what, milliseconds in found.items():
        print(f"{given.database:10}  {what:42}  {milliseconds:8.1f} ms")
    return 1 if max(found.values()) >= 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
