"""A study is measured before it settles: what is taken of that, what is thrown away, and who waits for whom."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dicomnode import config
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Method
from dicomnode.reception.spooled import read_instance, split
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Lease
from dicomnode.store.results_folder import FINDINGS, LABELS, results_folder
from dicomnode.store.spool import Spool
from dicomnode.workflows import analysing, analyst
from dicomnode.workflows.ahead import Ahead
from dicomnode.workflows.analyst import Analyst
from dicomnode.workflows.lookout import Lookout
from dicomnode.workflows.worker import Work
from tests.helpers.ct_files import ct_series, write
from tests.helpers.waiting import until

METHOD = Method(ClassicalSegmenter(), None, None)


class Served:
    """The classical segmenter, without a bundle."""

    def method(self, _profile: str | None = None) -> Method:
        return METHOD

    def shadow(self) -> None:
        return None


@dataclass
class Watching:
    """Stands for a worker's analysts; notes what it was asked to measure."""

    is_idle: bool = True
    asked: tuple[str, ...] = ()

    def look_ahead(self, study_uid: str) -> None:
        self.asked += (study_uid,)


@dataclass
class Bench:
    """A node's store, and a study of 60 slices on its way into it."""

    work: Work
    spool: Spool
    files: list[Path]
    association: int

    @property
    def catalog(self) -> Catalog:
        return self.work.catalog

    @property
    def study_uid(self) -> str:
        return read_instance(self.files[0]).study_uid

    def receive(self, files: Sequence[Path]) -> None:
        for path in files:
            read, (meta, content) = read_instance(path), split(path.read_bytes())
            stored = self.spool.store(read.study_uid, read.series_uid, read.sop_instance_uid, meta, content)
            news = replace(read, path=str(stored.path), size=stored.size, association_id=self.association)
            self.catalog.record(replace(news, patient_hash=self.catalog.patient_key.keyed(read.patient_hash)))

    def release(self) -> None:
        self.catalog.end_association(self.association, "released", time.time())

    def analysed(self, ahead: Ahead | None = None) -> tuple[dict[str, Any], np.ndarray]:
        """Settle and analyse; the findings without times, and the labels."""
        if not self.catalog.jobs():
            self.catalog.settle(self.study_uid, time.time(), None)
        assert analysing.analyse_study(self.work, self.study_uid, 1, ahead) == "analysed"
        folder = results_folder(self.work.config.storage.results, self.study_uid, 1)
        found = json.loads((folder / FINDINGS).read_text("utf-8"))
        with np.load(folder / LABELS) as kept:
            return {**found, "timings_s": None}, kept["labels"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    return write(
        ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"], PatientID="A"),
        tmp_path_factory.mktemp("study"),
    )


@pytest.fixture
def bench(files: list[Path], tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "ae_config.toml").write_text("[analysis]\nradiomics = false\n")
    loaded = config.load(tmp_path / "ae_config.toml")
    prepare_folders(loaded)
    catalog = Catalog.open(loaded.catalog_url, loaded.storage.state)
    association = catalog.begin_association("run", "CT", "NODE", "192.0.2.1", time.time())
    yield Bench(Work(loaded, catalog, cast(Any, Served())), Spool(loaded.storage.spool), files, association)
    catalog.close()


@pytest.fixture
def uncomputed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let nothing be computed any more."""
    return lambda: monkeypatch.setattr(analysing, "analyse", None)


def test_what_was_measured_ahead_is_the_result_bit_for_bit(bench: Bench, uncomputed: Callable[[], None]) -> None:
    bench.receive(bench.files)
    ahead = Ahead()
    assert ahead.measure(bench.work, bench.study_uid)
    # Nothing of it is anywhere but in memory.
    assert list(bench.work.config.storage.results.iterdir()) == []
    assert bench.catalog.jobs() == []
    anew, labels = bench.analysed()
    uncomputed()
    taken, labels_taken = bench.analysed(ahead)
    assert taken == anew
    assert np.array_equal(labels_taken, labels)


@pytest.mark.parametrize("late", ["an image more", "an image replaced", "another method", "already taken"])
def test_another_question_is_asked_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    bench.receive(bench.files[: -1 if late == "an image more" else None])
    ahead = Ahead()
    assert ahead.measure(bench.work, bench.study_uid)
    if late == "an image more":
        bench.receive(bench.files[-1:])
    elif late == "an image replaced":
        one = bench.catalog.instances(bench.study_uid)[0]
        bench.catalog.replace_instances([replace(one, sha256="0" * 64)], "newest", "caller", now=time.time())
    elif late == "another method":
        monkeypatch.setattr("dicomnode.analysis.pipeline.MEASURES", -1)
    else:
        bench.analysed(ahead)
    if not bench.catalog.jobs():
        bench.catalog.settle(bench.study_uid, time.time(), None)
    monkeypatch.setattr(analysing, "analyse", _computed)
    with pytest.raises(_ComputedError):
        analysing.analyse_study(bench.work, bench.study_uid, 1, ahead)
    with pytest.raises(_ComputedError):  # and it is forgotten
        analysing.analyse_study(bench.work, bench.study_uid, 1, ahead)


class _ComputedError(Exception):
    """The study was computed."""


def _computed(*_: object, **__: object) -> None:
    raise _ComputedError


def test_an_image_that_comes_while_it_is_measured_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.receive(bench.files[:-1])

    def segment(volume: Any) -> Any:
        bench.receive(bench.files[-1:])
        return METHOD.segmenter(volume)

    slow = replace(METHOD, segmenter=cast(Any, _Slow(segment)))
    monkeypatch.setattr(Served, "method", lambda *_: slow)
    assert not Ahead().measure(bench.work, bench.study_uid)


@dataclass(frozen=True)
class _Slow:
    does: Callable[[Any], Any]
    name: str = ClassicalSegmenter.name
    version: str = ClassicalSegmenter.version
    family: str = ClassicalSegmenter.family

    def __call__(self, volume: Any) -> Any:
        return self.does(volume)

    def lobes(self, _volume: Any, _lungs: Any) -> None:
        return None


def test_only_what_waits_to_settle_is_measured(bench: Bench) -> None:
    watching = Watching()
    lookout = Lookout(replace(bench.work, analyst=cast(Analyst, watching)))
    assert lookout.look(time.time()) is None  # nothing has come
    bench.receive(bench.files)
    assert lookout.look(time.time()) is None  # the association is open
    bench.release()
    watching.is_idle = False
    assert lookout.look(time.time()) is None
    watching.is_idle = True
    assert lookout.look(time.time() + 60) is None  # it settles now
    assert lookout.look(time.time()) == bench.study_uid
    assert lookout.look(time.time()) is None  # once, as it is
    assert watching.asked == (bench.study_uid,)


def test_a_gap_work_that_waits_and_other_workers_come_first(bench: Bench) -> None:
    watching = Watching()
    lookout = Lookout(replace(bench.work, analyst=cast(Analyst, watching)))
    bench.receive([*bench.files[:20], *bench.files[21:]])
    bench.release()
    assert lookout.look(time.time()) is None
    bench.receive([bench.files[20]])
    for name in ("one", "two"):
        bench.catalog.register_worker(name, "4")
    assert lookout.look(time.time()) is None
    assert watching.asked == ()


class Slow:
    """Stands for an analyst's process: answers when it is told to, or dies."""

    def __init__(self) -> None:
        self.go_on, self.begun = threading.Event(), threading.Event()
        self.asked: list[str] = []
        self.dies = False

    def look_ahead(self, study_uid: str, _lease: Lease, _limits: Any) -> dict[str, Any]:
        self.asked.append(f"ahead {study_uid}")
        self.begun.set()
        assert self.go_on.wait(30)
        if self.dies:
            raise analyst._DiedError("signal 9")
        return {"measured": True}

    def ask(self, study_uid: str, generation: int, _lease: Lease, _limits: Any) -> dict[str, Any]:
        self.asked.append(f"{study_uid} {generation}")
        return {"status": "analysed", "leaves": False}

    def leave(self) -> None:
        pass


@pytest.mark.parametrize("dies", [False, True])
def test_an_analysis_waits_for_what_is_measured_ahead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    begun: list[Slow] = []

    def start(_self: Analyst) -> Slow:
        begun.append(Slow())
        return begun[-1]

    monkeypatch.setattr(Analyst, "_start", start)
    those = Analyst(bench.work.config)
    those.hold(Lease("w", 1))
    (first,) = begun
    first.dies = dies
    looking = threading.Thread(target=those.look_ahead, args=("1.2",))
    looking.start()
    assert first.begun.wait(30)
    assert not those.is_idle
    those.look_ahead("1.3")  # one at a time
    ended: list[str] = []
    analysis = threading.Thread(target=lambda: ended.append(those.analyse("1.2", 1)))
    analysis.start()
    until("an analysis that has begun", lambda: list(bench.work.config.storage.results.rglob("attempt*")), 30)
    assert len(begun) == 1
    assert ended == []
    first.go_on.set()
    for thread in (looking, analysis):
        thread.join(30)
    assert ended == ["analysed"]
    last = begun[-1]
    assert (len(begun), last.asked[-1]) == (1 + dies, "1.2 1")
    assert first.asked[0] == "ahead 1.2"
    those.close()
