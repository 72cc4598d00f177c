"""Two thousand slices, a pause in mid-study, the same series from two AEs at once: what becomes of each."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

from dicomnode.analysis.series.selection import group, read_headers, select
from dicomnode.report.uids import derive
from dicomnode.service.clock import Housekeeping
from dicomnode.store.records import Study
from dicomnode.workflows.queue import Queue
from tests.faults.station import Station, running
from tests.faults.studies import study_uid, write
from tests.helpers.receiving import Receiving
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until

SLICES = 2000
_BETWEEN = 26  # so many thin slices in place of each of the 79


def many_thin_slices(source: Path, folder: Path) -> list[Path]:
    """The study "thin": the small chest CT with each of its slices sent as many thin ones, 0.15 mm apart."""
    slices = sorted((pydicom.dcmread(p) for p in source.glob("*.dcm")), key=lambda d: float(d.ImagePositionPatient[2]))
    step = float(slices[1].ImagePositionPatient[2] - slices[0].ImagePositionPatient[2]) / _BETWEEN
    folder.mkdir()
    made: list[Path] = []
    for dataset in slices:
        dataset.StudyInstanceUID = study_uid("thin")
        dataset.SeriesInstanceUID = derive("test series", "thin")
        dataset.SliceThickness = f"{step:.4f}"
        bottom = float(dataset.ImagePositionPatient[2])
        for part in range(min(_BETWEEN, SLICES - len(made))):
            dataset.ImagePositionPatient[2] = f"{bottom + part * step:.4f}"
            dataset.InstanceNumber = len(made) + 1
            made.append(write(dataset, folder / f"{len(made):04}.dcm", derive("test instance", "thin", str(len(made)))))
    return made


def test_two_thousand_slices_are_one_generation_and_one_series(data: Path, tmp_path: Path) -> None:
    """What its analysis costs stands in docs/evidence/durability.md: too much for here."""
    files = many_thin_slices(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study")
    assert len(files) == SLICES
    station = Station(tmp_path / "node", "", quiet_s=60)
    with running(station):
        station.send(files)
        assert station.settle(study_uid("thin")) == 1
        instances = station.catalog.instances(study_uid("thin"))
        assert len(instances) == SLICES
        found, unreadable = read_headers([Path(one.path) for one in instances])
        selection = select(group(found), unreadable)
        assert selection.chosen is not None and len(selection.chosen.headers) == SLICES
        assert selection.rejected == ()


class Settling:
    """The clock of a node that only receives, by hand."""

    def __init__(self, node: Receiving) -> None:
        self.catalog, self.queue = node.catalog(), Queue(node.config)
        self.clock = Housekeeping(node.config, self.catalog, self.queue)

    def settled(self, generation: int) -> Study:
        def look() -> Study | None:
            self.clock.settle()
            study = self.catalog.study("1.2")
            return study if study is not None and study.generation == generation else None

        found = until(f"generation {generation}", look, 30)
        assert found is not None
        return found

    def states(self) -> list[str]:
        jobs = [self.catalog.job("1.2", generation) for generation in (1, 2)]
        return [job.state for job in jobs if job is not None]


@contextmanager
def settling(node: Receiving) -> Iterator[Settling]:
    made = Settling(node)
    try:
        yield made
    finally:
        made.queue.close()
        made.catalog.close()
        node.kill()


def test_a_pause_longer_than_the_quiet_time_costs_one_generation_and_no_image(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", node="network_timeout_s = 600\n[settle]\nquiet_s = 1\n")
    with settling(node) as by_hand, associated(node) as association:
        for number in (1, 2, 3):
            assert association.send_c_store(ct(number)).Status == 0x0000
        assert by_hand.settled(1).instances == 3  # the sender pauses, for longer than anybody waits
        for number in (4, 5):
            assert association.send_c_store(ct(number)).Status == 0x0000
        association.release()
        assert by_hand.settled(2).instances == 5
        assert by_hand.states() == ["superseded", "queued"]


def test_a_pause_longer_than_the_network_timeout_ends_the_association_and_loses_nothing(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", node="network_timeout_s = 1\n[settle]\nquiet_s = 3\n")
    with settling(node) as by_hand:
        with associated(node) as association:
            for number in (1, 2, 3):
                assert association.send_c_store(ct(number)).Status == 0x0000
            until("the association is ended", lambda: association.is_aborted, 30)
        assert by_hand.settled(1).instances == 3
        with associated(node) as association:  # a modality sends the whole study again
            for number in (1, 2, 3, 4, 5):
                assert association.send_c_store(ct(number)).Status == 0x0000
        assert by_hand.settled(2).instances == 5
        assert len(list(node.config.storage.spool.rglob("*.dcm"))) == 5
        assert by_hand.states() == ["superseded", "queued"]


def test_the_same_series_from_two_callers_at_once_is_one_study(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", node="[settle]\nquiet_s = 60\nrelease_s = 0\n", receivers=2)
    numbers, answers = range(1, 61), list[int]()
    begin = threading.Barrier(2)

    def send(calling: str) -> None:
        with associated(node, calling) as association:
            begin.wait(60)
            answers.extend(association.send_c_store(ct(number)).Status for number in numbers)

    with settling(node) as by_hand:
        senders = [threading.Thread(target=send, args=(calling,)) for calling in ("MODALITY", "OLDPACS")]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert answers == [0x0000] * 2 * len(numbers)
        assert by_hand.settled(1).instances == len(numbers)
        assert len(list(node.config.storage.spool.rglob("*.dcm"))) == len(numbers)
        assert by_hand.states() == ["queued"] and by_hand.catalog.conflicts("1.2") == []
        by_hand.clock.settle()
        study = by_hand.catalog.study("1.2")
        assert study is not None and study.generation == 1
