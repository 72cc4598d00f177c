"""Prior scans and orders in the catalogue, on both databases."""

from dataclasses import replace

import pytest

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order
from dicomnode.store.catalog.priors import Prior, PriorState
from dicomnode.store.records import Instance, JobState

ANNA, HERE, THERE = "a" * 32, "1" * 32, "2" * 32
WANTED = Prior("1.9", ANNA, "m" * 64, ("1.9.1", "1.9.2"), "wanted", None, 1000.0)


def study(catalog: Catalog, uid: str, state: JobState, patient: str = ANNA) -> None:
    catalog.record(Instance(uid, "1.2", uid, f"{uid}.1", f"/{uid}", uid, 1, 1.0, None, patient))
    generation = catalog.settle(uid, 1.0, None).generation
    if state != "queued":
        catalog.set_state(uid, generation, state, now=2.0)


@pytest.mark.parametrize(
    ("state", "later_s", "method", "again"),
    [
        ("wanted", 10.0, "m", False),
        ("fetching", 10_000.0, "m", False),
        ("fetched", 10.0, "m", False),
        ("fetched", 10_000.0, "m", True),  # it was fetched and never came
        ("refused", 10.0, "m", True),  # somebody may have told the PACS about us
        ("failed", 10.0, "m", True),
        ("fetched", 10.0, "n", True),  # another method wants it analysed once more
    ],
)
def test_wanted_once(catalog: Catalog, state: PriorState, later_s: float, method: str, again: bool) -> None:
    catalog.want_prior(WANTED)
    catalog.mark_prior("1.9", state, "words")
    catalog.want_prior(replace(WANTED, method=method * 64, asked_at=1000.0 + later_s))
    found = catalog.prior("1.9")
    assert found is not None
    assert found.series_uids == ("1.9.1", "1.9.2")
    assert (found.state, found.text) == (("wanted", None) if again else (state, "words"))


def test_what_came_unasked_is_no_prior_scan_only(catalog: Catalog) -> None:
    assert not catalog.is_prior("1.9")
    catalog.want_prior(WANTED)
    assert not catalog.is_prior("1.9")  # it may yet be sent here by somebody else
    for state, expected in (("fetching", True), ("fetched", True), ("refused", False), ("failed", False)):
        catalog.mark_prior("1.9", state)
        assert catalog.is_prior("1.9") is expected


@pytest.mark.parametrize(
    ("prior", "now", "noted", "reopened"),
    [
        ("analysed", "delivered", "missed", True),
        ("analysed", "committed", "missed", True),
        ("analysed", "delivered", "done", False),
        ("analysed", "delivered", "awaited", False),
        ("refused", "delivered", "missed", False),
        ("running", "delivered", "missed", False),
        ("analysed", "running", "missed", False),
        ("analysed", "cancelled", "missed", False),
    ],
)
def test_a_late_scan_opens_what_went_out_without_it(
    catalog: Catalog, prior: JobState, now: JobState, noted: str, reopened: bool
) -> None:
    study(catalog, "1.9", prior)
    study(catalog, "1.1", now)
    catalog.await_priors("1.1", ["1.9"])
    catalog.mark_awaited("1.1", "1.9", noted)  # type: ignore[arg-type]
    assert catalog.reopen_for_late_priors() == (["1.1"] if reopened else [])
    assert catalog.reopen_for_late_priors() == []
    if reopened:
        assert catalog.settle("1.1", 5.0, None).generation == 2


def test_waiting_is_noted_once(catalog: Catalog) -> None:
    catalog.await_priors("1.1", ["1.9", "1.8"])
    catalog.mark_awaited("1.1", "1.9", "missed")
    catalog.await_priors("1.1", ["1.9"])
    assert catalog.awaited("1.1") == ["1.8", "1.9"]
    assert catalog.awaited("1.2") == []


@pytest.mark.parametrize(("state", "expected"), [("analysed", True), ("refused", True), ("running", False)])
def test_only_an_ended_study_is_opened_anew(catalog: Catalog, state: JobState, expected: bool) -> None:
    study(catalog, "1.9", state)
    assert catalog.reopen("1.9") is expected
    assert catalog.reopen("1.7") is False


def test_a_fetched_scan_may_be_removed_once_it_was_analysed(catalog: Catalog) -> None:
    study(catalog, "1.9", "analysed")
    study(catalog, "1.8", "analysed")
    catalog.want_prior(WANTED)
    catalog.mark_prior("1.9", "fetched")
    assert [s.study_uid for s in catalog.releasable(1e6, 0.0)] == ["1.9"]


# Orders


def an_order(key: str, patient: str = ANNA + HERE, day: str = "20260102", seen_at: float = 10.0) -> Order:
    return Order(key, patient, f"1.{key}", f"A{key}", f"{day} 101500", b"item", seen_at)


def test_orders_are_remembered_changed_and_forgotten(catalog: Catalog) -> None:
    catalog.remember_orders([an_order("1"), an_order("2", day="20260103"), an_order("1", day="20260104", seen_at=20.0)])
    assert [o.key for o in catalog.orders_between("20260102", "20260104")] == ["2", "1"]
    assert [o.key for o in catalog.orders_between("20260104", "20260104")] == ["1"]
    moved = catalog.order("1")
    assert moved is not None
    assert (moved.scheduled, moved.seen_at) == ("20260104 101500", 20.0)
    assert catalog.forget_orders(15.0) == 1
    assert catalog.order("2") is None


def test_orders_of_an_id_whoever_issued_it_of_a_study_and_of_a_number(catalog: Catalog) -> None:
    catalog.remember_orders(
        [an_order("1"), an_order("2", ANNA + THERE), an_order("3", "b" * 32), an_order("4", "c" * 32)]
    )
    found = {o.key for o in catalog.orders_like(ANNA, "1.3", "A4")}
    assert found == {"1", "2", "3", "4"}
    assert {o.key for o in catalog.orders_like("d" * 32, "1.3", "")} == {"3"}


def test_studies_of_a_patient_come_with_whose_they_are(catalog: Catalog) -> None:
    study(catalog, "1.1", "delivered", ANNA + HERE)
    study(catalog, "1.2", "delivered", ANNA + THERE)
    study(catalog, "1.3", "delivered", "b" * 32)
    found = {s.study_uid: whose for s, whose in catalog.studies_of_patient(ANNA)}
    assert found == {"1.1": ANNA + HERE, "1.2": ANNA + THERE}
