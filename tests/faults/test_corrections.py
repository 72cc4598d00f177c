"""Studies that are corrected and come again: by a person's decision, a caller's, a rejection note's."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

import dicomnode
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import analyse
from dicomnode.errors import PeerRejectedError, UsageError
from dicomnode.models.serving import Models
from dicomnode.operations import corrections, jobs
from dicomnode.store.records import REJECTION
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.workflows import analysing
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected, rejected_by, rejection_note, said, screenshot
from tests.helpers.waiting import until

UID = study_uid("a")
TRUSTED = '[[node.callers]]\nae_title = "TRUSTED"\non_conflict = "newest"\n[[node.callers]]\nae_title = "SCANNER"'
PATIENCE = 240.0  # on a busy machine
OBJECTS = {"SEG": 1, "SR": 1, "OT": 1}


@pytest.fixture
def station(tmp_path: Path, pacs: Pacs) -> Iterator[Station]:
    made = Station(tmp_path / "node", pacs.destination(more="reject_old = true"), more=TRUSTED)
    with running(made):
        yield made


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=2)


def analysed(station: Station, files: list[Path]) -> None:
    station.start_worker()
    station.send(files)
    station.settle(UID)
    station.ended(UID, 1, "delivered", seconds=PATIENCE)


def no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be computed again")

    monkeypatch.setattr(analysing, "analyse", refuse)


def results(held: list[Dataset]) -> list[Dataset]:
    return [d for d in held if d.Modality != "KO"]


def notes(held: list[Dataset]) -> list[Dataset]:
    return [d for d in held if d.Modality == "KO"]


def test_a_corrected_patient_by_hand(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender stops at the first refused image, as many do: one decision is enough for all of the correction."""
    analysed(station, files)
    old = {d.SOPInstanceUID: d for d in pacs.held()}
    again = corrected(files, tmp_path / "again", PatientID="RIGHT", PatientName="Right^One", PatientSex="F")
    with pytest.raises(PeerRejectedError, match="0xC001"):
        station.send(again)
    assert station.clock.settle() == []
    found = corrections.held(station.config, UID, None)
    assert [d.attribute for d in found[0].differences] == ["PatientName", "PatientID", "PatientSex"]
    no_analysis(monkeypatch)
    assert "1 object replaced" in corrections.accept(station.config, UID, found, minutes=60)
    until("settled", lambda: station.clock.settle() or station.state(UID, 2), 60)
    assert station.state(UID, 2) == "held"  # half of it is another patient's
    station.send(again)
    generation = station.settle(UID)
    shown = station.ended(UID, generation, "delivered", seconds=PATIENCE)
    new = [d for d in results(pacs.held()) if d.SOPInstanceUID not in old]
    assert Counter(d.Modality for d in new) == OBJECTS
    assert {(d.PatientID, str(d.PatientName), d.PatientSex) for d in new} == {("RIGHT", "Right^One", "F")}
    assert all("replaces v1" in d.SeriesDescription for d in new)
    assert all((d.SeriesDate, d.SeriesTime) > (o.SeriesDate, o.SeriesTime) for d in new for o in old.values())
    (report,) = [d for d in new if d.Modality == "SR"]
    named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert old[named.ReferencedSOPInstanceUID].Modality == "SR"
    (note,) = notes(pacs.held())
    assert rejected_by([note]) == {"113037": set(old)}
    assert note.PatientID == "TEST-a"  # under which the PACS has filed what it rejects
    assert pacs.came[-1] == note.SOPInstanceUID
    assert shown["conflicts"] == []
    assert {c["action"] for c in shown["corrections"]} == {"accepted"}
    assert sum(c["objects"] for c in shown["corrections"]) == len(files)
    kept = list((station.config.storage.spool / "replaced").glob("*.dcm"))
    assert {pydicom.dcmread(p).PatientID for p in kept} == {"TEST-a"}
    assert len(kept) == len(files)


def test_what_is_encoded_anew_is_what_would_be_computed(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path, data: Path
) -> None:
    analysed(station, files)
    again = corrected(files, tmp_path / "again", PatientID="RIGHT")
    station.send(again, calling="TRUSTED")
    station.settle(UID)
    station.ended(UID, 2, "delivered", seconds=PATIENCE)
    other = Station(tmp_path / "other", "")
    folder = results_folder(station.config.storage.results, UID, 2)
    encoded = Findings.from_json((folder / FINDINGS).read_text("utf-8"))
    computed = analyse(again, Models(other.config).method()).findings
    other.close()
    assert encoded.version == computed.version
    assert encoded.quantities == computed.quantities


def test_a_trusted_pacs_that_coerces_changes_no_result(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed(station, files)
    came = list(pacs.came)
    no_analysis(monkeypatch)
    again = corrected(files, tmp_path / "again", InstitutionName="A hospital")
    with pytest.raises(PeerRejectedError, match="0xC001"):
        station.send(again)
    station.send(again, calling="TRUSTED")
    station.settle(UID)
    shown = station.ended(UID, 2, "delivered", seconds=PATIENCE)
    assert pacs.came == came
    assert {d["text"] for d in shown["deliveries"]} == {"unchanged since generation 1"}
    assert {pydicom.dcmread(i.path).InstitutionName for i in station.catalog.instances(UID)} == {"A hospital"}
    assert shown["conflicts"] == []


def test_corrected_twice_while_the_destination_is_away(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path
) -> None:
    """What it never got needs no rejection; what it has is taken back once, after the last version has arrived.

    A correction that comes in the middle of an attempt leaves it unknown whether the object has arrived: it counts so.
    """
    analysed(station, files)
    old = {d.SOPInstanceUID for d in pacs.held()}
    pacs.stop()
    for generation, name in ((2, "FIRST"), (3, "SECOND")):
        station.send(corrected(files, tmp_path / name, PatientID=name, AccessionNumber=name), calling="TRUSTED")
        assert station.settle(UID) == generation
        station.ended(UID, generation, "analysed", seconds=PATIENCE)
    pacs.start()
    station.ended(UID, 3, "delivered", seconds=PATIENCE)
    new = [d for d in results(pacs.held()) if d.SOPInstanceUID not in old]
    assert Counter(d.Modality for d in new) == OBJECTS
    assert {(d.PatientID, d.AccessionNumber) for d in new} == {("SECOND", "SECOND")}
    never_sure = [d for d in station.catalog.deliveries(UID, 2) if d.may_have_arrived and d.object != REJECTION]
    doubtful = {d.sop_instance_uid for d in never_sure}
    version = "v3, replaces v2" if doubtful else "v2, replaces v1"
    assert all(version in d.SeriesDescription for d in new)
    assert rejected_by(notes(pacs.held())) == {"113037": old | doubtful}
    assert station.state(UID, 2) == "superseded"


@pytest.mark.parametrize("decision", ["accept", "drop"])
def test_decided_while_the_analysis_runs(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """What is being computed of the version that goes is overtaken: nothing of it leaves the node."""
    begun, go = threading.Event(), threading.Event()
    real = analysing.analyse

    def held_up(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE)
        return real(*args, **kwargs)

    monkeypatch.setattr(analysing, "analyse", held_up)
    station.start_worker()
    station.send(files)
    station.settle(UID)
    try:
        assert begun.wait(PATIENCE) and station.state(UID, 1) == "running"
        again = corrected(files, tmp_path / "again", PatientID="RIGHT")
        if decision == "accept":
            with pytest.raises(PeerRejectedError, match="0xC001"):
                station.send(again)
            corrections.accept(station.config, UID, corrections.held(station.config, UID, None), minutes=60)
        else:
            corrections.drop(station.config, UID, None, "wrong-worklist-entry", dry_run=False)
        station.send(again)
        generation = station.settle(UID)
    finally:
        go.set()
    station.ended(UID, generation, "delivered", seconds=PATIENCE)
    until("the first has ended", lambda: station.state(UID, 1) == "superseded", 60)
    assert Counter(d.Modality for d in pacs.held()) == OBJECTS
    assert {d.PatientID for d in pacs.held()} == {"RIGHT"}
    assert all("replaces" not in d.SeriesDescription for d in pacs.held())
    assert sorted(pacs.came) == sorted({d.SOPInstanceUID for d in pacs.held()})


def test_a_rejected_version_changes_nothing(files: list[Path], station: Station, tmp_path: Path) -> None:
    station.send(files)
    again = corrected(files[:1], tmp_path / "again", PatientID="WRONG")
    with pytest.raises(PeerRejectedError, match="0xC001"):
        station.send(again)
    assert "1 version rejected" in corrections.reject(station.config, UID, None)
    with pytest.raises(UsageError, match="no object of this study waits"):
        corrections.held(station.config, UID, None)
    assert station.catalog.patient_ids(UID) == 1
    (decided,) = station.catalog.corrections(UID)
    assert (decided.action, decided.successor) == ("rejected", "")


def test_an_object_without_patient_id_is_no_second_patient_and_another_ones_is_dropped(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path
) -> None:
    station.start_worker()
    station.send([*files, screenshot(files[0], tmp_path / "nobody.dcm", "")])
    station.settle(UID)
    station.ended(UID, 1, "delivered", seconds=PATIENCE)
    (report,) = [d for d in pacs.held() if d.Modality == "SR"]
    assert "no Patient ID" in said(report)
    foreign = screenshot(files[0], tmp_path / "foreign.dcm", "FOREIGN", "foreign")
    station.send([foreign])
    until("held", lambda: station.clock.settle() == [] and station.catalog.job(UID, 2), 60)
    with pytest.raises(UsageError, match="name two patients: see `dicomnode jobs show`, then accept, reject or drop"):
        jobs.release(station.config, UID)
    corrections.drop(station.config, UID, pydicom.dcmread(foreign).SOPInstanceUID, "quality", dry_run=False)
    generation = station.settle(UID)
    station.ended(UID, generation, "delivered", seconds=PATIENCE)


def test_a_rejection_note_takes_objects_out_and_results_back(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path
) -> None:
    analysed(station, files)
    old = {d.SOPInstanceUID for d in pacs.held()}
    note = rejection_note(files, tmp_path / "note.dcm", "113038", "Incorrect Modality Worklist Entry")
    station.send([note])
    station.settle(UID)
    station.ended(UID, 2, "refused", seconds=PATIENCE)
    until("the note", lambda: notes(pacs.held()), PATIENCE)
    assert rejected_by(notes(pacs.held())) == {"113037": old}
    assert [i.sop_class_uid for i in station.catalog.instances(UID)] == [pydicom.dcmread(note).SOPClassUID]
    station.send(files)  # whoever sends the rejected objects again: they stay out
    station.settle(UID)
    assert len(station.catalog.instances(UID)) == 1
    again = corrected(files, tmp_path / "again", PatientID="RIGHT")
    station.send(again)  # other versions of them are no longer what was rejected
    generation = station.settle(UID)
    station.ended(UID, generation, "delivered", seconds=PATIENCE)
    new = [d for d in results(pacs.held()) if d.SOPInstanceUID not in old]
    assert Counter(d.Modality for d in new if d.PatientID == "RIGHT") == OBJECTS


def test_a_dropped_study_withdraws_its_results_and_comes_again_as_a_new_version(
    files: list[Path], pacs: Pacs, station: Station
) -> None:
    analysed(station, files)
    old = {d.SOPInstanceUID for d in pacs.held()}
    corrections.drop(station.config, UID, None, "retention-expired", dry_run=False)
    station.settle(UID)
    assert station.ended(UID, 2, "refused", seconds=PATIENCE)["reason"].startswith("nothing-left")
    until("the note", lambda: notes(pacs.held()), PATIENCE)
    assert rejected_by(notes(pacs.held())) == {"113039": old}
    with pytest.raises(UsageError, match="send it again"):
        jobs.retry(station.config, UID, None)
    station.send(files)
    station.settle(UID)
    station.ended(UID, 3, "delivered", seconds=PATIENCE)
    new = [d for d in results(pacs.held()) if d.SOPInstanceUID not in old]
    assert Counter(d.Modality for d in new) == OBJECTS  # the same numbers, but the old objects were withdrawn


def test_what_was_on_its_way_when_the_study_was_dropped_is_rejected_too(
    files: list[Path], pacs: Pacs, station: Station
) -> None:
    """The PACS takes its time over the second object, and stores it after everything was decided."""
    stores, begun, go = pacs.answers, threading.Semaphore(0), threading.Event()

    def slowly(event: Any) -> int:
        begun.release()
        if pacs.came:
            go.wait(PATIENCE)
        return stores(event)

    pacs.answers = slowly
    try:
        station.start_worker()
        station.send(files)
        station.settle(UID)
        assert begun.acquire(timeout=PATIENCE) and begun.acquire(timeout=PATIENCE)
        corrections.drop(station.config, UID, None, "patient-safety", dry_run=False)
        assert station.settle(UID) == 2
        until("the note is planned", lambda: station.catalog.deliveries(UID, 2), PATIENCE)
    finally:
        go.set()
    until("the note has come", lambda: notes(pacs.held()), PATIENCE)
    until("both objects are there", lambda: len(results(pacs.held())) == 2, PATIENCE)
    assert rejected_by(notes(pacs.held())) == {"113037": {str(d.SOPInstanceUID) for d in results(pacs.held())}}


def test_a_retried_study_is_a_new_version_only_where_something_differs(
    files: list[Path], pacs: Pacs, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed(station, files)
    old = {d.SOPInstanceUID: d for d in pacs.held()}
    came = list(pacs.came)
    assert "queued as generation 2" in jobs.retry(station.config, UID, None)
    station.ended(UID, 2, "delivered", seconds=PATIENCE)
    assert pacs.came == came
    monkeypatch.setattr(dicomnode, "__version__", "99.0")
    jobs.retry(station.config, UID, None)
    station.ended(UID, 3, "delivered", seconds=PATIENCE)
    new = {d.SOPInstanceUID: d for d in results(pacs.held()) if d.SOPInstanceUID not in old}
    assert Counter(d.Modality for d in new.values()) == OBJECTS
    assert all("v2, replaces v1" in d.SeriesDescription for d in new.values())
    assert rejected_by(notes(pacs.held())) == {"113001": set(old)}
    monkeypatch.undo()
    jobs.retry(station.config, UID, None)  # back to the first method: its objects were rejected, so these are others
    station.ended(UID, 4, "delivered", seconds=PATIENCE)
    third = {d.SOPInstanceUID: d for d in results(pacs.held())} | {}
    third = {uid: d for uid, d in third.items() if uid not in old and uid not in new}
    assert Counter(d.Modality for d in third.values()) == OBJECTS
    assert all("v3, replaces v2" in d.SeriesDescription for d in third.values())
    assert rejected_by(notes(pacs.held())) == {"113001": set(old) | set(new)}
