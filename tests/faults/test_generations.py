"""Late and changed studies: generations, predecessors, resends, conflicts."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.errors import PeerRejectedError, UsageError
from dicomnode.operations import jobs
from dicomnode.results import reader_flags
from dicomnode.store.results_folder import results_folder
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import localizer, make_study, study_uid
from tests.helpers.answering import Answering
from tests.helpers.waiting import until

UID = study_uid("a")
OBJECTS = {"SEG": 1, "SR": 1, "OT": 1}


@pytest.fixture
def station(tmp_path: Path, pacs: Pacs) -> Iterator[Station]:
    """A node that delivers to the PACS; its worker is the test's to start."""
    made = Station(tmp_path / "node", pacs.destination())
    with running(made):
        yield made


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a")


def test_case_01_a_late_slice_opens_a_new_generation_that_names_the_old_result(
    files: list[Path], pacs: Pacs, station: Station
) -> None:
    station.start_worker()
    station.send(files[:-1])
    assert station.settle(UID) == 1
    station.ended(UID, 1, "delivered")
    first = {d.SOPInstanceUID: d for d in pacs.held()}
    assert Counter(d.Modality for d in first.values()) == OBJECTS
    station.send(files[-1:])
    assert station.settle(UID) == 2
    station.ended(UID, 2, "delivered")
    second = {d.SOPInstanceUID: d for d in pacs.held() if d.SOPInstanceUID not in first}
    assert Counter(d.Modality for d in second.values()) == OBJECTS
    (old,) = [d for d in first.values() if d.Modality == "SR"]
    (new,) = [d for d in second.values() if d.Modality == "SR"]
    named = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in old
    assert station.state(UID, 1) == "delivered"
    with pytest.raises(UsageError, match="superseded by generation 2"):
        jobs.retry(station.config, UID, 1)


@pytest.mark.parametrize(("missing", "complete"), [(None, True), (40, False)], ids=["contiguous", "with a gap"])
def test_case_02_positions_and_the_release_tell_whether_a_study_is_complete(
    files: list[Path], tmp_path: Path, missing: int | None, complete: bool
) -> None:
    """Nobody tells the number of slices. Without a gap the release is the end; with one the node waits in silence."""
    station = Station(tmp_path / "node", "", quiet_s=3600)
    with running(station):
        station.send([path for number, path in enumerate(files) if number != missing])
        until("released", lambda: _bringers(station) == {"released"}, 20)
        settled = station.clock.settle()
        assert settled == ([(UID, 1)] if complete else [])
        if not complete:
            station.send([files[40]])  # it was only late: the study is complete now, in its first generation
            assert station.settle(UID) == 1


@pytest.mark.parametrize("answers", [True, False])
def test_case_02_the_pacs_that_has_the_same_images_counts_them(
    files: list[Path], tmp_path: Path, answers: bool
) -> None:
    """Two slices at one end lack, which no position tells; a PACS knows. One that does not answer stops nothing."""
    archive = Answering()
    archive.find = lambda _event: iter([(0xFF00, _series(files)), (0x0000, None)] if answers else [(0xA700, None)])
    table = f'[[destination]]\nname = "pacs"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive.port}'
    station = Station(tmp_path / "node", table, quiet_s=3600, settle='count_at = "pacs"')
    try:
        with running(station):
            station.send(files[:-2])
            until("released", lambda: _bringers(station) == {"released"}, 20)
            until("asked", lambda: station.clock.settle() or archive.asked, 20)
            if answers:
                assert station.clock.settle() == []
                station.send(files[-2:])
            until("settled", station.clock.settle, 20)
            assert len(station.catalog.instances(UID)) == len(files) - (0 if answers else 2)
    finally:
        archive.close()


def test_images_that_the_pacs_lists_and_nobody_sends_are_told_of(files: list[Path], tmp_path: Path) -> None:
    """The wait for them ends; the job and the findings' folder say how many are missing."""
    archive = Answering()
    archive.find = lambda _event: iter([(0xFF00, _series(files)), (0x0000, None)])
    table = f'[[destination]]\nname = "pacs"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive.port}'
    station = Station(tmp_path / "node", table, quiet_s=3600, settle='count_at = "pacs"\ncount_wait_s = 2')
    try:
        with running(station):
            station.send(files[:-2])
            until("settled", station.clock.settle, 60)
            job = station.catalog.job(UID, 1)
            assert job is not None
            assert job.reason is not None
            assert job.reason.endswith(f"{len(files)} images, {len(files) - 2} arrived: 2 missing")
            folder = results_folder(station.config.storage.results, UID, 1)
            assert [f.code for f in reader_flags.of_reception(folder)] == ["images-missing"]
    finally:
        archive.close()


def _series(files: list[Path]) -> Dataset:
    answer = Dataset()
    answer.QueryRetrieveLevel = "SERIES"
    answer.StudyInstanceUID = UID
    answer.SeriesInstanceUID = pydicom.dcmread(files[0]).SeriesInstanceUID
    answer.NumberOfSeriesRelatedInstances = len(files)
    return answer


def _bringers(station: Station) -> set[str | None]:
    return {b.closed for study in station.catalog.unsettled(2e9) for b in study.bringers}


def test_a_generation_that_is_overtaken_delivers_nothing(files: list[Path], pacs: Pacs, station: Station) -> None:
    """The worker begins only when the newer generation has settled: of the older one, nothing may arrive."""
    station.send(files[:-1])
    assert station.settle(UID) == 1
    station.catalog.set_state(UID, 1, "running", now=0.0)  # as if a worker had just begun
    station.send(files[-1:])
    assert station.settle(UID) == 2
    station.start_worker()
    station.ended(UID, 2, "delivered")
    assert station.state(UID, 1) == "superseded"
    assert Counter(d.Modality for d in pacs.held()) == OBJECTS
    (report,) = [d for d in pacs.held() if d.Modality == "SR"]
    assert "PredecessorDocumentsSequence" not in report  # nobody holds one


def test_a_delivery_that_waits_is_dropped_when_a_newer_generation_settles(files: list[Path], tmp_path: Path) -> None:
    pacs = Pacs(tmp_path / "pacs")  # away: not started
    station = Station(tmp_path / "node", pacs.destination())
    with running(station):
        station.start_worker()
        station.send(files[:-1])
        station.settle(UID)
        station.ended(UID, 1, "analysed")
        station.send(files[-1:])
        station.settle(UID)
        station.ended(UID, 2, "analysed")
        pacs.start()
        with running(pacs):
            station.ended(UID, 2, "delivered")
            assert {d.state for d in station.catalog.deliveries(UID, 1)} == {"superseded"}
            assert sorted(pacs.came) == sorted(d.sop_instance_uid for d in station.catalog.deliveries(UID, 2))


def test_a_resend_costs_nothing_and_a_change_elsewhere_delivers_nothing_twice(
    files: list[Path], pacs: Pacs, station: Station, tmp_path: Path
) -> None:
    station.start_worker()
    station.send(files)
    station.settle(UID)
    station.ended(UID, 1, "delivered")
    came = list(pacs.came)
    station.send(files)
    assert station.clock.settle() == []
    assert station.state(UID, 1) == "delivered"
    station.send([localizer(files[0], tmp_path / "localizer.dcm", "a")])
    assert station.settle(UID) == 2
    shown = station.ended(UID, 2, "delivered")
    assert pacs.came == came  # the same series, the same result: what the PACS holds is still true
    assert {d["text"] for d in shown["deliveries"]} == {"unchanged since generation 1"}


def test_case_12_other_content_under_a_taken_uid_is_quarantined_and_flagged(files: list[Path], tmp_path: Path) -> None:
    station = Station(tmp_path / "node", "")
    with running(station):
        station.send(files)
        changed = pydicom.dcmread(files[3])
        changed.PixelData = bytes(len(changed.PixelData))
        changed.save_as(tmp_path / "changed.dcm")
        for _ in range(2):
            with pytest.raises(PeerRejectedError, match="0xC001"):
                station.send([tmp_path / "changed.dcm"])
        station.settle(UID)
        kept = {i.sop_instance_uid: Path(i.path) for i in station.catalog.instances(UID)}
        assert pydicom.dcmread(kept[changed.SOPInstanceUID]).PixelData == pydicom.dcmread(files[3]).PixelData
        shown = jobs.details(station.config, UID, None)
        assert [c["sop_instance_uid"] for c in shown["conflicts"]] == [changed.SOPInstanceUID]
        assert "SOP Instance UIDs received again with different content: 1" in shown["flags"]
        (row,) = jobs.overview(station.config, None, 10)
        assert row["flags"] == shown["flags"]
        quarantine = station.config.storage.spool / "quarantine" / f"{shown['conflicts'][0]['sha256']}.dcm"
        assert pydicom.dcmread(quarantine).PixelData == changed.PixelData


def test_case_13_two_patients_in_one_study_are_held_without_a_result(
    files: list[Path], pacs: Pacs, station: Station
) -> None:
    other = pydicom.dcmread(files[3])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(files[3])
    station.start_worker()
    station.send(files)
    until("held", lambda: station.clock.settle() == [] and station.catalog.job(UID, 1), 20)
    shown = jobs.details(station.config, UID, 1)
    assert shown["state"] == "held"
    assert shown["reason"] == "two-patients"
    station.clock.reconcile()
    assert station.state(UID, 1) == "held"
    assert pacs.came == []
    assert station.catalog.releasable(2e9, 0.0) == []
