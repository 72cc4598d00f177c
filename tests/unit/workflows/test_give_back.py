"""A worker that is stopped leaves its work to others at once, and nobody takes it for dead."""

from pathlib import Path

from dbos import run_dbos_database_migrations
from sqlalchemy import create_engine, text

from dicomnode import config
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows import worker
from dicomnode.workflows.calls import STUDY_QUEUE, study_call
from dicomnode.workflows.queue import WORKFLOW_VERSION, Queue


def test_the_lease_ends_and_what_was_begun_is_queued_again(tmp_path: Path) -> None:
    settings = config.parse({}, tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    run_dbos_database_migrations(system_database_url=settings.queue_url)
    catalog, queue = Catalog.open(settings.catalog_url, settings.storage.state), Queue(settings)
    engine = create_engine(settings.queue_url)
    try:
        lease = catalog.register_worker("host-0", WORKFLOW_VERSION)
        queue._enqueue(study_call("1.2", 1, 1))
        queue._enqueue(study_call("1.3", 1, 1))
        with engine.begin() as connection:  # as the engine notes what it has begun
            begun = "UPDATE workflow_status SET status = 'PENDING', executor_id = 'host-0' WHERE workflow_uuid = :one"
            connection.execute(text(begun), {"one": "study/1.2/1/1"})
        assert worker.give_back(settings, catalog, lease) == 1
        assert worker.give_back(settings, catalog, lease) == 0
        assert [w.state for w in catalog.workers()] == ["gone"]
        assert catalog.declare_dead(0.0) == []
        with engine.begin() as connection:
            rows = connection.execute(text("SELECT DISTINCT status, queue_name FROM workflow_status")).all()
        assert [tuple(row) for row in rows] == [("ENQUEUED", STUDY_QUEUE)]
    finally:
        engine.dispose()
        queue.close()
        catalog.close()


def test_a_worker_whose_lease_was_taken_gives_nothing_back(tmp_path: Path) -> None:
    settings = config.parse({}, tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    old = catalog.register_worker("host-0", WORKFLOW_VERSION)
    catalog.register_worker("host-0", WORKFLOW_VERSION)
    assert worker.give_back(settings, catalog, old) == 0
    assert [w.state for w in catalog.workers()] == ["alive"]
    catalog.close()
