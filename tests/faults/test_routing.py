"""Routing, from the association to the destinations: analysed, forwarded, held or ignored, and in what order."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest

from dicomnode.errors import RefusedError, UsageError
from dicomnode.operations import jobs
from dicomnode.workflows import analysing, calls, route, runtime
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.waiting import until

UID = study_uid("a")
RULES = """
[routing]
ae_titles = ["ARCHIVE", "HOLD", "DROP", "BOTH"]
[[route]]
name = "forward"
called_ae = ["ARCHIVE"]
forward_to = ["archive"]
[[route]]
name = "wait"
called_ae = ["HOLD"]
hold = true
forward_to = ["archive"]
[[route]]
name = "drop"
called_ae = ["DROP"]
ignore = true
[[route]]
name = "both"
called_ae = ["BOTH"]
when = [{ keyword = "Modality", equals = "CT" }]
analyse = "plain"
results_to = ["pacs"]
forward_to = ["archive", "pacs"]
[[profile]]
name = "plain"
radiomics = false
[profile.selection]
min_slices = 10
"""


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def site(tmp_path: Path) -> tuple[Pacs, Pacs, str]:
    """A PACS, an archive, and their tables."""
    pacs, archive = Pacs(tmp_path / "pacs"), Pacs(tmp_path / "archive", ae_title="ARCHIVE")
    return pacs, archive, pacs.destination() + archive.destination("archive")


def arrive(station: Station, files: list[Path], called: str) -> int:
    station.start_worker()
    station.send(files, called)
    return station.settle(UID)


def test_forwarded_only_and_once(files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]) -> None:
    pacs, archive, tables = site
    pacs.start(), archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(pacs, archive, station):
        arrive(station, files, "ARCHIVE")
        shown = station.ended(UID, 1, "delivered")
        assert shown["routing"]["taken_by"] == ["forward"]
        (row,) = shown["deliveries"]
        assert (row["object"], row["state"]) == (f"{len(files)} received images", "delivered")
        assert Counter(archive.came) == {d.SOPInstanceUID: 1 for d in archive.held()}
        assert len(archive.came) == len(files)
        assert pacs.came == []
        assert jobs.retry(station.config, UID, None).startswith("queued again")
        station.ended(UID, 1, "delivered")
        assert len(archive.came) == len(files)  # what it has is not sent again


def test_analysed_with_a_profile_and_forwarded_to_several(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    pacs, archive, tables = site
    pacs.start(), archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(pacs, archive, station):
        arrive(station, files, "BOTH")
        station.ended(UID, 1, "delivered")  # [analysis] would have refused: less than 20 slices
        assert Counter(d.Modality for d in pacs.held()) == {"CT": len(files), "SEG": 1, "SR": 1, "OT": 1}
        assert Counter(d.Modality for d in archive.held()) == {"CT": len(files)}
        assert [s.study_uid for s in station.catalog.releasable(2e9, 0.0)] == [UID]


def test_an_original_that_waits_keeps_the_study(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    """The archive is away, comes back, refuses one image for good: the study stays until a person has seen to it."""
    pacs, archive, tables = site
    pacs.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    keep = archive.answers
    refused = ""

    def refuses(event: object) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[attr-defined]
        return 0xA900 if uid == refused else keep(event)

    with running(pacs, station):
        arrive(station, files, "ARCHIVE")
        until("tried", lambda: any(d.attempts > 1 for d in station.catalog.deliveries(UID, 1)), 30)
        assert station.state(UID, 1) == "routed"
        assert station.catalog.releasable(2e9, 0.0) == []
        refused = station.catalog.instances(UID)[7].sop_instance_uid
        archive.answers = refuses
        archive.start()
        with running(archive):
            shown = station.ended(UID, 1, "failed")
            assert shown["reason"].startswith("1 received image to archive: ")
            assert sorted((d["object"], d["state"]) for d in shown["deliveries"]) == [
                ("1 received image", "rejected"),
                (f"{len(files) - 1} received images", "delivered"),
            ]
            assert station.catalog.releasable(2e9, 0.0) == []
            refused = ""
            assert jobs.retry(station.config, UID, None) == "1 delivery to archive queued again"
            station.ended(UID, 1, "delivered")
            assert len(archive.came) == len(files)
            assert [s.study_uid for s in station.catalog.releasable(2e9, 0.0)] == [UID]


def test_a_restart_in_the_middle_of_forwarding(files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]) -> None:
    _, archive, tables = site
    keep = archive.answers
    archive.answers = lambda event: keep(event) if len(archive.came) < 5 else 0xA700  # its disk is full
    archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(archive, station):
        arrive(station, files, "ARCHIVE")
        until("some are there", lambda: len(archive.came) == 5, 30)
        until("tried again", lambda: any(d.attempts > 1 for d in station.catalog.deliveries(UID, 1)), 30)
        runtime.stop(0)
        archive.answers = keep
        station.start_worker()
        station.ended(UID, 1, "delivered")
        assert Counter(archive.came) == {d.SOPInstanceUID: 1 for d in archive.held()}
        assert len(archive.came) == len(files)


def test_refused_for_analysis_and_by_the_archive(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    """Two troubles in one study: the images that were not forwarded make it fail; then it is what it was, refused."""
    pacs, archive, tables = site
    pacs.start(), archive.start()
    keep, archive.answers = archive.answers, lambda _event: 0xC000
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(pacs, archive, station):
        arrive(station, files[:3], "BOTH")
        station.ended(UID, 1, "failed")
        lost = "3 received images to archive: "
        until("all refused", lambda: jobs.details(station.config, UID, 1)["reason"].startswith(lost), 30)
        archive.answers = keep
        assert jobs.retry(station.config, UID, None) == "3 deliveries to archive queued again"
        until("forwarded", lambda: len(archive.came) == 3, 30)
        station.ended(UID, 1, "refused")
        until("may leave", lambda: station.catalog.releasable(2e9, 0.0), 30)


def test_commitment_of_results_and_originals_alike(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    pacs, archive, _ = site
    pacs.start(), archive.start()
    tables = pacs.destination(more="commitment = true") + archive.destination("archive", "commitment = true")
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(pacs, archive, station):
        arrive(station, files, "BOTH")
        shown = station.ended(UID, 1, "committed")
        states = Counter((d.destination, d.kind, d.state) for d in station.catalog.deliveries(UID, 1))
        assert states == {
            ("pacs", "results", "committed"): 3,
            ("pacs", "originals", "committed"): len(files),
            ("archive", "originals", "committed"): len(files),
        }, shown


def test_a_destination_that_knows_us_not_is_asked_once_for_all_images(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    _, archive, tables = site
    archive._entity.require_calling_aet = ["SOMEBODY"]
    archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(archive, station):
        arrive(station, files, "ARCHIVE")
        shown = station.ended(UID, 1, "failed")
        assert shown["reason"].startswith(f"{len(files)} received images to archive: ")
        assert "register it there" in shown["reason"]
        assert {(d.state, d.attempts) for d in station.catalog.deliveries(UID, 1)} == {("rejected", 1)}


def test_what_was_queued_before_there_were_rules_goes_on_without_them(
    tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    before = Station(tmp_path / "node", site[2])
    with running(before):
        before.start_worker()
        assert before.queue.enqueue("1.2.3", 1) == "study/1.2.3/1/1"
    after = Station(tmp_path / "node", site[2], more=RULES)
    with running(after):
        assert after.queue.enqueue("1.2.3", 1) == "study/1.2.3/1/1"
        assert after.queue.enqueue("1.2.4", 1) == "study/1.2.4/1/1/route"


def test_a_late_image_is_forwarded_without_the_others(
    files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    _, archive, tables = site
    archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(archive, station):
        arrive(station, files[:-1], "ARCHIVE")
        station.ended(UID, 1, "delivered")
        station.send(files[-1:], "ARCHIVE")
        assert station.settle(UID) == 2
        station.ended(UID, 2, "delivered")
        assert len(archive.came) == len(files) == len(set(archive.came))


def test_held_until_a_person_releases_it(files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]) -> None:
    _, archive, tables = site
    archive.start()
    station = Station(tmp_path / "node", tables, more=RULES)
    with running(archive, station):
        arrive(station, files, "HOLD")
        shown = station.ended(UID, 1, "held")
        assert "dicomnode jobs release" in shown["reason"]
        assert archive.came == []
        assert station.catalog.releasable(2e9, 0.0) == []
        before = station.catalog.routing(UID, 1)
        assert jobs.retry(station.config, UID, None).startswith("queued again")  # by today's rules: held once more
        until("decided anew", lambda: station.catalog.routing(UID, 1) != before, 60)
        assert "dicomnode jobs release" in station.ended(UID, 1, "held")["reason"]
        without_rules = station.config.model_copy(update={"route": ()})  # the decision that was made counts
        assert jobs.release(without_rules, UID).startswith("released as study/")
        shown = station.ended(UID, 1, "delivered")
        assert shown["routing"]["released_at"]
        assert len(archive.came) == len(files)
        with pytest.raises(UsageError, match="only a held job"):
            jobs.release(station.config, UID)


def test_two_patients_are_held_and_no_rule_can_release_them(
    files: list[Path], data: Path, tmp_path: Path, site: tuple[Pacs, Pacs, str]
) -> None:
    other = pydicom.dcmread(files[0])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(files[0])
    station = Station(tmp_path / "node", site[2], more=RULES)
    with running(station):
        station.send(files, "HOLD")
        until("held", lambda: station.clock.settle() or station.catalog.job(UID, 1) is not None, 20)
        assert station.state(UID, 1) == "held"
        with pytest.raises(UsageError, match="name two patients: see"):
            jobs.release(station.config, UID)


def test_ignored_until_there_is_no_room(files: list[Path], tmp_path: Path, site: tuple[Pacs, Pacs, str]) -> None:
    station = Station(tmp_path / "node", site[2], more=RULES)
    with running(station):
        arrive(station, files, "DROP")
        shown = station.ended(UID, 1, "ignored")
        assert shown["reason"] == "ignored by 'drop'"
        assert shown["deliveries"] == []
        assert len(station.catalog.instances(UID)) == len(files)
        assert [s.study_uid for s in station.catalog.releasable(2e9, 0.0)] == [UID]


def test_without_rules_the_queue_is_asked_as_ever(tmp_path: Path, site: tuple[Pacs, Pacs, str]) -> None:
    station = Station(tmp_path / "node", site[2])
    with running(station):
        station.start_worker()
        assert station.queue.enqueue("1.2.3", 1) == "study/1.2.3/1/1"
        assert not station.config.routes_studies
    assert calls.route_call("1.2.3", 1, 1).id == "study/1.2.3/1/1/route"


URGENCY = """
[routing]
ae_titles = ["STAT", "ROUTINE", "RESEARCH"]
routine_yields_s = 900
research_yields_s = 3600
[[route]]
name = "stat"
called_ae = ["STAT"]
analyse = "default"
priority = "stat"
[[route]]
name = "routine"
called_ae = ["ROUTINE"]
analyse = "default"
[[route]]
name = "research"
called_ae = ["RESEARCH"]
analyse = "default"
priority = "research"
"""


@pytest.mark.slow
def test_stat_overtakes_and_research_gets_on_while_stat_keeps_coming(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    go_on = threading.Event()
    clock = SimpleNamespace(now=time.time())
    monkeypatch.setattr(route, "time", SimpleNamespace(time=lambda: clock.now))

    def analyse(files: Sequence[Path], _method: object, priors: object, memory_bytes: object) -> object:
        order.append(str(pydicom.dcmread(files[0]).PatientID).removeprefix("TEST-"))
        assert go_on.wait(300)
        raise RefusedError("test", "no more than its place in the queue is asked for")

    monkeypatch.setattr(analysing, "analyse", analyse)
    station = Station(tmp_path / "node", "", more=URGENCY)

    def send(name: str, called: str, later_s: float = 10) -> None:
        """It comes `later_s` after the one before, and the rules have decided on it."""
        clock.now += later_s
        files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / name, name, every=79)
        station.send(files, called)
        station.settle(study_uid(name))
        until("queued", lambda: any(f"/{study_uid(name)}/" in x for x in waiting(station)) or name in order, 20)

    with running(station):
        station.start_worker()
        send("first", "ROUTINE")
        until("the only place is taken", lambda: order == ["first"], 20)
        send("research", "RESEARCH")
        send("routine", "ROUTINE")
        send("stat-1", "STAT")
        send("stat-2", "STAT", later_s=3600)  # and so on, for ever
        go_on.set()
        until("all done", lambda: len(order) == 5, 60)
        until("all ended", lambda: {j.state for j in station.catalog.jobs()} == {"refused"}, 30)
    assert order == ["first", "stat-1", "routine", "research", "stat-2"]


def waiting(station: Station) -> list[str]:
    """The workflows in the queue of analyses."""
    found = station.queue._client.list_queued_workflows(queue_name=calls.STUDY_QUEUE)
    return [w.workflow_id for w in found]
