"""A backup under load, restored elsewhere: every acknowledged image and every job is there, on both databases."""

import gc
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest

from dicomnode import config
from dicomnode.operations.backup import backup
from dicomnode.operations.restore import restore
from dicomnode.reception import spooled
from dicomnode.reception.reconcile import all_instances
from dicomnode.report.uids import derive
from dicomnode.store import restoring
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows import analysing as analysis_of_a_study
from dicomnode.workflows import runtime
from tests.conftest import ROOT
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid, write
from tests.helpers.databases import PostgreSQL
from tests.helpers.running import dicomnode
from tests.helpers.small_node import STUDY, SmallNode
from tests.helpers.waiting import until


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


def database(kind: str, name: str, server: Callable[[], PostgreSQL]) -> str:
    """`storage.database_url` of a database of its own."""
    if kind == "sqlite":
        return ""
    url = server().url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return url.replace("/postgres?", f"/{name}?")


class Load:
    """A scanner that sends study after study, until it is stopped; notes when each image was acknowledged."""

    def __init__(self, station: Station, source: Path, folder: Path) -> None:
        self.acknowledged: dict[str, float] = {}
        self.studies: list[str] = []
        self._station, self._source, self._folder = station, source, folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        slices = [pydicom.dcmread(path) for path in sorted(self._source.glob("*.dcm"))[:2]]
        number = 0
        while not self._stop.is_set():
            number += 1
            name = f"load{number}"
            (self._folder / name).mkdir(parents=True)
            uids = [derive("test instance", name, str(n)) for n in range(len(slices))]
            for dataset, uid in zip(slices, uids, strict=True):
                dataset.StudyInstanceUID, dataset.PatientID = study_uid(name), name
                dataset.SeriesInstanceUID = derive("test series", name)
                write(dataset, self._folder / name / f"{uid}.dcm", uid)
            self._station.send(sorted((self._folder / name).iterdir()))
            self.acknowledged |= dict.fromkeys(uids, time.time())
            self.studies.append(study_uid(name))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def nobody_else_may_read(folder: Path) -> bool:
    return not [path for path in (folder, *folder.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o077]


@pytest.fixture
def collected() -> Iterator[None]:
    """A worker that is stopped in the test's own process leaves a connection of its pool to the collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function BaseConnection.__del__")
def test_a_backup_under_load_is_the_whole_node_elsewhere(
    kind: str, tmp_path: Path, data: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def server() -> PostgreSQL:
        found: PostgreSQL = request.getfixturevalue("postgresql_server")
        return found

    source = data / "chest_tiny_cip" / "ct-64Dicom"
    names = ("sent", "away", "begun", "queued")
    sets = {name: make_study(source, tmp_path / "in" / name, name, every=4) for name in names}
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    accepts = pacs.answers
    blocked, go_on = threading.Event(), threading.Event()
    request.addfinalizer(go_on.set)
    analyse = analysis_of_a_study.analyse_study

    def analysing(work: Any, study_uid_: str, generation: int) -> str:
        if study_uid_ == study_uid("begun") and not go_on.is_set():
            blocked.set()
            go_on.wait(600)
            raise SystemExit  # its worker has gone
        return analyse(work, study_uid_, generation)

    monkeypatch.setattr(analysis_of_a_study, "analyse_study", analysing)
    # Tried once, and again when the node is restored: what retries here holds connections when its worker stops.
    patient = pacs.destination().replace("retry_first_s = 0.2\nretry_longest_s = 0.4", "retry_first_s = 5")
    assert "retry_first_s = 5" in patient
    first = Station(tmp_path / "here", patient, database_url=database(kind, "here", server))
    with running(pacs):
        with running(first):
            first.start_worker("old-0")
            first.send(sets["sent"])
            first.ended(study_uid("sent"), first.settle(study_uid("sent")), "delivered")
            pacs.answers = lambda _event: 0xA700
            for name in ("away", "begun", "queued"):
                first.send(sets[name])
                first.settle(study_uid(name))
                if name == "away":
                    first.ended(study_uid(name), 1, "analysed")
                if name == "begun":
                    until("begun", blocked.is_set, 60)
            first.catalog.begin_association("elsewhere,1,1", "SCANNER", "DICOMNODE", "127.0.0.1", time.time())
            load = Load(first, source, tmp_path / "load")
            until("load", lambda: len(load.studies) > 1, 60)
            try:
                made = backup(first.config, first.path, tmp_path / "backup", quiet, keys=tmp_path / "keys")
                before = {(j.study_uid, j.generation): j.state for j in first.catalog.jobs()}
            finally:
                load.stop()
            assert before[study_uid("begun"), 1] == "running"
            runtime.stop(0)
            first._running = False
            go_on.set()

        assert made.manifest.missing == 0 and made.manifest.instances >= sum(map(len, sets.values()))
        assert nobody_else_may_read(tmp_path / "backup") and nobody_else_may_read(tmp_path / "keys")
        assert not list((tmp_path / "backup").rglob("*.key"))
        there = tmp_path / "elsewhere" / "node"
        if kind == "postgresql":
            there.mkdir(parents=True, mode=0o700)
            text = first.path.read_text().replace("/here?", "/there?")
            (there / "ae_config.toml").write_text(text)
            database(kind, "there", server)
        done = restore(tmp_path / "backup", there / "ae_config.toml", quiet, keys=tmp_path / "keys")
        assert (done.instances, done.jobs, done.missing) == (made.manifest.instances, made.manifest.jobs, 0)
        assert nobody_else_may_read(there / "var")
        check_databases(config.load(there / "ae_config.toml"), before, tmp_path / "here")

        pacs.answers = accepts
        url = config.load(there / "ae_config.toml").storage.database_url
        second = Station(there, pacs.destination(), database_url=url)
        with running(second):
            second.clock.compare_spool()
            held = {i.sop_instance_uid: i for i in all_instances(second.catalog)}
            must = {uid for uid, at in load.acknowledged.items() if at < made.manifest.made_at}
            must |= {str(pydicom.dcmread(f).SOPInstanceUID) for files in sets.values() for f in files}
            assert must <= held.keys()
            assert all(spooled.digest(Path(i.path)) == i.sha256 for i in held.values())
            second.start_worker("new-0")
            for name in names:
                second.ended(study_uid(name), 1, "delivered", seconds=120)
            arrived = {d.study_uid for d in second.catalog.studies(1000, "receiving")}
            assert arrived and arrived <= {*load.studies, study_uid(f"load{len(load.studies) + 1}")}
            runtime.stop(0)
            second._running = False
        came = Counter(pacs.came)
        assert set(came.values()) == {1}, "an object was sent twice"
        assert len(came) == 3 * len(names)


def check_databases(there: config.Config, before: dict[tuple[str, int], str], old: Path) -> None:
    """What the restore has made of the catalogue and the queue."""
    catalog = Catalog.open(there.catalog_url, there.storage.state)
    with running(catalog):
        jobs = {(j.study_uid, j.generation): j for j in catalog.jobs()}
        assert {key: j.state for key, j in jobs.items()} == before
        assert catalog.dead_receivers(lambda _: False) == []
        assert {w.state for w in catalog.workers()} == {"gone"}
        planned = [d for key in jobs for d in catalog.deliveries(*key)]
        assert planned and all(Path(d.path).is_file() and old not in Path(d.path).parents for d in planned)
        assert all(Path(i.path).is_relative_to(there.storage.spool) for i in all_instances(catalog))
    assert str(old) not in text_of_databases(there), "the databases still name the folder of before"
    written = [p for folder in (there.storage.results, there.storage.spool) for p in folder.rglob("*") if p.is_file()]
    assert not [path for path in written if str(old).encode() in path.read_bytes()]


def text_of_databases(there: config.Config) -> str:
    """All rows of catalogue and queue."""
    if there.storage.database_url:
        command = ["pg_dump", "--data-only", "--inserts", "--dbname", there.storage.database_url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = ""
    for name in ("catalog.sqlite", "queue.sqlite"):
        with closing(sqlite3.connect(there.storage.state / name)) as connection:
            found += "\n".join(connection.iterdump())
    return found


def test_backup_and_restore_outlive_sigkill(tmp_path: Path) -> None:
    node = SmallNode(tmp_path / "here", images=150, size=100_000)
    keys = ["--keys", tmp_path / "keys"]
    there = tmp_path / "there" / "ae_config.toml"
    making = ["backup", tmp_path / "backup", "--copy", "--config", node.path, *keys]
    restoring_it = ["restore", tmp_path / "backup", "--config", there, *keys]
    killed = [killed_at(making, tmp_path / "backup", 60)]
    if not (tmp_path / "backup" / "backup.json").exists():
        done = dicomnode(*making)
        assert done.returncode == 0, done.stderr
    killed += [killed_at(restoring_it, tmp_path / "there", 60)]
    if restoring.begun(tmp_path / "there" / "var" / "state") is not None:
        done = dicomnode(*restoring_it)
        assert done.returncode == 0, done.stderr
    assert any(killed), "they were always faster"
    config_ = config.load(there)
    catalog = Catalog.open(config_.catalog_url, config_.storage.state)
    with running(catalog, node.catalog):
        held = {i.sop_instance_uid: Path(i.path).read_bytes() for i in catalog.instances(STUDY)}
        assert held == {i.sop_instance_uid: Path(i.path).read_bytes() for i in node.catalog.instances(STUDY)}
    assert len(held) == 150
    for spool in (tmp_path / "backup" / "spool", config_.storage.spool):
        assert not list(spool.rglob("*.part"))


def killed_at(command: Sequence[str | Path], folder: Path, count: int) -> bool:
    """Kill the command when `folder` holds so many images; False where it had ended by then."""
    arguments = [sys.executable, "-m", "dicomnode", *map(str, command)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("so far", lambda: process.poll() is not None or sum(1 for _ in folder.rglob("*.dcm")) >= count, 60)
    process.kill()
    return process.wait() == -signal.SIGKILL
