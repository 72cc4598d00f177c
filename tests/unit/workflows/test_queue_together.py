"""Several places in the queue by one transaction, on each database."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbos import run_dbos_database_migrations
from pydicom.uid import generate_uid

from dicomnode import config
from dicomnode.workflows.queue import Queue
from tests.helpers.databases import fresh_url


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    path = tmp_path / "ae_config.toml"
    path.write_text("")
    if request.param == "postgresql":
        url = fresh_url("postgresql", tmp_path, lambda: request.getfixturevalue("postgresql_server"))
        # As most people write it: without a driver.
        path.write_text(f"[storage]\ndatabase_url = {json.dumps(url.replace('postgresql+psycopg:', 'postgresql:'))}\n")
    loaded = config.load(path)
    loaded.storage.state.mkdir(parents=True)
    run_dbos_database_migrations(system_database_url=loaded.queue_url)
    made = Queue(loaded)
    yield made
    made.close()


def test_all_of_them_are_queued_at_its_end(queue: Queue) -> None:
    uids = [generate_uid() for _ in range(3)]  # the queue's tables are one server's, whatever the schema
    with queue.together() as one:
        ids = [one.enqueue(uid, 1, again=True) for uid in uids]
        assert not queue.is_live(uids[0], 1)
    assert ids == [f"study/{uid}/1/1" for uid in uids]
    assert all(queue.is_live(uid, 1) for uid in uids)
    assert queue.enqueue(uids[0], 1, again=True) == f"study/{uids[0]}/1/2"


def test_what_is_broken_off_queues_nothing(queue: Queue) -> None:
    uid = generate_uid()
    with pytest.raises(KeyboardInterrupt), queue.together() as one:
        one.enqueue(uid, 1)
        raise KeyboardInterrupt
    assert not queue.is_live(uid, 1)
