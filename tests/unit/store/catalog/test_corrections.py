"""Decisions about objects, on both databases: what they change, and what they leave."""

import threading
from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Acceptance, Instance

A, B = "a" * 32, "b" * 32


def image(number: int, **changes: object) -> Instance:
    fields = {
        "sop_instance_uid": f"1.2.3.{number}", "sop_class_uid": "1", "study_uid": "1.2", "series_uid": "1.2.3",
        "path": f"/x/{number}", "sha256": f"{number:064}", "size": 8, "received_at": 100.0 + number,
        "association_id": None, "patient_hash": A,
    }  # fmt: skip
    return Instance(**{**fields, **changes})  # type: ignore[arg-type]


def newer(number: int, **changes: object) -> Instance:
    return image(number, **{"sha256": "f" * 60 + f"{number:04}", "path": f"/x/{number}-new", **changes})


@pytest.fixture
def settled(catalog: Catalog) -> Catalog:
    """A study of three images, whose results are on their way."""
    for number in range(3):
        catalog.record(image(number))
    catalog.settle("1.2", 110.0, None)
    catalog.set_state("1.2", 1, "analysed", now=111.0)
    for name, state in (("seg", "delivered"), ("summary", "pending")):
        catalog.plan_delivery("1.2", 1, "pacs", name, "1", f"2.{name}", "/r", now=112.0)
        if state == "delivered":
            catalog.mark_delivery("1.2", 1, "pacs", name, "delivered", status=0, text="", attempts=1, now=113.0)
    return catalog


def test_a_new_version_replaces_the_old_one_and_stops_what_was_on_its_way(settled: Catalog) -> None:
    settled.note_conflict(newer(0))
    settled.note_conflict(newer(1))
    assert settled.replace_instances([newer(0, patient_hash=B)], "accepted", "me", now=200.0) == [image(0)]
    assert {i.path for i in settled.instances("1.2")} == {"/x/0-new", "/x/1", "/x/2"}
    study = settled.study("1.2")
    assert study is not None
    assert (study.state, study.generation, study.instances, study.last_seen) == ("receiving", 1, 3, 102.0)
    job = settled.job("1.2", 1)
    assert job is not None
    assert (job.state, job.reason) == ("superseded", "corrected")
    assert {d.object: d.state for d in settled.deliveries("1.2", 1)} == {"seg": "delivered", "summary": "superseded"}
    assert [c.sop_instance_uid for c in settled.conflicts("1.2")] == ["1.2.3.1"]
    (decided,) = settled.corrections("1.2")
    assert (decided.action, decided.who, decided.at, decided.patient_hash) == ("accepted", "me", 200.0, A)
    assert (decided.sha256, decided.successor) == (image(0).sha256, newer(0).sha256)
    assert settled.patient_ids("1.2") == 2
    assert settled.whose("1.2") == ""
    settled.replace_instances([newer(n, patient_hash=B) for n in (1, 2)], "newest", "caller X", now=201.0, touch=True)
    assert settled.whose("1.2") == B
    study = settled.study("1.2")
    assert study is not None
    assert study.last_seen == 201.0


def test_the_same_decision_twice_changes_nothing_more(settled: Catalog) -> None:
    assert len(settled.replace_instances([newer(0)], "accepted", "me", now=200.0)) == 1
    assert settled.replace_instances([newer(0)], "accepted", "me", now=201.0) == []
    assert settled.replace_instances([newer(9)], "accepted", "me", now=201.0) == []
    assert len(settled.corrections("1.2")) == 1


def test_an_object_that_moves_to_another_study_reopens_both(settled: Catalog) -> None:
    settled.replace_instances([newer(0, study_uid="1.9")], "accepted", "me", now=200.0)
    studies = {s.study_uid: (s.state, s.instances) for s in settled.studies(10)}
    assert studies == {"1.2": ("receiving", 2), "1.9": ("receiving", 1)}
    assert [c.study_uid for c in settled.corrections_of("1.2.3.0")] == ["1.2", "1.9"]


def test_objects_are_taken_out_up_to_the_last(settled: Catalog) -> None:
    assert settled.take_out("1.2", ["1.2.3.0", "unknown"], "dropped", "me", "113001", now=200.0) == [image(0)]
    assert settled.take_out("1.2", ["unknown"], "dropped", "me", "113001", now=200.0) == []
    assert settled.take_out("1.9", ["1.2.3.1"], "dropped", "me", "113001", now=200.0) == []
    settled.take_out("1.2", ["1.2.3.1", "1.2.3.2"], "noted", "rejection note 9", "113039", now=201.0)
    assert settled.instances("1.2") == []
    study = settled.study("1.2")
    assert study is not None
    assert (study.state, study.instances) == ("receiving", 0)
    assert settled.other_studies("1.2") == []
    assert [s.study_uid for s in settled.unsettled(300.0)] == ["1.2"]
    assert settled.settle("1.2", 300.0, None).generation == 2
    assert settled.record(image(0)) == "new"  # sent again, it is here again


def test_a_rejected_version_is_forgotten_and_noted(settled: Catalog) -> None:
    settled.note_conflict(newer(0))
    settled.reject_conflicts(settled.conflicts("1.2"), "me", now=200.0)
    assert settled.conflicts("1.2") == []
    assert [(c.action, c.sha256) for c in settled.corrections("1.2")] == [("rejected", newer(0).sha256)]
    assert settled.unfollowed() == []
    job = settled.job("1.2", 1)
    assert job is not None
    assert job.state == "analysed"


def test_the_version_that_came_last_is_the_last(settled: Catalog) -> None:
    first, second = newer(0, received_at=150.0), newer(0, sha256="e" * 64, received_at=160.0)
    for one in (first, second, newer(0, received_at=170.0)):
        settled.note_conflict(one)
    assert [c.sha256 for c in settled.conflicts("1.2")] == [second.sha256, first.sha256]


def test_a_person_opens_the_next_generation_once(settled: Catalog) -> None:
    settled.set_state("1.2", 1, "delivered", now=150.0)
    assert settled.open_generation("1.2", 1, "retried manually", now=200.0) == 2
    assert settled.open_generation("1.2", 1, "retried manually", now=201.0) is None
    job = settled.job("1.2", 2)
    assert job is not None
    assert (job.state, job.created_at) == ("queued", 200.0)
    study = settled.study("1.2")
    assert study is not None
    assert (study.state, study.generation) == ("queued", 2)
    settled.record(image(7))
    assert settled.open_generation("1.2", 2, "retried manually", now=202.0) is None  # it is receiving


def test_more_of_a_correction_is_taken_for_a_while(settled: Catalog) -> None:
    given = Acceptance("1.2", "me", 300.0, B, frozenset({"PatientID"}), 200.0)
    settled.replace_instances([], "accepted", "me", now=200.0, more=Acceptance("1.2", "me", 250.0, A, frozenset()))
    settled.replace_instances([], "accepted", "me", now=200.0, more=given)
    assert settled.acceptance("1.2", 299.0) == given
    assert settled.acceptance("1.2", 300.0) is None
    assert settled.acceptance("1.9", 0.0) is None


def test_who_was_compared_with_a_corrected_study_is_looked_for_once(settled: Catalog) -> None:
    settled.replace_instances([newer(0)], "accepted", "me", now=200.0)
    assert [c.study_uid for c in settled.unfollowed()] == ["1.2"]
    assert settled.studies_of(A) == ["1.2"]
    settled.followed("1.2", 200.0)
    assert settled.unfollowed() == []


def test_two_nodes_that_read_one_note_take_each_object_out_once(url: str, tmp_path: Path) -> None:
    nodes = [Catalog.open(url, tmp_path) for _ in range(4)]
    for number in range(40):
        nodes[0].record(image(number))
    nodes[0].settle("1.2", 110.0, None)
    uids = [f"1.2.3.{number}" for number in range(30)]
    gone: list[Instance] = []
    begin = threading.Barrier(len(nodes))

    def take_out(node: Catalog) -> None:
        begin.wait()
        gone.extend(node.take_out("1.2", uids, "noted", "rejection note 9", "113001", now=200.0))

    threads = [threading.Thread(target=take_out, args=(node,)) for node in nodes]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    study = nodes[0].study("1.2")
    assert study is not None
    assert (study.instances, len(nodes[0].instances("1.2"))) == (10, 10)
    assert sorted(one.sop_instance_uid for one in gone) == sorted(uids)
    assert len(nodes[0].corrections("1.2")) == 30
    for node in nodes:
        node.close()


def test_a_version_that_came_after_the_one_decided_on_still_waits(settled: Catalog) -> None:
    decided, later = newer(0, received_at=150.0), newer(0, sha256="e" * 64, received_at=160.0)
    for one in (newer(0, sha256="d" * 64, received_at=140.0), decided, later):
        settled.note_conflict(one)
    settled.replace_instances([decided], "accepted", "me", now=200.0)
    assert [c.sha256 for c in settled.conflicts("1.2")] == [later.sha256]


def test_a_version_that_stands_already_waits_for_nobody(settled: Catalog) -> None:
    settled.note_conflict(image(0))  # told of just when another process had accepted it
    assert settled.replace_instances([image(0)], "accepted", "me", now=200.0) == []
    assert settled.conflicts("1.2") == []
    assert settled.corrections("1.2") == []


def test_a_file_that_has_come_again_is_not_taken_away(settled: Catalog) -> None:
    """A dropped object is sent again before its file was moved: what is acknowledged stays."""
    gone = settled.take_out("1.2", [f"1.2.3.{n}" for n in range(3)], "dropped", "me", "113001", now=200.0)
    settled.record(image(1))
    moved: list[Instance] = []
    settled.move_unused(gone, moved.append)
    assert moved == [image(0), image(2)]
