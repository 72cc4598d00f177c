"""The audit trail in the catalogue: with its cause, or not at all."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from dicomnode.audit import trail
from dicomnode.audit.journal import Noted
from dicomnode.audit.messages import AuditMessage, AuditPeer, AuditSource
from dicomnode.demo import study as synthetic
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from tests.helpers.audit_schema import faults

CT = "1.2.840.10008.5.1.4.1.1.2"
PEER = AuditPeer("PACS", "192.0.2.9")


@pytest.fixture(autouse=True)
def _on() -> Iterator[None]:
    trail.begin(AuditSource("node", "NODE"))
    yield
    trail.begin(None)


def instance(number: int, association_id: int | None, study: str = "1.2") -> Instance:
    return Instance(
        sop_instance_uid=f"{study}.3.{number}",
        sop_class_uid=CT,
        study_uid=study,
        series_uid=f"{study}.3",
        path=f"/spool/{study}/{number}.dcm",
        sha256=f"{number:064}",
        size=500_000,
        received_at=100.0 + number,
        association_id=association_id,
        patient_hash="a" * 64,
    )


def begin(catalog: Catalog, run: str = "run") -> int:
    return catalog.begin_association(run, "CT1", "NODE", "192.0.2.1", 99.0)


def told(catalog: Catalog, event: str = "110104") -> list[tuple[str, int, str]]:
    """(study, instances, outcome) of the messages that wait."""
    found = []
    for row in catalog.audit_waiting(1000):
        assert faults(row.xml) == []
        root = ET.fromstring(row.xml)
        what = root.find("EventIdentification")
        assert what is not None
        if what.find("EventID").attrib["csd-code"] != event:  # type: ignore[union-attr]
            continue
        study = next(root.iter("ParticipantObjectIdentification")).attrib["ParticipantObjectID"]
        count = sum(int(c.attrib["NumberOfInstances"]) for c in root.iter("SOPClass"))
        found.append((study, count, what.attrib["EventOutcomeIndicator"]))
    return sorted(found)


def test_an_association_s_end_tells_what_it_brought(catalog: Catalog) -> None:
    association = begin(catalog)
    for number in range(5):
        catalog.record(instance(number, association))
    catalog.record(instance(1, association, "1.9"))
    assert told(catalog) == []
    catalog.end_association(association, "released", 110.0)
    catalog.end_association(association, "released", 111.0)
    assert told(catalog) == [("1.2", 5, "0"), ("1.9", 1, "0")]
    assert told(catalog, "110102") == [("1.2", 5, "0"), ("1.9", 1, "0")]


def test_what_a_killed_receiver_was_acknowledged_for_is_told_by_the_next(catalog: Catalog) -> None:
    association = begin(catalog, "dead")
    catalog.record(instance(1, association))
    other = begin(catalog, "alive")
    catalog.record(instance(2, other))
    assert catalog.lose_associations(["dead"], 120.0) == 1
    assert told(catalog) == [("1.2", 1, "4")]


def test_of_receivers_that_find_the_same_one_dead_together_one_tells(catalog: Catalog) -> None:
    for number in range(8):
        catalog.record(instance(1, begin(catalog, "dead"), f"1.2.{number}"))
    with ThreadPoolExecutor(4) as receivers:
        together = Barrier(4)

        def lose(_: int) -> int:
            together.wait()
            return catalog.lose_associations(["dead"], 120.0)

        assert sorted(receivers.map(lose, range(4))) == [0, 0, 0, 8]
    assert told(catalog) == [(f"1.2.{number}", 1, "4") for number in range(8)]


def test_an_image_that_two_open_associations_bring_is_told_for_both(catalog: Catalog) -> None:
    first, second = begin(catalog), begin(catalog)
    for association in (first, second, second):
        for number in range(3):
            catalog.record(instance(number, association))
    catalog.end_association(second, "released", 110.0)
    catalog.end_association(first, "aborted", 111.0)
    assert told(catalog) == [("1.2", 3, "0"), ("1.2", 3, "4")]


def test_an_image_that_comes_again_later_is_told_again_and_the_first_not_twice(catalog: Catalog) -> None:
    for _ in range(2):
        association = begin(catalog)
        catalog.record(instance(1, association))
        catalog.end_association(association, "released", 110.0)
    assert told(catalog) == [("1.2", 1, "0"), ("1.2", 1, "0")]


def test_images_removed_while_their_association_is_open_are_told_at_its_end(catalog: Catalog) -> None:
    association = begin(catalog)
    catalog.record(instance(1, association))
    catalog.settle("1.2", 200.0, held=None)
    study = catalog.study("1.2")
    assert study is not None
    assert catalog.release(study, lambda: None)
    assert told(catalog, "110105") == [("1.2", 1, "0")]
    catalog.end_association(association, "released", 300.0)
    assert told(catalog) == [("1.2", 1, "0")]


def test_a_release_that_does_not_happen_is_not_told(catalog: Catalog) -> None:
    catalog.record(instance(1, begin(catalog)))
    study = catalog.study("1.2")
    assert study is not None
    catalog.record(instance(2, begin(catalog)))

    assert not catalog.release(study, lambda: None)
    with pytest.raises(OSError, match="full"):
        catalog.release(catalog.study("1.2") or study, _fail)
    assert told(catalog, "110105") == []


def _fail() -> None:
    raise OSError("full")


def test_what_a_destination_stored_is_told_once_a_batch(catalog: Catalog) -> None:
    catalog.record(instance(1, begin(catalog)))
    catalog.settle("1.2", 200.0, held=None)
    for name in ("seg", "sr", "summary"):
        catalog.plan_delivery("1.2", 1, "pacs", name, CT, f"2.5.{len(name)}", f"/out/{name}.dcm", now=210.0)
    first, second, third = catalog.deliveries("1.2", 1)
    catalog.note_attempt(first, "delivered", status=0, text="stored", now=220.0)
    catalog.note_attempt(second, "delivered", status=0, text="stored", now=221.0)
    catalog.note_attempt(third, "pending", text="away", now=222.0)
    assert catalog.sent_untold(300.0) == [("1.2", 1, "pacs")]  # a worker that is killed now leaves this to the clock
    catalog.tell_sent("1.2", 1, "pacs", PEER, 223.0)
    catalog.tell_sent("1.2", 1, "pacs", PEER, 224.0)
    assert told(catalog) == [("1.2", 2, "0")]
    assert catalog.sent_untold(300.0) == []
    catalog.note_attempt(third, "delivered", status=0, text="stored", now=225.0)
    catalog.tell_sent("1.2", 1, "pacs", PEER, 226.0)
    assert told(catalog) == [("1.2", 1, "0"), ("1.2", 2, "0")]


def test_reading_a_study_is_told_once_a_run(catalog: Catalog) -> None:
    catalog.record(instance(1, begin(catalog)))
    catalog.settle("1.2", 200.0, held=None)
    catalog.set_state("1.2", 1, "running", now=210.0)
    catalog.set_state("1.2", 1, "running", now=211.0)
    assert told(catalog, "110103") == [("1.2", 0, "0")]


def test_the_patient_is_read_from_the_images(catalog: Catalog, tmp_path: Path) -> None:
    path = synthetic.write(tmp_path)[0]
    association = begin(catalog)
    catalog.record(replace(instance(1, association), path=str(path)))
    catalog.end_association(association, "released", 110.0)
    (xml,) = [row.xml for row in catalog.audit_waiting(10) if "110104" in row.xml]
    import pydicom

    assert f'ParticipantObjectID="{pydicom.dcmread(path).PatientID}"' in xml


def test_a_journal_that_is_taken_over_twice_is_told_once(catalog: Catalog) -> None:
    noted = [Noted(f"{n:032}", AuditMessage("110113", 1.0, "<a/>")) for n in range(3)]
    catalog.audit_all(noted)
    catalog.audit_all(noted)
    assert catalog.audit_backlog() == (3, 1.0)


def test_the_outbox_is_bounded_and_the_oldest_stay(catalog: Catalog) -> None:
    for number in range(30):
        catalog.audit(AuditMessage("110113", float(number), "<a/>"))
    sent = [row.number for row in catalog.audit_waiting(5)]
    catalog.audit_sent(sent, 1000.0)
    assert catalog.tidy_audit(999.0, 100) == 0
    assert catalog.tidy_audit(1001.0, 20) == 5
    assert [row.at for row in catalog.audit_waiting(100)] == [float(n) for n in range(5, 25)]
    catalog.audit(AuditMessage("110113", 99.0, "<a/>"))
    assert catalog.audit_waiting(100)[-1].number > 30, "numbers are never used again"


def test_without_an_audit_trail_nothing_is_kept(catalog: Catalog) -> None:
    trail.begin(None)
    association = begin(catalog)
    catalog.record(instance(1, association))
    catalog.end_association(association, "released", 110.0)
    assert catalog.audit_backlog() == (0, None)
