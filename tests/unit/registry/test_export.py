"""The export: it gives away no day and no file of the node, goes on where it was stopped, and harms nobody's folder."""

import os
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.registry.export import export
from dicomnode.registry.forget import forget
from tests.helpers.registry_node import NOW, Node, analysis
from training.models.deep.prepared_slices import _place


def test_an_export_gives_away_no_day_and_shares_no_file(node: Node, tmp_path: Path) -> None:
    """The day of the analysis, less the shifted date, would be the patient's shift."""
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    (kept,) = (node.table.folder / "volumes").iterdir()
    before = kept.read_bytes()
    os.utime(kept, (1_700_000_000, 1_700_000_000))
    export(node.catalog, tmp_path / "out")
    (given,) = (tmp_path / "out" / "volumes").iterdir()
    first = given.stat()
    assert 1980 <= datetime.fromtimestamp(first.st_mtime, UTC).year < 2015
    with zipfile.ZipFile(given) as members:
        assert {m.date_time[:3] for m in members.infolist()} == {(1980, 1, 1)}
    os.utime(kept, (1_600_000_000, 1_600_000_000))
    export(node.catalog, tmp_path / "again")
    (again,) = (tmp_path / "again" / "volumes").iterdir()
    assert again.stat().st_mtime_ns == first.st_mtime_ns
    given.write_bytes(b"changed by whoever works with the export")
    assert kept.read_bytes() == before


def test_another_content_of_the_same_size_is_no_cached_one_for_training(node: Node, tmp_path: Path) -> None:
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    (kept,) = (node.table.folder / "volumes").iterdir()
    export(node.catalog, tmp_path / "cohort")
    place = _place(tmp_path, tmp_path / "cohort" / "volumes" / kept.name)
    shutil.rmtree(tmp_path / "cohort")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    export(node.catalog, tmp_path / "cohort")
    assert _place(tmp_path, tmp_path / "cohort" / "volumes" / kept.name) != place


def files(folder: Path) -> dict[str, bytes]:
    """What an export holds, but for the time at which it was made."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".toml"
    }


@pytest.mark.parametrize("stopped_in", ["os.utime", "write_features", "write_description"])
def test_a_stopped_export_goes_on_and_holds_nobody_who_has_left_since(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    for uid, patient in (("1.1", b"PAT-1"), ("1.2", b"PAT-2")):
        node.study(uid, patient)
        node.keep(analysis(uid, "20200101"))
    node.outcomes("patient_id,death_date,last_contact_date\nPAT-1,2021-01-01,\n")

    def stop(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"dicomnode.registry.export.{stopped_in}", stop)
        with pytest.raises(KeyboardInterrupt):
            export(node.catalog, tmp_path / "out")
    assert not (tmp_path / "out" / "registry.toml").exists()
    forget(node.table.folder, node.catalog, "PAT-1", "", is_pseudonym=False, now=NOW)
    assert export(node.catalog, tmp_path / "out") == export(node.catalog, tmp_path / "new")
    assert files(tmp_path / "out") == files(tmp_path / "new")
    with pytest.raises(UsageError, match="is not empty"):
        export(node.catalog, tmp_path / "out")


@pytest.mark.parametrize(
    "left",
    [
        ".registry.toml.part",
        ".features.parquet.part",
        ".scans.csv.77.part",
        "volumes/.{}.npz.part",
        "volumes/.{}.npz.77.part",
    ],
)
def test_what_a_killed_export_leaves_of_a_file_is_taken_away(node: Node, tmp_path: Path, left: str) -> None:
    """By this version or one before: half a file may hold who has been forgotten since."""
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    (tmp_path / "out" / "volumes").mkdir(parents=True)
    (tmp_path / "out" / ".registry.toml.part").touch()
    (tmp_path / "out" / left.format("ab" * 16)).write_bytes(b"half a file")
    export(node.catalog, tmp_path / "out")
    export(node.catalog, tmp_path / "new")
    assert files(tmp_path / "out") == files(tmp_path / "new")


def test_an_export_is_on_the_disk_when_it_is_said_to_be_whole(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    node.outcomes("patient_id,death_date,last_contact_date\nPAT-1,2021-01-01,\n")
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    export(node.catalog, tmp_path / "out")
    (volume,) = (tmp_path / "out" / "volumes").iterdir()
    for name in ("registry.toml", "scans.csv", "features.parquet", "outcomes.csv", volume.name):
        assert any(f".{name}." in one for one in synced), name


@pytest.mark.parametrize(("begun", "theirs"), [(False, "outcomes.csv"), (True, "notes.txt"), (True, "volumes/ct.npz")])
def test_an_export_touches_no_folder_with_the_files_of_others(
    node: Node, tmp_path: Path, begun: bool, theirs: str
) -> None:
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    path = tmp_path / "out" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("a clinic's")
    if begun:
        (tmp_path / "out" / ".registry.toml.part").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export(node.catalog, tmp_path / "out")
    assert path.read_text() == "a clinic's"
