"""The node's start after a power cut: first the spool is compared, then the ticks begin."""

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicomnode import config
from dicomnode.errors import DatabaseError
from dicomnode.network import file_meta
from dicomnode.reception.spooled import read_instance
from dicomnode.service.clock import Housekeeping, _guarded
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.spool import Spool
from dicomnode.workflows.queue import Queue
from tests.helpers.scanners import ct
from tests.helpers.waiting import until


class NoQueue:
    def enqueue(self, _study_uid: str, _generation: int) -> None:
        """Nobody takes it."""


def spooled(spool: Spool, number: int) -> Instance:
    dataset = ct(number)
    data = encode(dataset, False, True)
    assert data is not None
    meta = file_meta.encode(dataset.SOPClassUID, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
    stored = spool.store("1.2", "1.2.3", dataset.SOPInstanceUID, meta, data)
    return read_instance(stored.path)


def test_nothing_settles_before_lost_rows_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row of a study whose association was released is gone; and the first two comparisons fail."""
    monkeypatch.setattr("dicomnode.reception.reconcile._SETTLED_S", 0.0)
    (tmp_path / "ae_config.toml").write_text("[settle]\nrelease_s = 0\nquiet_s = 3600\ntick_s = 0.05\n")
    settings = config.load(tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    catalog, spool = Catalog.open(settings.catalog_url, settings.storage.state), Spool(settings.storage.spool)
    association = catalog.begin_association("run", "A", "B", "127.0.0.1", time.time())
    for number in (1, 2, 3):
        one = spooled(spool, number)
        keyed = catalog.patient_key.keyed(one.patient_hash)
        catalog.record(replace(one, patient_hash=keyed, association_id=association))
    spooled(spool, 4)
    catalog.end_association(association, "released", time.time())

    ticks = Housekeeping(settings, catalog, cast(Queue, NoQueue()))
    compare, failures = ticks.compare_spool, iter((True, True))
    failed = threading.Semaphore(0)
    go_on = threading.Event()

    def fails_twice() -> None:
        if next(failures, False):
            failed.release()
            raise DatabaseError("the database is not there yet")
        go_on.wait(60)
        compare()

    monkeypatch.setattr(ticks, "compare_spool", fails_twice)
    ticks.start()
    try:
        assert failed.acquire(timeout=240)
        assert failed.acquire(timeout=240)
        assert catalog.job("1.2", 1) is None
        go_on.set()
        until("a job made", lambda: catalog.job("1.2", 1) is not None, 10)
        assert [one.sop_instance_uid for one in catalog.instances("1.2")] == [f"1.2.3.{n}" for n in (1, 2, 3, 4)]
        study = catalog.study("1.2")
        assert study is not None
        assert (study.generation, study.instances, study.state) == (1, 4, "queued")
    finally:
        ticks.stop()
        catalog.close()


def test_before_the_first_worker_the_queue_is_said_to_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config.parse({}, tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    catalog, queue = Catalog.open(settings.catalog_url, settings.storage.state), Queue(settings)
    try:
        assert not _guarded(Housekeeping(settings, catalog, queue).reconcile)()
    finally:
        queue.close()
        catalog.close()
    assert "reconcile postponed: the queue does not exist yet" in caplog.text


def test_while_the_database_is_away_ticks_are_left_out_more_and_more() -> None:
    now, asked = [0.0], []

    def tick() -> None:
        asked.append(now[0])
        if now[0] < 300:
            raise DatabaseError("away")

    guarded = _guarded(tick, lambda: now[0])
    for now[0] in range(600):
        guarded()
    away = [at for at in asked if at < 300]
    assert len(away) < 70  # of 300
    assert all(later - earlier <= 11 for earlier, later in itertools.pairwise(away))
    assert asked[-200:] == list(range(400, 600))  # and at every tick once it is back


@pytest.mark.timeout(60)
def test_a_node_that_is_stopped_while_it_starts_ends(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text("[settle]\ntick_s = 0.05\n")
    settings = config.load(tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    for _ in range(20):
        ticks = Housekeeping(settings, catalog, cast(Queue, NoQueue()))
        ticks.start()
        ticks.stop()
    catalog.close()
