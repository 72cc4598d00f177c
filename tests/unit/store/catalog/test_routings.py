"""What the catalogue keeps of routing, and its outbox of events, on both databases."""

from collections import Counter
from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, JobState

CT = "1.2.840.10008.5.1.4.1.1.2"


def receive(catalog: Catalog, *numbers: int, calling: str = "CT1", called: str = "NODE", at: float = 100.0) -> None:
    association = catalog.begin_association("run", calling, called, "192.0.2.1", at)
    for n in numbers:
        path = f"/spool/{n}.dcm"
        row = Instance(f"1.2.3.{n}", CT, "1.2", "1.2.3", path, f"{n:064}", 1, at, association, "a" * 64)
        assert catalog.record(row) == "new"


def planned(catalog: Catalog, generation: int) -> Counter[tuple[str, str]]:
    return Counter((d.destination, d.state) for d in catalog.deliveries("1.2", generation))


def test_callers_are_those_of_the_images(catalog: Catalog) -> None:
    receive(catalog, 1, 2)
    receive(catalog, 3, calling="PACS", called="ILD")
    assert catalog.callers("1.2") == [("CT1", "NODE"), ("PACS", "ILD")]
    assert catalog.callers("9.9") == []


def test_a_decision_is_replaced_until_a_person_has_released_it(catalog: Catalog) -> None:
    assert catalog.routing("1.2", 1) is None
    assert not catalog.release_held("1.2", 1, now=5.0)
    catalog.note_routing("1.2", 1, "first", now=10.0)
    assert catalog.note_routing("1.2", 1, "second", now=20.0).decision == "second"
    assert catalog.release_held("1.2", 1, now=30.0)
    kept = catalog.note_routing("1.2", 1, "third", now=40.0)
    assert (kept.decision, kept.decided_at, kept.released_at) == ("second", 20.0, 30.0)
    assert catalog.routing("1.2", 1) == kept
    catalog.forget_routing("1.2", 1)
    assert catalog.routing("1.2", 1) is None


def test_originals_are_planned_once_and_not_again_where_they_have_arrived(catalog: Catalog) -> None:
    receive(catalog, 1, 2)
    catalog.settle("1.2", 110.0, None)
    for _ in range(2):
        assert catalog.plan_originals("1.2", 1, [("a", True), ("b", False)], now=120.0) == 4
    assert planned(catalog, 1) == {("a", "pending"): 2, ("b", "pending"): 2}
    assert {(d.destination, d.commitment) for d in catalog.deliveries("1.2", 1)} == {("a", True), ("b", False)}
    first = catalog.deliveries("1.2", 1)[0]
    assert (first.kind, first.object, first.path) == ("originals", "original 1.2.3.1", "/spool/1.dcm")
    catalog.mark_delivery("1.2", 1, "a", first.object, "delivered", status=0, text="stored", attempts=1, now=130.0)

    receive(catalog, 3, at=200.0)
    catalog.settle("1.2", 210.0, None)
    assert planned(catalog, 1) == {("a", "delivered"): 1, ("a", "superseded"): 1, ("b", "superseded"): 2}
    catalog.plan_originals("1.2", 2, [("a", True), ("b", False)], now=220.0)
    assert planned(catalog, 2) == {("a", "delivered"): 1, ("a", "pending"): 2, ("b", "pending"): 3}
    assert catalog.deliveries("1.2", 2)[0].text == "unchanged since generation 1"


def test_a_thousand_lost_images_are_told_in_one_sentence(catalog: Catalog) -> None:
    receive(catalog, *range(1, 31))
    catalog.settle("1.2", 110.0, None)
    catalog.plan_originals("1.2", 1, [("a", False)], now=120.0)
    for d in catalog.deliveries("1.2", 1):
        catalog.mark_delivery("1.2", 1, "a", d.object, "rejected", status=None, text="no", attempts=1, now=130.0)
    catalog.set_state("1.2", 1, "routed", now=140.0)
    assert catalog.conclude("1.2", 1, now=140.0) == "failed"
    job = catalog.job("1.2", 1)
    assert job is not None
    assert job.reason == "30 received images to a: no"


@pytest.mark.parametrize(
    ("state", "released"),
    [("ignored", True), ("routed", False), ("held", False), ("delivered", True), ("failed", False)],
)
def test_what_may_leave(catalog: Catalog, state: JobState, released: bool) -> None:
    receive(catalog, 1)
    catalog.settle("1.2", 110.0, None)
    catalog.set_state("1.2", 1, state, now=120.0)
    assert bool(catalog.releasable(1e9, 0.0)) == released
    catalog.plan_originals("1.2", 1, [("a", False)], now=120.0)
    assert catalog.releasable(1e9, 0.0) == []  # an image that waits holds everything


def test_events_are_written_with_the_state_and_stay_until_they_are_handed_over(url: str, tmp_path: Path) -> None:
    catalog = Catalog.open(url, tmp_path)
    receive(catalog, 1)
    catalog.settle("1.2", 102.0, "two-patients")
    (held,) = catalog.events(10)
    assert (held.state, held.reason, held.at) == ("held", "two-patients", 102.0)
    later: list[JobState] = ["queued", "running", "analysed", "delivered", "committed", "failed", "failed", "queued"]
    for now, state in enumerate(later, start=103):
        catalog.set_state("1.2", 1, state, "why", now=float(now))
    catalog.close()
    again = Catalog.open(url, tmp_path)
    assert [e.state for e in again.events(10)] == ["held", "delivered", "failed"]
    assert [e.state for e in again.events(1)] == ["held"]
    again.forget_event(held.event_id)
    assert [(e.state, e.at) for e in again.events(10)] == [("delivered", 106.0), ("failed", 108.0)]
    assert len({e.event_id for e in again.events(10)}) == 2
    again.close()


def test_a_study_that_is_committed_at_once_was_delivered_too(catalog: Catalog) -> None:
    receive(catalog, 1)
    catalog.settle("1.2", 102.0, None)
    for now, state in enumerate(("analysed", "committed"), start=103):
        catalog.set_state("1.2", 1, state, now=float(now))  # type: ignore[arg-type]
    assert [e.state for e in catalog.events(10)] == ["committed"]
