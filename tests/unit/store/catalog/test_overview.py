"""The page of studies: what it says, what it finds, that it is one query, and that it changes nothing."""

import re
from pathlib import Path

import pytest
from sqlalchemy import event, text

from dicomnode.errors import SpoolError
from dicomnode.registry_format.identity import patient_hash
from dicomnode.store.catalog import migrate
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.figures import Step
from dicomnode.store.catalog.labels import Label, unseal
from dicomnode.store.catalog.overview import Wanted
from dicomnode.store.catalog.tables import metadata
from dicomnode.store.records import Instance


def receive(
    catalog: Catalog, uid: str, at: float, patient: bytes = b"P-1", sender: str = "CT_1", label: bool = True
) -> None:
    """One image of a study, whose label is made as the clock makes it."""
    association = catalog.begin_association("run", sender, "NODE", "192.0.2.1", at)
    hashed = catalog.patient_key.keyed(patient_hash(patient, b""))
    catalog.record(Instance(f"{uid}.1", "1.9", uid, f"{uid}.9", f"/spool/{uid}", "0" * 64, 10, at, association, hashed))
    catalog.end_association(association, "released", at)
    if label:
        make_labels(catalog, patient.decode())


def make_labels(catalog: Catalog, patient_id: str) -> None:
    for study in catalog.unlabelled(0.0, float("inf"), 100):
        catalog.note_label(study, Label(patient_id, "", f"A-{study.study_uid}", "20260101", "CT Thorax"))


def deliver(catalog: Catalog, uid: str, at: float) -> None:
    generation = catalog.settle(uid, at, held=None).generation
    catalog.set_state(uid, generation, "running", now=at + 1)
    catalog.set_state(uid, generation, "analysed", now=at + 2)
    for name in ("seg", "risk"):
        catalog.plan_delivery(uid, generation, "pacs", name, "1.9", f"{uid}.5.{len(name)}", "/x", now=at + 2)
        catalog.mark_delivery(
            uid, generation, "pacs", name, "delivered", status=0, text="stored", attempts=1, now=at + 3
        )
    catalog.conclude(uid, generation, now=at + 3)


def found(catalog: Catalog, wanted: Wanted) -> list[str]:
    return [row.study_uid for row in catalog.overview(wanted)]


def test_a_study_is_there_from_its_first_image_to_its_delivery(catalog: Catalog) -> None:
    receive(catalog, "1.2", 100.0, label=False)
    (row,) = catalog.overview(Wanted())
    assert (row.state, row.generation, row.instances, row.settled_at, row.label) == ("receiving", 0, 1, None, Label())
    make_labels(catalog, "P-1")
    (row,) = catalog.overview(Wanted())
    assert (row.sender, row.called, row.label.patient_id, row.label.accession_number) == (
        "CT_1", "NODE", "P-1", "A-1.2",
    )  # fmt: skip
    deliver(catalog, "1.2", 110.0)
    (row,) = catalog.overview(Wanted())
    assert (row.state, row.generation) == ("delivered", 1)
    assert (row.first_seen, row.settled_at, row.started_at, row.analysed_at, row.delivered_at) == (
        100.0, 110.0, 111.0, 112.0, 113.0,
    )  # fmt: skip
    assert (row.deliveries, row.arrived, row.lost, row.warnings) == (2, 2, 0, 0)
    assert [(t.state, t.at) for t in catalog.transitions("1.2")] == [
        ("queued", 110.0), ("running", 111.0), ("analysed", 112.0), ("delivered", 113.0),
    ]  # fmt: skip


def test_a_late_image_brings_a_new_generation_and_ends_the_old_one_in_the_timeline(catalog: Catalog) -> None:
    receive(catalog, "1.2", 100.0)
    catalog.settle("1.2", 110.0, held=None)
    association = catalog.begin_association("run", "CT_2", "NODE", "192.0.2.1", 120.0)
    catalog.record(Instance("1.2.77", "1.9", "1.2", "1.2.9", "/spool/late", "1" * 64, 10, 120.0, association, "a" * 64))
    (row,) = catalog.overview(Wanted())
    assert (row.state, row.generation, row.settled_at) == ("receiving", 1, 110.0)
    catalog.settle("1.2", 130.0, held=None)
    assert [(t.generation, t.state) for t in catalog.transitions("1.2")] == [
        (1, "queued"), (1, "superseded"), (2, "queued"),
    ]  # fmt: skip
    make_labels(catalog, "P-1")
    (row,) = catalog.overview(Wanted())
    assert (row.generation, row.sender) == (2, "CT_2")
    (old,) = catalog.overview(Wanted(study_uid="1.2", generation=1))
    assert (old.generation, old.settled_at) == (1, 110.0)


def test_a_patient_is_found_while_arriving_when_settled_and_when_held(catalog: Catalog) -> None:
    for uid, at in (("1.1", 100.0), ("1.2", 101.0), ("1.3", 102.0)):
        receive(catalog, uid, at)
    receive(catalog, "1.4", 103.0, patient=b"P-2")
    catalog.settle("1.2", 110.0, held=None)
    catalog.settle("1.3", 110.0, held="two-patients")
    assert found(catalog, Wanted(patient_id="P-1")) == ["1.3", "1.2", "1.1"]
    assert found(catalog, Wanted(patient_id=" P-2 ")) == ["1.4"]
    assert found(catalog, Wanted(patient_id="P-")) == found(catalog, Wanted(patient_id="p-1")) == []
    assert found(catalog, Wanted(patient_id="P-1", states=("held",))) == ["1.3"]


def test_every_way_to_look_for_a_study(catalog: Catalog) -> None:
    receive(catalog, "1.1", 100.0, sender="CT_1")
    receive(catalog, "1.2", 200.0, sender="CT_2")
    receive(catalog, "1.30", 300.0, sender="CT_1")
    catalog.settle("1.2", 210.0, held=None)
    catalog.set_state("1.2", 1, "failed", "The lungs were 100 % full_of water", now=211.0)
    assert found(catalog, Wanted(accession_number="A-1.2")) == ["1.2"]
    assert found(catalog, Wanted(accession_number="A-1")) == []
    assert found(catalog, Wanted(sender="CT_1")) == ["1.30", "1.1"]
    assert found(catalog, Wanted(sender="CT_1", since=150.0)) == ["1.30"]
    assert found(catalog, Wanted(states=("failed", "receiving"))) == ["1.30", "1.2", "1.1"]
    assert found(catalog, Wanted(text="LUNGS were")) == found(catalog, Wanted(text="full_of")) == ["1.2"]
    # What is a pattern for LIKE is none here.
    assert found(catalog, Wanted(text="100 % f")) == ["1.2"]
    assert found(catalog, Wanted(text="lungs%full")) == found(catalog, Wanted(text="full.of")) == []
    assert found(catalog, Wanted(text=".3")) == ["1.30"]
    catalog.set_state("1.2", 1, "failed", "ÜBERLAUF/50%_x", now=212.0)
    for words in ("ÜBER", "überlauf/50%_X"[1:], "LAUF/50%_"):
        assert found(catalog, Wanted(text=words)) == ["1.2"], words
    assert found(catalog, Wanted(text="50%x")) == found(catalog, Wanted(text="lauf//")) == []
    assert found(catalog, Wanted(sender="CT_1", states=("receiving",), patient_id="P-1", text="1.1")) == ["1.1"]


@pytest.mark.parametrize("sender", ["", "CT_1"])
def test_pages_follow_each_other_without_a_gap(catalog: Catalog, sender: str) -> None:
    for number in range(10):
        receive(catalog, f"1.{number}", 100.0 + number // 3)
    seen: list[str] = []
    after = None
    while page := catalog.overview(Wanted(sender=sender, after=after, limit=3)):
        seen += [row.study_uid for row in page]
        after = (page[-1].last_seen, page[-1].study_uid)
    assert seen == found(catalog, Wanted())
    assert len(set(seen)) == 10


def test_a_page_is_one_query_whatever_its_length(catalog: Catalog) -> None:
    for number in range(12):
        receive(catalog, f"1.{number}", 100.0 + number)
        deliver(catalog, f"1.{number}", 200.0)
    asked: list[str] = []
    event.listen(catalog._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert len(catalog.overview(Wanted(limit=2))) == 2
    assert len(catalog.overview(Wanted(limit=12, text="1."))) == 12
    assert len([one for one in asked if one.lstrip().upper().startswith(("SELECT", "WITH"))]) == 2


def test_nothing_that_is_asked_goes_through_a_whole_table(tmp_path: Path) -> None:
    """With 100,000 studies that would be the difference between a millisecond and a second. As SQLite plans it."""
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    asked: list[tuple[str, object]] = []
    event.listen(catalog._engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    for wanted in (
        Wanted(), Wanted(states=("failed",)), Wanted(states=("receiving", "queued")), Wanted(patient_id="P"),
        Wanted(accession_number="A"), Wanted(sender="CT"), Wanted(sender="CT", states=("failed",)), Wanted(since=1.0),
        Wanted(text="reason"), Wanted(study_uid="1.2"), Wanted(study_uid="1.2", generation=1), Wanted(after=(1.0, "1")),
    ):  # fmt: skip
        catalog.overview(wanted)
    for figure in (catalog.queued_by_priority, catalog.open_deliveries, catalog.newest_step, catalog.count_studies):
        figure()
    catalog.steps_after(5, 10)
    catalog.transitions("1.2")
    catalog.audit_waiting_count()
    plans: list[str] = []
    with catalog._engine.connect() as connection:
        for statement, parameters in [one for one in asked if one[0].lstrip().startswith(("SELECT", "WITH"))]:
            told = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans += [str(row[3]) for row in told]
    catalog.close()
    # By an index of few rows, in the order of the last image until the page is full, or to count.
    allowed = {
        "SCAN studies USING INDEX studies_last_seen", "SCAN jobs USING INDEX jobs_reason",
        "SCAN deliveries USING INDEX deliveries_open", "SCAN studies USING COVERING INDEX studies_state_last_seen",
    }  # fmt: skip
    tables = "|".join(metadata.tables)
    whole = {plan for plan in plans if re.match(rf"SCAN ({tables})\b", plan)}
    assert whole - allowed == set(), whole - allowed
    assert len(plans) > 50


def test_the_database_alone_names_no_patient(catalog: Catalog) -> None:
    receive(catalog, "1.2", 100.0, patient=b"SECRET-KOELN")
    with catalog._engine.begin() as connection:
        (row,) = connection.execute(text("SELECT * FROM study_labels"))
    assert b"KOELN" not in b"".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for v in row)
    sealed = bytes(row._mapping["sealed"])
    assert unseal(catalog.patient_key, "1.2", sealed).patient_id == "SECRET-KOELN"
    # Another study's label, put in its place, is not taken for its own.
    assert unseal(catalog.patient_key, "1.3", sealed) == Label()


def test_what_is_known_of_a_study_outlives_its_images(catalog: Catalog) -> None:
    receive(catalog, "1.2", 100.0)
    catalog.settle("1.2", 110.0, held=None)
    make_labels(catalog, "P-1")
    with catalog._engine.begin() as connection:
        connection.execute(text("DELETE FROM instances"))
        connection.execute(text("UPDATE studies SET generation = 2"))
    (study,) = catalog.unlabelled(0.0, float("inf"), 10)
    assert study.path is None
    catalog.note_label(study, Label())
    assert found(catalog, Wanted(sender="CT_1", accession_number="A-1.2")) == ["1.2"]
    assert catalog.unlabelled(0.0, float("inf"), 10) == []


def test_who_looks_cannot_write(url: str, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"never run|revision none"):
        Catalog.reading(url, tmp_path)
    written = Catalog.open(url, tmp_path)
    reading = Catalog.reading(url, tmp_path)
    with pytest.raises(SpoolError, match=r"read.?only|database failed"):
        reading.begin_association("run", "CT_1", "NODE", "192.0.2.1", 1.0)
    receive(written, "1.2", 100.0)
    assert found(reading, Wanted()) == ["1.2"]
    for opened in (written, reading):
        opened.close()


@pytest.mark.parametrize(("revision", "said"), [("0009", "brings it up to date"), ("9999", "the version that made it")])
def test_who_looks_never_changes_the_tables(url: str, tmp_path: Path, revision: str, said: str) -> None:
    catalog = Catalog.open(url, tmp_path)
    with catalog._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :one"), {"one": revision})
    with pytest.raises(SpoolError, match=said):
        Catalog.reading(url, tmp_path)
    with catalog._engine.begin() as connection:
        assert migrate._revision(connection) == revision
    catalog.close()


def test_figures_for_monitoring(catalog: Catalog) -> None:
    for number, uid in enumerate(("1.1", "1.2", "1.3")):
        receive(catalog, uid, 100.0 + number)
    deliver(catalog, "1.1", 110.0)
    for uid, priority in (("1.2", "stat"), ("1.3", "")):
        catalog.settle(uid, 120.0, held=None)
        if priority:
            catalog.note_routing(uid, 1, f'{{"action": {{"priority": "{priority}"}}}}', now=121.0)
    waiting = {w.priority: (w.count, w.since) for w in catalog.queued_by_priority()}
    assert waiting == {"stat": (1, 120.0), "routine": (1, 120.0)}
    assert catalog.count_studies() == {"delivered": 1, "queued": 2}
    for name, state, attempts in (("seg", "pending", 2), ("risk", "pending", 0), ("x", "rejected", 1)):
        catalog.plan_delivery("1.2", 1, "pacs", name, "1.9", f"1.{name}", "/x", now=130.0)
        catalog.mark_delivery(
            "1.2",
            1,
            "pacs",
            name,
            state,
            status=None,
            text="",
            attempts=attempts,
            now=131.0,  # type: ignore[arg-type]
        )
    open_ = {d.state: (d.destination, d.count, d.retried, d.since) for d in catalog.open_deliveries()}
    assert open_ == {"pending": ("pacs", 2, 1, 131.0), "rejected": ("pacs", 1, 1, 131.0)}
    newest = catalog.newest_step()
    steps = [(s.before, s.state, s.seconds) for s in catalog.steps_after(newest - 6, 4)]
    assert steps == [
        ("", "queued", 10.0), ("queued", "running", 1.0), ("running", "analysed", 1.0), ("analysed", "delivered", 1.0),
    ]  # fmt: skip
    assert catalog.steps_after(newest, 10) == []
    assert isinstance(catalog.steps_after(newest - 1, 10)[0], Step)
