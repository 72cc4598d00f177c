"""Objects that come again with other content, through a receiver: who may replace what, and what a note takes out."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.cli import corrections as cli
from dicomnode.errors import PeerRejectedError, UsageError
from dicomnode.files import lock
from dicomnode.network import association
from dicomnode.operations import corrections, jobs, one_decision
from dicomnode.reception import c_store
from dicomnode.reception.receiver import Receiver
from dicomnode.reception.reconcile import Reconciled, reconcile
from dicomnode.reception.rejection_notes import apply_notes, read_note
from dicomnode.reception.spooled import read_instance
from dicomnode.service.processes import prepare_folders, receiver_settings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.replaced import Replaced
from dicomnode.store.spool import Spool
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected, rejection_note
from tests.helpers.ports import free_port

UID = study_uid("a")


@dataclass
class Site:
    """A receiver with two callers, one of which may replace."""

    config: config.Config
    catalog: Catalog
    spool: Spool
    path: Path

    def send(self, files: Sequence[Path], calling: str = "SCANNER") -> None:
        port = self.config.node.port
        association.send(association.Peer("node", "DICOMNODE", "127.0.0.1", port, calling), files)

    def refused(self, files: Sequence[Path]) -> None:
        for path in files:
            with pytest.raises(PeerRejectedError, match="0xC001"):
                self.send([path])

    def patients(self) -> list[str]:
        return sorted(str(pydicom.dcmread(i.path).PatientID) for i in self.catalog.instances(UID))

    def files(self, folder: str) -> int:
        return len(list((self.spool.root / folder).rglob("*.dcm")))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        f'[node]\nport = {free_port()}\n[[node.callers]]\nae_title = "TRUSTED"\non_conflict = "newest"\n'
        '[[node.callers]]\nae_title = "SCANNER"\n[storage]\nminimum_free_gb = 0.1\n'
    )
    loaded = config.load(path)
    prepare_folders(loaded)
    made = Site(loaded, Catalog.open(loaded.catalog_url, loaded.storage.state), Spool(loaded.storage.spool), path)
    receiver = Receiver(receiver_settings(loaded), made.spool, made.catalog)
    receiver.start()
    yield made
    receiver.stop(0)
    made.catalog.close()


@pytest.fixture
def files(data: Path, tmp_path: Path, site: Site) -> list[Path]:
    """Three images that have been received and settled."""
    made = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=30)
    site.send(made)
    site.catalog.settle(UID, time.time(), None)
    return made


def test_after_one_decision_more_of_the_same_correction_is_taken(site: Site, files: list[Path], tmp_path: Path) -> None:
    again = corrected(files, tmp_path / "again", PatientID="RIGHT")
    site.refused(again[:1])
    found = corrections.held(site.config, UID, None)
    assert [[d.attribute for d in one.differences] for one in found] == [["PatientID"]]
    corrections.accept(site.config, UID, found, 60)
    site.refused(corrected(files[1:2], tmp_path / "third", PatientID="THIRD"))  # another patient than was accepted
    site.refused(corrected(files[1:2], tmp_path / "more", PatientID="RIGHT", StudyID="7"))  # another attribute
    site.send(again)
    assert site.patients() == ["RIGHT"] * 3
    assert site.catalog.conflicts(UID) == []
    assert (site.files("studies"), site.files("replaced")) == (3, 3)
    assert reconcile(site.spool, site.catalog, read_instance) == Reconciled(0, 0, ())


def test_a_sender_that_does_not_know_of_the_correction_turns_nothing_back(
    site: Site, files: list[Path], tmp_path: Path
) -> None:
    """An attribute is corrected that names no patient: by patient and attributes, the old version would pass."""
    again = corrected(files, tmp_path / "again", StudyDate="20190203")
    site.refused(again[:1])
    corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 60)
    site.send(again)
    site.refused(files)
    assert {str(pydicom.dcmread(i.path).StudyDate) for i in site.catalog.instances(UID)} == {"20190203"}
    corrections.reject(site.config, UID, None)
    site.send(again)  # what stands
    site.refused(files[:1])
    corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 0)  # a person may turn it back
    dates = [str(pydicom.dcmread(i.path).StudyDate) for i in site.catalog.instances(UID)]
    assert dates.count("20190203") == len(files) - 1


@pytest.mark.parametrize("caller", ["SCANNER", "TRUSTED"])
def test_one_decision_turns_a_wrong_correction_back(site: Site, files: list[Path], tmp_path: Path, caller: str) -> None:
    """Whoever has let the wrong version in, and however often it went to and fro before."""
    wrong = corrected(files, tmp_path / "wrong", PatientID="WRONG")
    for there, back in ((wrong, files), (wrong, files)):
        if caller == "TRUSTED":
            site.send(there, caller)
        else:
            site.refused(there[:1])
            corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 60)
            site.send(there)
        assert site.patients() == ["WRONG"] * 3
        site.refused(back)  # a sender that knows nothing of the correction turns nothing back
        for one in back[1:]:  # as if the sender had stopped at the first
            corrections.reject(site.config, UID, str(pydicom.dcmread(one).SOPInstanceUID))
        corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 60)
        site.send(back)
        assert site.patients() == ["TEST-a"] * 3
        site.refused(there[:1])  # decided against, after that decision
        corrections.reject(site.config, UID, None)
    assert site.catalog.conflicts(UID) == []
    assert site.files("studies") == 3
    assert reconcile(site.spool, site.catalog, read_instance) == Reconciled(0, 0, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"AccessionNumber": "A2"},
        {"PatientBirthDate": "19500101", "StudyDescription": "Thorax"},
        {"PatientName": "Right^One", "OtherPatientIDs": "7"},
    ],
)
def test_whatever_attribute_is_corrected_it_is_named_and_taken(
    site: Site, files: list[Path], tmp_path: Path, changes: dict[str, str]
) -> None:
    again = corrected(files, tmp_path / "again", **changes)
    site.refused(again)
    found = corrections.held(site.config, UID, None)
    assert {frozenset(d.attribute for d in one.differences) for one in found} == {frozenset(changes)}
    corrections.accept(site.config, UID, found, 0)
    for keyword, value in changes.items():
        assert {str(pydicom.dcmread(i.path)[keyword].value) for i in site.catalog.instances(UID)} == {value}


def test_values_from_the_network_are_shown_escaped(
    site: Site, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refused(corrected(files[:1], tmp_path / "again", PatientName="\x1b]0;owned\x07^\x9b31m"))
    cli.show(corrections.held(site.config, UID, None), values=True)
    shown = capsys.readouterr().out
    assert "\\x1b]0;owned" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_accept_of_one_object_is_a_decision_on_that_object_only(site: Site, files: list[Path], tmp_path: Path) -> None:
    again = corrected(files, tmp_path / "again", PatientID="RIGHT")
    site.refused(again[:2])
    uid = str(pydicom.dcmread(again[0]).SOPInstanceUID)
    corrections.accept(site.config, UID, corrections.held(site.config, UID, uid), 0)
    site.refused(again[2:])
    assert site.patients() == ["RIGHT", "TEST-a", "TEST-a"]
    assert len(site.catalog.conflicts(UID)) == 2
    assert site.files("quarantine") == 2


def test_the_version_that_came_last_is_accepted_and_the_others_are_kept(
    site: Site, files: list[Path], tmp_path: Path
) -> None:
    for name in ("FIRST", "SECOND"):
        site.refused(corrected(files[:1], tmp_path / name, PatientID=name))
    corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 0)
    assert site.patients() == ["SECOND", "TEST-a", "TEST-a"]
    assert (site.files("quarantine"), site.files("replaced")) == (0, 2)


def test_a_version_that_comes_after_the_decision_was_shown_still_waits(
    site: Site, files: list[Path], tmp_path: Path
) -> None:
    site.refused(corrected(files[:1], tmp_path / "first", PatientID="FIRST"))
    shown = corrections.held(site.config, UID, None)
    site.refused(corrected(files[:1], tmp_path / "second", PatientID="SECOND"))
    corrections.accept(site.config, UID, shown, 0)
    assert site.patients() == ["FIRST", "TEST-a", "TEST-a"]
    (waiting,) = corrections.held(site.config, UID, None)
    assert waiting.path is not None
    corrections.accept(site.config, UID, [waiting], 0)
    assert site.patients() == ["SECOND", "TEST-a", "TEST-a"]
    assert site.files("quarantine") == 0


def test_what_the_quarantine_has_lost_is_to_be_sent_again(site: Site, files: list[Path], tmp_path: Path) -> None:
    site.refused(corrected(files[:1], tmp_path / "again", PatientID="RIGHT"))
    (held,) = corrections.held(site.config, UID, None)
    assert [one for one, _ in corrections.acceptable([held])] == [held]
    for path in (site.spool.root / "quarantine").iterdir():
        path.unlink()
    dry = CliRunner().invoke(app, ["jobs", "accept", UID, "--dry-run", "--config", str(site.path)])
    assert isinstance(dry.exception, UsageError), "the dry run promises nothing that would be refused"
    with pytest.raises(UsageError, match="send them again"):
        corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 0)
    assert "1 version rejected" in corrections.reject(site.config, UID, None)
    assert site.catalog.conflicts(UID) == []


def test_a_caller_that_may_replace_does_so_within_the_study_only(site: Site, files: list[Path], tmp_path: Path) -> None:
    again = corrected(files[:1], tmp_path / "again", PatientID="RIGHT")
    site.refused(again)
    site.send(again, "TRUSTED")
    assert site.patients() == ["RIGHT", "TEST-a", "TEST-a"]
    assert site.files("quarantine") == 0
    moved = corrected(files[1:2], tmp_path / "moved", StudyInstanceUID="1.2.3.4")
    with pytest.raises(PeerRejectedError, match="0xC001"):
        site.send(moved, "TRUSTED")
    said = corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 60)  # a person may move it
    assert "is taken as it comes" not in said  # which the receiver would not do
    assert len(site.catalog.instances(UID)) == 2
    assert len(site.catalog.instances("1.2.3.4")) == 1


def test_a_rejection_note_takes_out_what_it_names_and_no_other_version(
    site: Site, files: list[Path], tmp_path: Path
) -> None:
    note = rejection_note(files[:2], tmp_path / "note.dcm", "113039", "Data Retention Policy Expired")
    site.send([note])
    assert apply_notes(site.spool, site.catalog, UID, time.time()) == 2
    assert apply_notes(site.spool, site.catalog, UID, time.time()) == 0
    assert {(c.action, c.code) for c in site.catalog.corrections(UID)} == {("noted", "113039")}
    site.send(files[:1])
    assert apply_notes(site.spool, site.catalog, UID, time.time()) == 1  # the same comes again: it stays out
    site.send(corrected(files[:1], tmp_path / "again", PatientID="RIGHT"))
    assert apply_notes(site.spool, site.catalog, UID, time.time()) == 0
    assert site.patients() == ["RIGHT", "TEST-a", "TEST-a"]  # with the note itself


def test_a_note_that_comes_before_what_it_rejects(site: Site, tmp_path: Path, data: Path) -> None:
    """It waits in its study, and takes out what it names whenever that comes; unknown objects are no trouble."""
    uid = study_uid("b")
    later = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "later", "b", every=30)
    site.send([rejection_note(later[:2], tmp_path / "note.dcm", "113001", "Rejected for Quality Reasons")])
    assert apply_notes(site.spool, site.catalog, uid, time.time()) == 0
    site.catalog.settle(uid, time.time(), None)
    site.send(later)
    assert apply_notes(site.spool, site.catalog, uid, time.time()) == 2
    assert len(site.catalog.instances(uid)) == len(later) - 2 + 1
    assert {c.action for c in site.catalog.corrections(uid)} == {"noted"}


def test_what_is_no_rejection_note_rejects_nothing(site: Site, files: list[Path], tmp_path: Path) -> None:
    best = rejection_note(files[:2], tmp_path / "best.dcm", "113013", "Best In Set")
    assert read_note(best, UID) is None
    assert read_note(files[0], UID) is None
    assert read_note(tmp_path / "missing.dcm", UID) is None
    (tmp_path / "broken.dcm").write_bytes(rejection_note(files, tmp_path / "n.dcm", "113001", "x").read_bytes()[:700])
    assert read_note(tmp_path / "broken.dcm", UID) is None
    foreign = read_note(tmp_path / "n.dcm", "1.2.3")
    assert foreign is not None
    assert foreign.objects == frozenset()  # of another study


def test_a_dropped_study_and_what_was_replaced_goes_after_its_time(site: Site, files: list[Path]) -> None:
    assert "would be taken out" in corrections.drop(site.config, UID, None, "quality", dry_run=True)
    assert len(site.catalog.instances(UID)) == 3
    with pytest.raises(UsageError, match="is no reason; reasons: quality, patient-safety"):
        corrections.drop(site.config, UID, None, "because", dry_run=False)
    corrections.drop(site.config, UID, None, "patient-safety", dry_run=False)
    assert site.catalog.instances(UID) == []
    with pytest.raises(UsageError, match="no such object"):
        corrections.drop(site.config, UID, None, "quality", dry_run=False)
    assert jobs.details(site.config, UID, None)["corrections"][0]["objects"] == 3
    area = Replaced(site.spool)
    assert area.tidy(time.time() - 60) == 0
    assert area.tidy(time.time() + 60) == 3
    assert site.files("replaced") == 0


def test_what_was_dropped_since_it_was_shown_does_not_come_back(site: Site, files: list[Path], tmp_path: Path) -> None:
    site.refused(corrected(files[:2], tmp_path / "again", PatientID="RIGHT"))
    shown = corrections.held(site.config, UID, None)
    uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    corrections.drop(site.config, UID, uid, "quality", dry_run=False)
    corrections.accept(site.config, UID, shown, 0)
    assert site.patients() == ["RIGHT", "TEST-a"]
    _back_in_time(site)
    assert reconcile(site.spool, site.catalog, read_instance) == Reconciled(0, 0, ())


def test_what_leaves_the_study_while_it_is_accepted_does_not_come_back(
    site: Site, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejection note, which no command keeps waiting, takes the object out between file and catalogue."""
    again = corrected(files[:1], tmp_path / "again", PatientID="RIGHT")
    site.refused(again)
    shown, replace_instances = corrections.held(site.config, UID, None), Catalog.replace_instances
    uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)

    def first_the_note(catalog: Catalog, *given: Any, **more: Any) -> list[Instance]:
        site.catalog.take_out(UID, [uid], "noted", "a note", "113001", now=time.time())
        return replace_instances(catalog, *given, **more)

    monkeypatch.setattr(Catalog, "replace_instances", first_the_note)
    corrections.accept(site.config, UID, shown, 0)
    _back_in_time(site)
    reconcile(site.spool, site.catalog, read_instance)
    assert site.patients() == ["TEST-a", "TEST-a"]


def test_a_version_that_is_sent_again_while_it_is_accepted_stays(
    site: Site, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver has seen a conflict, and would put into quarantine what stands by now."""
    again = corrected(files[:1], tmp_path / "again", PatientID="RIGHT")
    site.refused(again)

    def accepted_just_now(*_: object) -> bool:
        monkeypatch.undo()
        corrections.accept(site.config, UID, corrections.held(site.config, UID, None), 0)
        return False

    monkeypatch.setattr(c_store, "replace_known", accepted_just_now)
    site.send(again)
    assert site.patients() == ["RIGHT", "TEST-a", "TEST-a"]
    assert site.catalog.conflicts(UID) == []


def test_of_two_decisions_the_second_waits_and_finds_nothing_left(
    site: Site, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.refused(corrected(files, tmp_path / "again", PatientID="RIGHT"))
    shown, replace_instances, flock = corrections.held(site.config, UID, None), Catalog.replace_instances, fcntl.flock
    asked, both = threading.Semaphore(0), threading.Event()

    def counted(*given: Any) -> None:
        try:
            flock(*given)
        finally:  # it has been given the lock, or been refused it
            asked.release()

    def slowly(catalog: Catalog, *given: Any, **more: Any) -> list[Instance]:
        assert both.wait(60)
        return replace_instances(catalog, *given, **more)

    monkeypatch.setattr(fcntl, "flock", counted)
    monkeypatch.setattr(Catalog, "replace_instances", slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(corrections.accept, site.config, UID, shown, 0)
        assert asked.acquire(timeout=60)
        second = threads.submit(corrections.reject, site.config, UID, None)
        assert asked.acquire(timeout=60)
        both.set()
        assert "3 objects replaced" in first.result(60)
        with pytest.raises(UsageError, match="no object of this study waits"):
            second.result(60)
    assert site.patients() == ["RIGHT"] * 3
    with pytest.raises(UsageError, match="somebody has decided"):
        corrections.accept(site.config, UID, shown, 0)


def test_a_decision_does_not_wait_for_ever_for_one_that_stands_still(
    site: Site, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that was stopped (Ctrl-Z) keeps the lock; what only looks does not wait for it."""
    monkeypatch.setattr(one_decision, "_LONGEST_S", 0.0)
    with (site.config.storage.state / one_decision._LOCK).open("ab") as stopped:
        assert lock(stopped)
        with pytest.raises(UsageError, match="another decision is under way"):
            corrections.drop(site.config, UID, None, "quality", dry_run=False)
        assert "would be taken out" in corrections.drop(site.config, UID, None, "quality", dry_run=True)
    assert "3 objects of 1 series taken out" in corrections.drop(site.config, UID, None, "quality", dry_run=False)


def test_a_decision_makes_no_node_where_none_has_run(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text("")
    loaded = config.load(path)
    for decide in (
        lambda: corrections.drop(loaded, UID, None, "quality", dry_run=False),
        lambda: corrections.reject(loaded, UID, None),
    ):
        with pytest.raises(UsageError, match="has never run"):
            decide()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_accepting_more_of_a_correction_lets_nothing_back_in(site: Site, files: list[Path], tmp_path: Path) -> None:
    """All were refused, and are accepted one after the other; then the scanner sends its old images once more."""
    again = corrected(files, tmp_path / "again", StudyDate="20190203")
    site.refused(again)
    found = corrections.held(site.config, UID, None)
    for one in found:
        corrections.accept(site.config, UID, [one], 60)
    site.refused(files)
    assert {str(pydicom.dcmread(i.path).StudyDate) for i in site.catalog.instances(UID)} == {"20190203"}


def _back_in_time(site: Site) -> None:
    """A file counts as left behind once it is some seconds old."""
    back = time.time() - 60
    for path in site.spool.root.rglob("*.dcm"):
        os.utime(path, (back, back))
