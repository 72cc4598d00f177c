"""Old studies from a folder: through the receiver's hands, each once, and the folder stays as it was."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import importing
from dicomnode.operations.importing import ImportOptions, ImportReport
from dicomnode.operations.pacing import Pacing, Rate
from dicomnode.service.clock import Housekeeping
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows.calls import study_priority
from dicomnode.workflows.queue import Queue
from tests.helpers.ct_files import ct_series, write

QUICK = ImportOptions(rate=Rate())


class Asked:
    """A queue that notes what is put into it."""

    def __init__(self) -> None:
        self.put: dict[str, int | None] = {}

    def enqueue(self, study_uid: str, _generation: int, *, again: bool = False, priority: int | None = None) -> None:
        self.put[study_uid] = priority


@pytest.fixture
def node(tmp_path: Path) -> Config:
    path = tmp_path / "node" / "ae_config.toml"
    path.parent.mkdir()
    path.write_text("[storage]\nminimum_free_gb = 0.01\nlow_free_gb = 0.01\n[settle]\nrelease_s = 0\n")
    return config.load(path)


def made(folder: Path, count: int = 3, **attributes: Any) -> str:
    images = ct_series(None, **attributes)[:count]
    write(images, folder)
    return str(images[0].StudyInstanceUID)


def opened(node: Config) -> Catalog:
    return Catalog.open(node.catalog_url, node.storage.state)


def looks(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def codes(found: list[dict[str, str]]) -> dict[str, str]:
    return {Path(one["file"]).name: one["code"] for one in found}


def test_a_folder_as_it_comes_from_an_old_archive(node: Config, tmp_path: Path) -> None:
    source = tmp_path / "archive"
    one = made(source / "a" / "b")
    other = made(source / "c")
    (source / "c" / "000.dcm").rename(source / "c" / "IM000001")  # without an extension
    bare = ct_series()[0]
    del bare.file_meta
    bare.save_as(source / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (source / "bare").read_bytes()[:132].count(b"DICM") == 0  # neither preamble nor File Meta Information
    (source / "readme.txt").write_text("hello")
    (source / "empty").write_bytes(b"")
    (source / "DICOMDIR").write_bytes(b"x")
    (source / ".hidden").write_bytes(b"x")
    os.mkfifo(source / "pipe")
    whole = (source / "a" / "b" / "002.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(whole[:-10])
    before = looks(source)
    report = importing.run(node, source, QUICK)
    assert looks(source) == before
    assert (report.studies, report.imported, report.files, report.ignored) == (3, 3, 8, 2)
    assert codes(report.not_taken) == {"readme.txt": "not-dicom", "empty": "not-dicom", "pipe": "not-a-file"}
    assert codes(report.refused) == {"cut.dcm": "truncated"}
    catalog = opened(node)
    held = {s.study_uid: s.instances for s in catalog.studies(10)}
    assert held == {one: 3, other: 3, str(bare.StudyInstanceUID): 1}
    assert catalog.callers(one) == [("IMPORT", "DICOMNODE")]
    kept = dcmread(catalog.instances(str(bare.StudyInstanceUID))[0].path)
    assert kept.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian and kept.PixelData == bare.PixelData
    catalog.close()


def test_what_lies_below_a_hidden_folder_is_not_imported(node: Config, tmp_path: Path) -> None:
    source = tmp_path / ".mounted" / "archive"  # the folder that was named may lie anywhere
    uid = made(source / "DICOMDIR")
    for inner in (".Trash-1000/files", "a/.snapshot/b"):
        made(source / inner)
    (source / ".DS_Store").write_bytes(b"x")
    report = importing.run(node, source, QUICK)
    assert (report.studies, report.files, report.ignored) == (1, 3, 3)
    catalog = opened(node)
    assert [one.study_uid for one in catalog.studies(10)] == [uid]
    catalog.close()


def test_an_object_is_judged_as_one_that_was_sent(node: Config, tmp_path: Path) -> None:
    uid = made(tmp_path / "first")
    importing.run(node, tmp_path / "first", QUICK)
    second = tmp_path / "second"
    changed = dcmread(tmp_path / "first" / "000.dcm")
    changed.PatientName = "Other^Name"
    second.mkdir()
    changed.save_as(second / "other-content.dcm")
    liar = dcmread(tmp_path / "first" / "001.dcm")
    liar.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    liar.save_as(second / "other-uid.dcm", enforce_file_format=False)
    query = Dataset()
    query.update(ct_series()[0])
    query.file_meta = ct_series()[0].file_meta
    query.SOPClassUID = query.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.2.2.1"
    query.save_as(second / "query.dcm", enforce_file_format=True)
    (second / "same.dcm").write_bytes((tmp_path / "first" / "002.dcm").read_bytes())
    report = importing.run(node, second, QUICK)
    assert codes(report.refused) == {"other-content.dcm": "0xC001", "other-uid.dcm": "0xA900"}
    assert codes(report.not_taken) == {"query.dcm": "not-storage"}
    assert not report.is_whole and report.stored == 1
    catalog = opened(node)
    assert [c.study_uid for c in catalog.conflicts(uid)] == [uid]
    assert len(list((node.storage.spool / "quarantine").glob("*.dcm"))) == 2
    catalog.close()


def test_called_again_nothing_comes_twice_and_what_is_new_comes(node: Config, tmp_path: Path) -> None:
    source = tmp_path / "archive"
    uid = made(source / "a")
    (source / "a" / "bad.dcm").write_bytes((source / "a" / "000.dcm").read_bytes()[:-2])
    first = importing.run(node, source, QUICK)
    again = importing.run(node, source, QUICK)
    assert (first.imported, again.imported, again.present, again.stored) == (1, 0, 1, 0)
    assert codes(again.refused) == codes(first.refused) == {"bad.dcm": "truncated"}
    dry = importing.run(node, source, QUICK, dry_run=True)
    assert (dry.studies, dry.present, dry.dry_run) == (1, 1, True)
    more = dcmread(source / "a" / "000.dcm")
    more.SOPInstanceUID = more.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    more.save_as(source / "a" / "more.dcm")
    assert importing.run(node, source, QUICK).imported == 1
    catalog = opened(node)
    (study,) = catalog.studies(10)
    assert (study.study_uid, study.instances, catalog.conflicts(uid)) == (uid, 4, [])
    catalog.close()


def test_a_dry_run_leaves_no_trace(node: Config, tmp_path: Path) -> None:
    made(tmp_path / "archive")
    done = importing.run(node, tmp_path / "archive", QUICK, dry_run=True)
    assert (done.files, done.studies, done.stored) == (3, 1, 0)
    assert not node.storage.state.exists() and not node.storage.spool.exists()


def test_a_study_settles_when_all_of_it_has_come_and_at_research_priority(
    node: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, the study waits for the rest, however quiet it is."""
    source = tmp_path / "archive"
    uid = made(source)
    stored = iter(range(10))

    def cut(self: object, one: object, row: int) -> Any:
        if next(stored) == 2:
            raise KeyboardInterrupt
        return store(self, one, row)  # type: ignore[arg-type]

    store = importing._Import._store
    monkeypatch.setattr(importing._Import, "_store", cut)
    with pytest.raises(KeyboardInterrupt):
        importing.run(node, source, QUICK)
    monkeypatch.undo()
    catalog, queue = opened(node), Asked()
    later = [time.time()]
    clock = Housekeeping(node, catalog, cast(Queue, queue), clock=lambda: later[0])
    later[0] += 3600.0
    assert clock.settle() == []
    assert importing.run(node, source, QUICK).stored == 3
    later[0] += 3600.0
    assert clock.settle() == [(uid, 1)]
    assert queue.put[uid] == study_priority("research", later[0], node.routing)
    assert (catalog.study(uid) or pytest.fail("gone")).instances == 3
    catalog.close()


@pytest.mark.parametrize("name", ["spool", "results", "state"])
def test_the_nodes_own_folders_are_not_imported(node: Config, tmp_path: Path, name: str) -> None:
    inner = getattr(node.storage, name) / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, getattr(node.storage, name).parent):
        with pytest.raises(UsageError, match="within each other"):
            importing.run(node, folder, QUICK)
    with pytest.raises(UsageError, match="no such folder"):
        importing.run(node, tmp_path / "none", QUICK)


def test_below_the_disk_mark_and_above_the_queues_it_waits(node: Config, tmp_path: Path) -> None:
    node.storage.state.mkdir(parents=True)
    catalog = opened(node)
    told: list[str] = []
    short = node.model_copy(update={"storage": node.storage.model_copy(update={"low_free_gb": 1e9})})

    class WokenError(Exception):
        pass

    def woken(_seconds: float) -> None:
        raise WokenError

    for at, pacing in (
        ("disk", Pacing(short, catalog, Rate(), 100, told.append, woken)),
        ("rate", Pacing(node, catalog, Rate(studies_per_hour=1.0), 100, told.append, woken)),
    ):
        with pytest.raises(WokenError):
            pacing.before_study(time.time() - 10)
        assert at in told[-1]
    Pacing(node, catalog, Rate(studies_per_hour=1.0), 100, told.append, woken).before_study(time.time() - 3601)
    Pacing(node, catalog, Rate(studies_per_hour=1.0), 100, told.append, woken).before_study(time.time() + 9999)
    made(tmp_path / "archive")
    importing.run(node, tmp_path / "archive", QUICK)
    Pacing(node, catalog, Rate(), 1, told.append, woken).before_study(None)  # no worker: nobody waits for it
    catalog.register_worker("here-0", "4")
    with pytest.raises(WokenError):
        Pacing(node, catalog, Rate(), 1, told.append, woken).before_study(None)
    assert "queue" in told[-1]
    Pacing(node, catalog, Rate(), 0, told.append, woken).before_study(None)
    catalog.close()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60/h", Rate(60.0)), ("60", Rate(60.0)), ("2.5/s", Rate(0.0, 2.5)), ("0", Rate())],
)
def test_rates(text: str, rate: Rate) -> None:
    assert Rate.of(text) == rate


@pytest.mark.parametrize("text", ["", "-1", "60/d", "1e9", "x"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rate"):
        Rate.of(text)


def test_when_there_is_no_room_it_stops_and_says_that_it_goes_on(
    node: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "archive")
    monkeypatch.setattr(importing, "_PAUSE_S", 0.0)
    full = node.model_copy(update={"storage": node.storage.model_copy(update={"minimum_free_gb": 1e9})})
    monkeypatch.setattr(Pacing, "_full_disk", lambda _self: "")
    with pytest.raises(SpoolError, match="goes on from here"):
        importing.run(full, tmp_path / "archive", QUICK)


def test_a_result_that_is_kept_and_one_import_at_a_time(node: Config, tmp_path: Path) -> None:
    uid = made(tmp_path / "archive")
    with importing.alone(node.storage.state, "import"), pytest.raises(UsageError, match="already runs"):
        importing.run(node, tmp_path / "archive", QUICK)
    importing.run(node, tmp_path / "archive", replace(QUICK, keep=True))
    catalog = opened(node)
    noted = catalog.bulk(uid)
    assert noted is not None and noted.keep and noted.ended_at is not None
    catalog.close()


def test_the_command_tells_what_was_left_out(node: Config, tmp_path: Path) -> None:
    source = tmp_path / "archive"
    made(source)
    (source / "no\nte.txt").write_text("x")
    path = str(node.storage.state.parent.parent / "ae_config.toml")
    done = CliRunner().invoke(app, ["import", str(source), "--config", path, "--rate", "0"])
    assert done.exit_code == 0, done.output
    assert "no\\nte.txt: not-dicom" in done.output and "1 study imported" in done.output
    shown = CliRunner().invoke(app, ["import", str(source), "--config", path, "--json"])
    report = ImportReport(**json.loads(shown.stdout))
    assert (report.present, report.imported) == (1, 0)
    with pytest.raises(UsageError, match="--as"):
        CliRunner().invoke(app, ["import", str(source), "--config", path, "--as", "x" * 17], catch_exceptions=False)
