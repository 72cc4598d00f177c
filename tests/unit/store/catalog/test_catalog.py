"""The catalogue on SQLite; on PostgreSQL too where a server's programs are installed."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import SpoolError
from dicomnode.reception.settle import SettleRule, decide
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

RULE = SettleRule(release_s=5.0, quiet_s=60.0)


def instance(number: int, association_id: int | None, at: float = 100.0) -> Instance:
    return Instance(
        sop_instance_uid=f"1.2.3.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        study_uid="1.2",
        series_uid="1.2.3",
        path=f"/spool/{number}.dcm",
        sha256=f"{number:064}",
        size=500_000,
        received_at=at,
        association_id=association_id,
        patient_hash="a" * 64,
        modality="CT",
        image_type="ORIGINAL\\PRIMARY\\AXIAL",
        orientation="1.000\\0.000\\0.000\\0.000\\1.000\\0.000",
        slice_position=float(number),
    )


def begin(catalog: Catalog, run: str = "run", at: float = 99.0) -> int:
    return catalog.begin_association(run, "SCANNER", "NODE", "192.0.2.1", at)


def settle_now(catalog: Catalog, now: float) -> bool:
    (study,) = catalog.unsettled(now)
    return decide(study, now, RULE).settled


def test_from_first_image_to_delivery(catalog: Catalog) -> None:
    association = begin(catalog)
    images = [instance(number, association, 100.0 + number) for number in range(4)]
    assert [catalog.record(image) for image in images] == ["new"] * 4
    assert not settle_now(catalog, 105.0)
    catalog.end_association(association, "released", 104.0)
    assert settle_now(catalog, 109.0)
    settled = catalog.settle("1.2", 109.0, held=None)
    assert (settled.study_uid, settled.generation) == ("1.2", 1)
    assert catalog.unsettled(110.0) == []
    assert catalog.instances("1.2") == images
    assert catalog.set_state("1.2", 1, "running", now=110.0) == "running"
    job = catalog.job("1.2", 1)
    assert job is not None
    assert (job.state, job.created_at, job.updated_at) == ("running", 109.0, 110.0)
    catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", "2.5", "/out/seg.dcm", now=120.0)
    catalog.mark_delivery("1.2", 1, "pacs", "seg", "delivered", status=0, text=None, attempts=2, now=121.0)
    catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", "2.5", "/out/seg.dcm", now=130.0)  # the workflow ran again
    (delivery,) = catalog.deliveries("1.2", 1)
    assert (delivery.state, delivery.status, delivery.attempts, delivery.updated_at) == ("delivered", 0, 2, 121.0)
    catalog.note_attempt(delivery, "committed", status=0xB000, text="kept", now=130.5)
    (delivery,) = catalog.deliveries("1.2", 1)
    assert (delivery.state, delivery.text, delivery.attempts, delivery.updated_at) == ("committed", "kept", 3, 130.5)
    catalog.set_state("1.2", 1, "delivered", now=131.0)
    study = catalog.study("1.2")
    assert study is not None
    assert (study.state, study.generation, study.instances, study.last_seen) == ("delivered", 1, 4, 103.0)


def test_a_late_image_opens_the_next_generation_and_a_resend_does_not(catalog: Catalog) -> None:
    association = begin(catalog)
    catalog.record(instance(1, association))
    catalog.settle("1.2", 110.0, held=None)
    assert catalog.record(instance(1, begin(catalog), 111.0)) == "same"
    assert catalog.unsettled(112.0) == []
    assert catalog.record(instance(2, association, 113.0)) == "new"
    assert [study.study_uid for study in catalog.unsettled(114.0)] == ["1.2"]
    assert catalog.settle("1.2", 180.0, held=None).generation == 2
    assert [(job.generation, job.state) for job in catalog.jobs()] == [(1, "superseded"), (2, "queued")] or [
        (job.generation, job.state) for job in catalog.jobs()
    ] == [(2, "queued"), (1, "superseded")]


@pytest.mark.parametrize("was", ["queued", "held", "running", "analysed"])
def test_a_live_job_is_superseded_with_what_it_has_not_delivered(catalog: Catalog, was: str) -> None:
    catalog.record(instance(1, None))
    catalog.settle("1.2", 110.0, held=None)
    catalog.set_state("1.2", 1, was, now=111.0)  # type: ignore[arg-type]
    for name in ("seg", "risk"):
        catalog.plan_delivery("1.2", 1, "pacs", name, "1.9", f"2.5.{len(name)}", "/out", now=112.0)
    catalog.mark_delivery("1.2", 1, "pacs", "seg", "delivered", status=0, text="stored", attempts=1, now=113.0)
    catalog.record(instance(2, None, 112.0))
    risk, _seg = catalog.deliveries("1.2", 1)
    assert catalog.may_send(risk)  # the late image has not settled yet
    catalog.settle("1.2", 180.0, held=None)
    assert not catalog.may_send(risk)
    assert [d.state for d in catalog.deliveries("1.2", 1)] == ["superseded", "delivered"]
    assert catalog.set_state("1.2", 1, "analysed", now=181.0) == "superseded"
    assert catalog.conclude("1.2", 1, now=182.0) == "superseded"
    catalog.mark_delivery("1.2", 1, "pacs", "risk", "pending", status=None, text="away", attempts=1, now=183.0)
    assert catalog.deliveries("1.2", 1)[0].state == "superseded"
    # It was under way when the newer generation settled, and arrived: the truth is kept.
    catalog.mark_delivery("1.2", 1, "pacs", "risk", "delivered", status=0, text="stored", attempts=1, now=184.0)
    assert catalog.deliveries("1.2", 1)[0].state == "delivered"
    study = catalog.study("1.2")
    assert study is not None
    assert (study.state, study.generation) == ("queued", 2)


def test_an_ended_job_stays_as_it_is_when_a_newer_one_comes(catalog: Catalog) -> None:
    catalog.record(instance(1, None))
    catalog.settle("1.2", 110.0, held=None)
    catalog.set_state("1.2", 1, "delivered", now=111.0)
    catalog.record(instance(2, None, 112.0))
    catalog.settle("1.2", 180.0, held=None)
    job = catalog.job("1.2", 1)
    assert job is not None
    assert job.state == "delivered"


def test_an_object_that_an_earlier_generation_delivered_is_not_sent_again(catalog: Catalog) -> None:
    catalog.record(instance(1, None))
    catalog.settle("1.2", 110.0, held=None)
    catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", "2.5", "/out/g1", now=112.0)
    catalog.mark_delivery("1.2", 1, "pacs", "seg", "delivered", status=0, text="stored", attempts=1, now=113.0)
    catalog.record(instance(2, None, 114.0))
    catalog.settle("1.2", 180.0, held=None)
    catalog.plan_delivery("1.2", 2, "pacs", "seg", "1.9", "2.5", "/out/g2", now=190.0)
    catalog.plan_delivery("1.2", 2, "other", "seg", "1.9", "2.5", "/out/g2", now=190.0)
    catalog.plan_delivery("1.2", 2, "pacs", "risk", "1.9", "2.6", "/out/g2", now=190.0)
    states = {(d.destination, d.object): d.state for d in catalog.deliveries("1.2", 2)}
    assert states == {("pacs", "seg"): "delivered", ("other", "seg"): "pending", ("pacs", "risk"): "pending"}


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "f" * 64},
        {"sha256": "f" * 64, "series_uid": "1.2.9"},
        {"sha256": "f" * 64, "study_uid": "9.9", "series_uid": "9.9.1"},
    ],
)
def test_same_uid_with_other_content_is_a_conflict_and_changes_nothing(
    catalog: Catalog, change: dict[str, str]
) -> None:
    first = instance(1, None)
    catalog.record(first)
    before = catalog.study("1.2")
    assert catalog.record(replace(first, received_at=500.0, **change)) == "conflict"  # type: ignore[arg-type]
    assert catalog.instances("1.2") == [first]
    assert catalog.study("1.2") == before
    assert catalog.study("9.9") is None
    for received_at in (500.0, 600.0):  # a sender that tries for ever is noted once, as of when it came last
        other = replace(first, received_at=received_at, **change)  # type: ignore[arg-type]
        assert catalog.record(other) == "conflict"
        catalog.note_conflict(other)
    (conflict,) = catalog.conflicts("1.2")
    assert (conflict.sop_instance_uid, conflict.sha256, conflict.received_at) == ("1.2.3.1", "f" * 64, 600.0)


def test_a_complete_resend_heals_an_aborted_association(catalog: Catalog) -> None:
    """Case 5: a scanner aborts and resends; the partial series and the resend merge."""
    aborted = begin(catalog)
    for number in range(3):
        catalog.record(instance(number, aborted, 100.0))
    catalog.end_association(aborted, "aborted", 101.0)
    resent = begin(catalog)
    answers = [catalog.record(instance(number, resent, 110.0)) for number in range(6)]
    assert answers == ["same"] * 3 + ["new"] * 3
    catalog.end_association(resent, "released", 111.0)
    assert settle_now(catalog, 116.0)
    assert len(catalog.instances("1.2")) == 6


def test_associations_of_a_dead_receiver_are_lost(catalog: Catalog) -> None:
    dead, living = begin(catalog, "dead"), begin(catalog, "living")
    catalog.record(instance(1, dead))
    catalog.record(instance(2, living))
    assert catalog.dead_receivers(lambda run: run == "living") == ["dead"]
    assert catalog.lose_associations(["dead"], 120.0) == 1
    assert catalog.lose_associations(["dead"], 121.0) == 0
    assert catalog.dead_receivers(lambda run: run == "living") == []
    catalog.end_association(dead, "released", 122.0)  # too late: it stays lost
    (study,) = catalog.unsettled(123.0)
    assert sorted(str(one.closed) for one in study.bringers) == ["None", "lost"]


def test_two_patients_are_counted_and_the_study_held(catalog: Catalog) -> None:
    catalog.record(instance(1, None))
    assert catalog.patient_ids("1.2") == 1
    catalog.record(replace(instance(2, None), patient_hash="b" * 64))
    assert catalog.patient_ids("1.2") == 2
    catalog.settle("1.2", 200.0, held="two patients")
    (job,) = catalog.jobs("held")
    assert job.reason == "two patients"
    assert [study.state for study in catalog.studies(10, "held")] == ["held"]


@pytest.mark.parametrize(
    ("hashes", "patients"),
    [
        (["a", "a"], 1),
        (["a", "aX"], 1),
        (["aX", "aX", "a"], 1),
        (["aX", "aY"], 2),
        (["a", "b"], 2),
        (["aX", "bX", "cX"], 3),
    ],
)
def test_patients_differ_by_id_or_by_two_issuers(catalog: Catalog, hashes: list[str], patients: int) -> None:
    for number, (patient, *issuer) in enumerate(hashes):
        catalog.record(replace(instance(number, None), patient_hash=patient * 32 + "".join(issuer) * 32))
    assert catalog.patient_ids("1.2") == patients


def test_settling_twice_is_refused(catalog: Catalog) -> None:
    catalog.record(instance(1, None))
    catalog.settle("1.2", 200.0, held=None)
    with pytest.raises(SpoolError, match="not receiving"):
        catalog.settle("1.2", 201.0, held=None)


@pytest.mark.parametrize(
    ("was", "wanted", "now_is"),
    [
        ("superseded", "running", "superseded"),
        ("superseded", "queued", "superseded"),
        ("cancelled", "running", "cancelled"),
        ("cancelled", "queued", "queued"),
        ("failed", "queued", "queued"),
    ],
)
def test_what_a_late_worker_is_told(catalog: Catalog, was: str, wanted: str, now_is: str) -> None:
    catalog.record(instance(1, None))
    catalog.settle("1.2", 200.0, held=None)
    catalog.set_state("1.2", 1, was, "why", now=201.0)  # type: ignore[arg-type]
    assert catalog.set_state("1.2", 1, wanted, now=202.0) == now_is  # type: ignore[arg-type]
    job = catalog.job("1.2", 1)
    assert job is not None
    assert job.state == now_is


def test_unknown_jobs_and_deliveries_are_errors(catalog: Catalog) -> None:
    with pytest.raises(SpoolError, match="no job"):
        catalog.set_state("1.2", 1, "running", now=1.0)
    with pytest.raises(SpoolError, match="planned"):
        catalog.mark_delivery("1.2", 1, "pacs", "seg", "failed", status=None, text=None, attempts=1, now=1.0)
    assert catalog.job("1.2", 1) is None
    assert catalog.study("1.2") is None


def test_a_clock_set_back_ends_in_settling(catalog: Catalog) -> None:
    association = begin(catalog, at=1e9)
    for number in range(3):
        catalog.record(instance(number, association, 1e9))
    catalog.end_association(association, "released", 1e9)
    assert not settle_now(catalog, 1000.0)
    assert not settle_now(catalog, 1004.0)
    assert settle_now(catalog, 1005.0)


def test_newest_studies_first_and_limit(catalog: Catalog) -> None:
    for number in range(5):
        catalog.record(replace(instance(number, None, 100.0 + number), study_uid=f"1.{number}"))
    assert [study.study_uid for study in catalog.studies(2)] == ["1.4", "1.3"]
    assert [study.study_uid for study in catalog.unsettled(200.0)] == [f"1.{number}" for number in range(5)]


def test_four_associations_bring_the_same_images_at_once(url: str, tmp_path: Path) -> None:
    """Case 11, from two catalogues (two processes) with two threads each: one record, nothing lost."""
    catalogs = [Catalog.open(url, tmp_path), Catalog.open(url, tmp_path)]
    answers: list[str] = []

    def work(catalog: Catalog) -> None:
        answers.extend(catalog.record(instance(number, None)) for number in range(25))

    threads = [threading.Thread(target=work, args=(catalogs[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(answers)) == ["new", "same"]
    assert answers.count("new") == 25
    study = catalogs[0].study("1.2")
    assert study is not None
    assert study.instances == 25
    for catalog in catalogs:
        catalog.close()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/catalog.db", "nosuchdb://host/x"])
def test_a_url_that_cannot_work(url: str) -> None:
    with pytest.raises(SpoolError, match="catalogue"):
        Catalog.open(url)


def test_sqlite_is_durable_and_does_not_block_readers(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    with catalog._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    catalog.close()


def test_lookups_use_indexes(tmp_path: Path) -> None:
    """100,000 studies: no query of the receiver, the tick or the status page may read a whole table."""
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    queries = [
        "SELECT * FROM studies WHERE state = 'receiving' ORDER BY last_seen",
        "SELECT * FROM studies ORDER BY last_seen DESC LIMIT 10",
        "SELECT * FROM instances WHERE study_uid = '1.2' ORDER BY sop_instance_uid",
        "SELECT * FROM jobs WHERE state = 'queued' ORDER BY updated_at DESC LIMIT 10",
        "SELECT * FROM deliveries WHERE study_uid = '1.2' AND generation = 1",
        "SELECT DISTINCT receiver_run FROM associations WHERE closed IS NULL",
    ]
    with catalog._engine.connect() as connection:
        for query in queries:
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
            assert "INDEX" in plan, (query, plan)
    catalog.close()


def test_a_delivery_planned_again_gives_way_to_another_object_only(catalog: Catalog) -> None:
    """A study that is analysed again with a prior scan that came late has other objects under the same names."""
    catalog.record(instance(1, None))
    catalog.settle("1.2", 1.0, None)

    def plan(uid: str) -> None:
        catalog.plan_delivery("1.2", 1, "pacs", "seg", "1.9", uid, f"/{uid}.dcm", now=2.0)

    plan("5.1")
    catalog.mark_delivery("1.2", 1, "pacs", "seg", "delivered", status=0, text="stored", attempts=1, now=3.0)
    plan("5.1")
    assert [(d.sop_instance_uid, d.state, d.attempts) for d in catalog.deliveries("1.2", 1)] == [
        ("5.1", "delivered", 1)
    ]
    plan("5.2")
    (changed,) = catalog.deliveries("1.2", 1)
    assert (changed.sop_instance_uid, changed.path, changed.state, changed.attempts) == (
        "5.2",
        "/5.2.dcm",
        "pending",
        0,
    )
