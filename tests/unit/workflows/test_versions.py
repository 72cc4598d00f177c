"""A study's results over its generations, step by step, without the queue: versions, re-encoding, rejection notes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

import dicomnode
from dicomnode import config
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.errors import PeerRejectedError, RefusedError
from dicomnode.network import association
from dicomnode.reception.corrections import put_away
from dicomnode.reception.rejection_notes import apply_notes
from dicomnode.reception.spooled import read_instance, split
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.store.spool import Spool
from dicomnode.workflows import analysing, deliver, study, worker
from dicomnode.workflows.versions import findings_of
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected, rejected_by, rejection_note

UID = study_uid("a")
RESULTS = ["measurements", "seg", "summary"]


class Served:
    """The classical segmenter, without a bundle."""

    def method(self, _profile: str | None = None) -> Method:
        return Method(ClassicalSegmenter(), None, None)

    def shadow(self) -> None:
        return None


@dataclass
class Bench:
    """What a worker works with, and a destination that takes everything."""

    work: worker.Work
    spool: Spool

    @property
    def catalog(self) -> Catalog:
        return self.work.catalog

    def receive(self, files: Sequence[Path], *, replacing: bool = False) -> None:
        news = []
        for path in files:
            read, (meta, content) = read_instance(path), split(path.read_bytes())
            stored = self.spool.store(read.study_uid, read.series_uid, read.sop_instance_uid, meta, content)
            keyed = self.catalog.patient_key.keyed(read.patient_hash)
            news.append(replace(read, path=str(stored.path), size=stored.size, patient_hash=keyed))
        if replacing:
            old = self.catalog.replace_instances(news, "newest", "caller", now=time.time())
            put_away(self.spool, self.catalog, old, time.time())
        else:
            for one in news:
                self.catalog.record(one)

    def drop(self) -> None:
        uids = [i.sop_instance_uid for i in self.catalog.instances(UID)]
        gone = self.catalog.take_out(UID, uids, "dropped", "me", "113037", now=time.time())
        put_away(self.spool, self.catalog, gone, time.time())

    def retry(self, generation: int) -> None:
        assert self.catalog.open_generation(UID, generation, "retried", now=time.time()) == generation + 1

    def result(self, *, arrives: bool = True) -> dict[str, tuple[str, Dataset]]:
        """Settle where that is due, run the steps; by object how its delivery was planned, and what it is."""
        known = self.catalog.study(UID)
        assert known is not None
        generation = known.generation
        if known.state == "receiving":
            generation = self.catalog.settle(UID, time.time(), None).generation
        self.catalog.set_state(UID, generation, "running", now=time.time())
        try:
            status = analysing.analyse_study(self.work, UID, generation)
        except RefusedError as error:
            status = analysing.refuse(self.work, UID, generation, error)
        for step, arguments in ((study.link_step, ()), (study.encode_step, (status,))):
            step.__wrapped__(UID, generation, *arguments)  # type: ignore[attr-defined]
        found = {}
        for d in self.catalog.deliveries(UID, generation):
            found[d.object] = (d.state, pydicom.dcmread(d.path))
            if d.state == "pending" and arrives:
                self.catalog.mark_delivery(
                    UID, generation, "pacs", d.object, "delivered", status=0, text="", attempts=1, now=time.time()
                )
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        '[analysis]\nradiomics = false\n[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "127.0.0.1"\nport = 9\n'
        "reject_old = true\n"
    )
    loaded = config.load(path)
    prepare_folders(loaded)
    catalog = Catalog.open(loaded.catalog_url, loaded.storage.state)
    made = Bench(worker.Work(loaded, catalog, Served()), Spool(loaded.storage.spool))  # type: ignore[arg-type]
    monkeypatch.setattr(worker, "_work", made.work)
    yield made
    catalog.close()


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=2)


def uids(result: dict[str, tuple[str, Dataset]]) -> set[str]:
    return {str(d.SOPInstanceUID) for name, (_, d) in result.items() if name != "rejection"}


def test_results_over_corrections_and_retries(
    bench: Bench, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive(files)
    first = bench.result()
    assert sorted(first) == RESULTS  # nothing to reject

    with monkeypatch.context() as patched:
        patched.setattr(analysing, "analyse", None)  # nothing is computed
        bench.receive(corrected(files, tmp_path / "right", PatientID="RIGHT"), replacing=True)
        second = bench.result()
    assert {d.PatientID for name, (_, d) in second.items() if name != "rejection"} == {"RIGHT"}
    assert all("v2, replaces v1" in d.SeriesDescription for name, (_, d) in second.items() if name != "rejection")
    assert "PredecessorDocumentsSequence" in second["measurements"][1]
    note = second["rejection"][1]
    assert (note.PatientID, rejected_by([note])) == ("TEST-a", {"113037": uids(first)})

    bench.retry(2)
    third = bench.result()
    assert (uids(third), {state for state, _ in third.values()}) == (uids(second), {"delivered"})

    with monkeypatch.context() as patched:
        patched.setattr(dicomnode, "__version__", "99.0")
        bench.retry(3)
        fourth = bench.result()
    assert not uids(fourth) & uids(second)
    assert rejected_by([fourth["rejection"][1]]) == {"113001": uids(second)}

    bench.retry(4)  # the method of before: the same numbers, but those objects were rejected
    fifth = bench.result()
    assert not uids(fifth) & (uids(second) | uids(fourth))
    assert "v4, replaces v3" in fifth["seg"][1].SeriesDescription
    assert rejected_by([fifth["rejection"][1]]) == {"113001": uids(fourth)}


class ComputedError(Exception):
    """The study was computed again."""


def test_what_is_encoded_anew_and_what_is_computed(
    bench: Bench, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: object, **__: object) -> None:
        raise ComputedError

    bench.receive(files)
    bench.result()
    monkeypatch.setattr(analysing, "analyse", compute)
    again = corrected(
        files, tmp_path / "again", StudyDate="20190203", AccessionNumber="A2", PatientBirthDate="19500101"
    )
    bench.receive(again, replacing=True)
    second = bench.result()
    results = [d for name, (_, d) in second.items() if name != "rejection"]
    assert {(d.StudyDate, d.AccessionNumber, d.PatientBirthDate) for d in results} == {("20190203", "A2", "19500101")}
    found = findings_of(bench.work, UID, 2)
    assert found is not None
    assert found.series is not None
    assert found.series.study_date == "20190203"
    assert rejected_by([second["rejection"][1]]).keys() == {"113001"}  # the patient is the same

    bench.receive(corrected(again[:1], tmp_path / "one", InstitutionName="A hospital"), replacing=True)
    third = bench.result()
    assert (uids(third), {state for state, _ in third.values()}) == (uids(second), {"delivered"})

    bench.receive(corrected(again, tmp_path / "described", StudyDescription="Thorax"), replacing=True)
    with pytest.raises(ComputedError):
        bench.result()


def test_what_a_correction_came_into_is_no_later_results_source(
    bench: Bench, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes files away that were still to be read: what was made of the rest would pass for the whole study's."""
    bench.receive(files)
    right = corrected(files, tmp_path / "right", PatientID="RIGHT")

    def corrected_meanwhile(paths: list[Path], *arguments: object, **more: object) -> object:
        found = analyse(paths[: len(paths) * 3 // 4], *arguments, **more)  # type: ignore[arg-type]
        bench.receive(right, replacing=True)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(analysing, "analyse", corrected_meanwhile)
        assert bench.result() == {}
    second = bench.result()
    assert sorted(second) == RESULTS
    found = findings_of(bench.work, UID, 2)
    assert found is not None
    assert found.series is not None
    assert found.series.slices == len(files)
    assert {d.PatientID for _, d in second.values()} == {"RIGHT"}


def test_results_are_taken_back_when_the_rejected_images_have_been_removed_here(
    bench: Bench, files: list[Path], tmp_path: Path
) -> None:
    bench.receive(files)
    first = bench.result()
    bench.catalog.set_state(UID, 1, "delivered", now=time.time())
    known = bench.catalog.study(UID)
    assert known is not None
    assert bench.catalog.release(known, lambda: bench.spool.move_out(UID))
    for path in results_folder(bench.work.config.storage.results, UID, 1).iterdir():
        if path.name != FINDINGS:
            path.unlink()
    bench.receive([rejection_note(files, tmp_path / "note.dcm", "113037", "Rejected for Patient Safety Reasons")])
    for _ in range(2):
        assert apply_notes(bench.spool, bench.catalog, UID, time.time()) == 0
    second = bench.result()
    note = second["rejection"][1]
    assert (note.PatientID, rejected_by([note])) == ("TEST-a", {"113037": uids(first)})
    bench.receive(files)  # they come again, from a sender that knows of no rejection
    assert apply_notes(bench.spool, bench.catalog, UID, time.time()) == len(files)


def test_a_note_says_why_results_of_before_it_go_and_of_no_later_ones(
    bench: Bench, files: list[Path], tmp_path: Path
) -> None:
    bench.receive(files)
    first = bench.result()
    bench.receive([rejection_note(files[:1], tmp_path / "note.dcm", "113037", "Rejected for Patient Safety Reasons")])
    now = time.time()
    assert apply_notes(bench.spool, bench.catalog, UID, now) == 1
    bench.catalog.settle(UID, now, None)  # as the clock does
    second = bench.result()
    assert rejected_by([second["rejection"][1]]) == {"113037": uids(first)}
    bench.receive(corrected(files[1:], tmp_path / "corrected", AccessionNumber="OTHER"), replacing=True)
    assert rejected_by([bench.result()["rejection"][1]]) == {"113001": uids(second)}


class Refusing:
    """A destination that takes results, but no Key Objects."""

    def send(self, paths: Sequence[Path]) -> list[association.Sent]:
        if paths[0].suffix == ".rejection":
            raise PeerRejectedError("no Key Objects here")
        return [association.Sent("1.2", 0, "stored")]


def test_a_destination_that_refuses_the_note_has_a_way_on(
    bench: Bench, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive(files)
    bench.result()
    bench.receive(corrected(files, tmp_path / "right", PatientID="RIGHT"), replacing=True)
    bench.result(arrives=False)
    monkeypatch.setattr(deliver.destinations, "reach", lambda _: Refusing())
    send = deliver.send_step.__wrapped__  # type: ignore[attr-defined]
    assert send(UID, 2, "pacs") is None
    assert bench.catalog.conclude(UID, 2, now=time.time()) == "failed"
    (lost,) = [d for d in bench.catalog.deliveries(UID, 2) if d.state == "rejected"]
    assert lost.object == "rejection"

    # What `jobs retry` does, once the configuration says so.
    pacs = bench.work.config.destination[0].model_copy(update={"reject_old": False})
    without = bench.work.config.model_copy(update={"destination": (pacs,)})
    monkeypatch.setattr(worker, "_work", replace(bench.work, config=without))
    bench.catalog.note_attempt(lost, "pending", text="retried manually", now=time.time())
    bench.catalog.set_state(UID, 2, "analysed", now=time.time())
    assert send(UID, 2, "pacs") is None
    assert bench.catalog.conclude(UID, 2, now=time.time()) == "delivered"
    assert [s.study_uid for s in bench.catalog.releasable(time.time() + 60, 0.0)] == [UID]


def test_a_dropped_study_takes_its_results_back(
    bench: Bench, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    bench.receive(files)
    first = bench.result()
    bench.drop()
    dropped = bench.result()
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [], "a person wanted it so"
    refusal = findings_of(bench.work, UID, 2)
    assert refusal is not None
    assert refusal.refused_by == bench.work.digest
    assert list(dropped) == ["rejection"]
    assert rejected_by([dropped["rejection"][1]]) == {"113037": uids(first)}
    job = bench.catalog.job(UID, 2)
    assert job is not None
    assert (job.state, str(job.reason).partition(":")[0]) == ("refused", "nothing-left")
    bench.receive(files)
    again = bench.result()
    assert sorted(again) == RESULTS
    assert not uids(again) & uids(first)
