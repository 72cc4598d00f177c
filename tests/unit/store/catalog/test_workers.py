"""Heartbeats, leases, and what a worker that was declared dead can still do: nothing."""

import time
from dataclasses import replace
from typing import NoReturn

import pytest
from sqlalchemy import update

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.tables import workers
from dicomnode.store.records import BEING_SENT, Instance


@pytest.fixture
def catalog(catalog: Catalog) -> Catalog:
    """With one study, settled and to be delivered."""
    catalog.record(Instance("1.2.3.1", "1.9", "1.2", "1.2.3", "/x", "0" * 64, 1, 100.0, None, "a" * 64))
    catalog.settle("1.2", 110.0, held=None)
    catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", "2.5", "/out", now=120.0)
    return catalog


class LeaseLostError(Exception):
    """What the worker's process does not survive."""


def lost() -> NoReturn:
    raise LeaseLostError


def grow_old(catalog: Catalog, seconds: float) -> None:
    with catalog._engine.begin() as connection:
        connection.execute(update(workers).values(beat_at=workers.c.beat_at - seconds))


def test_the_databases_clock_is_the_time(catalog: Catalog) -> None:
    catalog.register_worker("a", "1")
    (worker,) = catalog.workers()
    assert worker.beat_at == pytest.approx(time.time(), abs=60)


def test_a_silent_worker_is_declared_dead_once_and_told_until_its_work_has_moved(catalog: Catalog) -> None:
    a, b = catalog.register_worker("a", "1"), catalog.register_worker("b", "1")
    assert catalog.declare_dead(5.0) == []
    grow_old(catalog, 10.0)
    assert catalog.beat(b)
    assert catalog.declare_dead(5.0) == ["a"]
    assert catalog.declare_dead(5.0) == ["a"]  # whoever should have moved its work may have died before it did
    catalog.mark_reassigned("a")
    assert catalog.declare_dead(5.0) == []
    assert not catalog.beat(a)
    assert [(w.name, w.state) for w in catalog.workers()] == [("a", "gone"), ("b", "alive")]
    assert [w.name for w in catalog.workers("alive")] == ["b"]


def test_a_worker_that_comes_back_can_write_and_send_nothing(catalog: Catalog) -> None:
    leased = catalog.leased(catalog.register_worker("a", "1"), lost)
    (delivery,) = catalog.deliveries("1.2", 1)
    assert leased.may_send(delivery)
    grow_old(catalog, 10.0)
    catalog.declare_dead(5.0)
    with pytest.raises(LeaseLostError):
        leased.may_send(delivery)
    with pytest.raises(LeaseLostError):
        leased.set_state("1.2", 1, "analysed", now=200.0)
    with pytest.raises(LeaseLostError):
        leased.mark_delivery("1.2", 1, "pacs", "seg", "delivered", status=0, text=None, attempts=1, now=200.0)
    job = catalog.job("1.2", 1)
    assert job is not None
    assert job.state == "queued"
    assert catalog.deliveries("1.2", 1) == [replace(delivery, text=BEING_SENT)]


def test_a_new_worker_of_the_same_name_ends_the_lease_of_the_old_one(catalog: Catalog) -> None:
    old = catalog.register_worker("a", "1")
    new = catalog.register_worker("a", "2")
    assert not catalog.beat(old)
    assert catalog.beat(new)
    grow_old(catalog, 10.0)
    catalog.declare_dead(5.0)
    again = catalog.register_worker("a", "2")
    assert catalog.beat(again)
    assert catalog.declare_dead(5.0) == []
    (worker,) = catalog.workers()
    assert (worker.state, worker.version, worker.epoch) == ("alive", "2", 4)


def test_a_lease_that_was_given_back_is_neither_alive_nor_dead(catalog: Catalog) -> None:
    lease = catalog.register_worker("a", "1")
    assert catalog.give_back(lease)
    assert not catalog.give_back(lease)
    assert not catalog.beat(lease)
    grow_old(catalog, 1000.0)
    assert catalog.declare_dead(5.0) == []
    assert catalog.workers("alive") == []
    with pytest.raises(LeaseLostError):
        catalog.leased(lease, lost).set_state("1.2", 1, "analysed", now=200.0)
    assert catalog.beat(catalog.register_worker("a", "1"))
