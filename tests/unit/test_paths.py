"""No name from the network or a database leads out of its folder, to be written or deleted."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode import files
from dicomnode.errors import SpoolError
from dicomnode.files import OutsideRootError, inside, name_of, remove_tree, within, write_whole
from dicomnode.service.retention import _delete_results
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.store.spool import Spool

PARTS = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "1.2.840", "x", "é", "\udc80", "state", " ", "~", "$HOME"])
HOSTILE = st.one_of(st.text(), st.lists(PARTS, max_size=6).map("".join), st.just("1." * 35_000))
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name in ("results", "state", "spool"):
        (tmp_path / name).mkdir()
    (tmp_path / "state" / "catalog.sqlite").write_text("kept")
    return tmp_path


@QUICK
@given(uid=HOSTILE)
def test_results_of_a_hostile_uid_are_written_and_deleted_in_their_folder_alone(node: Path, uid: str) -> None:
    results = node / "results"
    before = tree(node)
    folder = results_folder(results, uid, 1)
    write_whole(folder / FINDINGS, "{}")
    write_whole(folder / "seg.dcm", b"SEG")
    new = tree(node) - before
    assert all(p.startswith("results/") for p in new)
    assert folder.parent.parent == results
    assert _delete_results(results, uid, keep=(FINDINGS,))
    assert (folder / FINDINGS).exists()
    assert not (folder / "seg.dcm").exists()
    assert _delete_results(results, uid, keep=())
    assert tree(node) == before


@QUICK
@given(study=HOSTILE, series=HOSTILE, image=HOSTILE)
def test_the_spool_keeps_and_deletes_a_hostile_study_in_its_folder(
    node: Path, study: str, series: str, image: str
) -> None:
    spool = Spool(node / "spool")
    before = tree(node)
    spool.store(study, series, image, b"meta", b"data")
    assert all(p.startswith("spool/studies/") for p in tree(node) - before)
    spool.move_out(study)
    spool.delete(name_of(study))
    assert tree(node) == before


def test_true_uids_keep_their_names() -> None:
    for uid in ("1.2.840.10008.1", "1.02.3", "1" * 64):
        assert name_of(uid) == uid
    for other in ("1" * 65, "", "1..2", ".1", "1.", "\u0661.\u0662", "1\n"):
        assert name_of(other).startswith("x")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_what_is_no_single_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutsideRootError):
        inside(tmp_path, name)


def test_links_are_not_followed_out_of_the_folder(node: Path) -> None:
    results = node / "results"
    (results / "1.2").symlink_to(node / "state")
    (results / "1.3").mkdir()
    (results / "1.3" / "g1").symlink_to(node / "state")
    for uid in ("1.2", "1.3"):
        with pytest.raises(OutsideRootError):
            results_folder(results, uid, 1)
        with pytest.raises(OutsideRootError):
            _delete_results(results, uid, keep=(FINDINGS,))
    with pytest.raises(OutsideRootError):
        remove_tree(results, "1.2")
    remove_tree(results, "1.3")  # the link in it goes, not what it leads to
    assert (node / "state" / "catalog.sqlite").read_text() == "kept"


def test_a_path_from_the_database_is_deleted_in_the_spool_alone(node: Path) -> None:
    spool = Spool(node / "spool")
    for path in (node / "state" / "catalog.sqlite", node / "spool" / ".." / "state" / "catalog.sqlite"):
        with pytest.raises(SpoolError, match="leads out"):
            spool.discard(path)
        with pytest.raises(OutsideRootError):
            within(spool.root, path)
    assert (node / "state" / "catalog.sqlite").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_files_and_folders_are_their_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a" / "b" / "file", b"x")
        stored = Spool(tmp_path / "spool").store("1.2", "1.3", "1.4", b"m", b"d")
        quarantined = Spool(tmp_path / "spool").quarantine(b"m", b"d", "code", "text", 0.0)
    finally:
        os.umask(before)
    assert stored.path.exists()
    assert quarantined.exists()
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_rights_that_were_loose_are_taken_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    files.tighten(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    files.tighten(tmp_path / "none")
