"""The spool: whole files or none, and no UID leads out of it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode import files as files_module
from dicomnode.errors import SpoolError
from dicomnode.files import name_of
from dicomnode.store.spool import Incoming, Spool

META, DATA = b"\0" * 128 + b"DICM", b"dataset"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def files(spool: Spool) -> list[str]:
    return sorted(str(path.relative_to(spool.root)) for path in spool.root.rglob("*") if path.is_file())


def test_stores_the_bytes_as_they_came(spool: Spool) -> None:
    stored = spool.store("1.2", "1.2.3", "1.2.3.4", META, DATA)
    assert stored.path.read_bytes() == META + DATA
    assert stored.path.parent == spool.root / "studies" / "1.2" / "1.2.3"
    assert stored.path.name.startswith("1.2.3.4-")
    assert stored.sha256 == hashlib.sha256(DATA).hexdigest()
    assert stored.size == stored.path.stat().st_size
    assert len(files(spool)) == 1


def test_two_contents_of_one_uid_stand_side_by_side_and_one_content_is_one_file(spool: Spool) -> None:
    first = spool.store("1.2", "1.2.3", "1.2.3.4", META, DATA)
    other = spool.store("1.2", "1.2.3", "1.2.3.4", META, b"other")
    again = spool.store("1.2", "1.2.3", "1.2.3.4", META, DATA)
    assert first.path == again.path != other.path
    assert first.path.read_bytes() == META + DATA


@pytest.mark.parametrize(
    "uid", ["", "..", ".", "../../etc/passwd", "/etc", "1.2/3", "1.2\0", "1" * 65, "1..2", "é", "\udcff"]
)
def test_strange_uids_are_hashed(spool: Spool, uid: str) -> None:
    stored = spool.store(uid, uid, uid, META, DATA)
    assert stored.path.resolve().is_relative_to((spool.root / "studies").resolve())
    assert stored.path.relative_to(spool.root / "studies").parts[0].startswith("x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_uid_is_one_component(uid: str) -> None:
    name = name_of(uid)
    assert name not in {"", ".", ".."}
    assert "/" not in name
    assert len(name) <= 64


def test_order_is_file_rename_folder(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.store("1.2", "1.2.3", "1", META, DATA)  # makes the folders
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        steps.append("fsync file" if name.endswith(".part") else f"fsync {name}")
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    spool.store("1.2", "1.2.3", "2", META, DATA)
    assert steps == ["fsync file", "rename", "fsync 1.2.3"]


def test_new_folders_are_synced_into_their_parents(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    original = files_module.sync_folder
    monkeypatch.setattr(files_module, "sync_folder", lambda folder: (synced.append(folder.name), original(folder)))
    spool.store("1.2", "1.2.3", "1", META, DATA)
    assert synced == ["studies", "1.2", "1.2.3"]


def full_disk(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_nothing_and_says_so(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SpoolError, match="No space left on device"):
        spool.store("1.2", "1.2.3", "1", META, DATA)
    assert files(spool) == []


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot make the folder"):
        Spool(tmp_path / "file" / "spool")


def test_quarantine_keeps_bytes_and_reason_once_for_each_content(spool: Spool) -> None:
    paths = {spool.quarantine(META, DATA, "uid-taken", "text", now) for now in (1.0, 2.0, 3.0)}
    (path,) = paths
    assert path.read_bytes() == META + DATA
    reason = json.loads(path.with_suffix(".json").read_text())
    assert (reason["code"], reason["text"], reason["at"]) == ("uid-taken", "text", 3.0)
    assert len(files(spool)) == 2


def incoming(spool: Spool) -> Incoming:
    made = spool.receive(META)
    made.write(DATA[:3])
    made.write(memoryview(DATA)[3:])
    return made


def test_discard_leaves_nothing_of_what_is_coming_in_and_all_of_what_is_kept(spool: Spool) -> None:
    given_up, kept = incoming(spool), incoming(spool)
    given_up.discard()
    given_up.discard()
    spool.keep(kept, "1.2", "1.2.3", "1")
    kept.discard()
    assert len(files(spool)) == 1


def test_discard_of_a_stored_file(spool: Spool) -> None:
    stored = spool.store("1.2", "1.2.3", "1", META, DATA)
    spool.discard(stored.path)
    spool.discard(stored.path)
    assert files(spool) == []


def test_what_was_kept_can_still_be_quarantined(spool: Spool) -> None:
    """The catalogue says only afterwards that the UID is taken; another association may have brought the same."""
    first, second = incoming(spool), incoming(spool)
    spool.keep(first, "1.2", "1.2.3", "1")
    spool.keep(second, "1.2", "1.2.3", "1")
    path = spool.set_aside(first, "uid-taken", "text", 1.0)
    assert spool.set_aside(second, "uid-taken", "text", 2.0) == path
    assert path.read_bytes() == META + DATA
    assert not list((spool.root / "studies").rglob("*.dcm"))


def test_sweep_takes_the_files_of_the_dead_only(spool: Spool) -> None:
    code = "from dicomnode.store import process_names; print(process_names.current())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    incoming = spool.root / "incoming"
    mine, foreign, old = (incoming / f"{name}~0.part" for name in (spool._process, "elsewhere,1,1", "elsewhere,2,2"))
    for path in (mine, foreign, old, incoming / f"{dead}~7.part"):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert spool.sweep() == 2
    assert sorted(incoming.iterdir()) == sorted([mine, foreign])


def test_many_threads_one_instance(spool: Spool) -> None:
    """Case 11: the same instance on several associations at once."""
    found: list[Path] = []

    def work() -> None:
        found.extend(spool.store("1.2", "1.2.3", "1", META, DATA * 1000).path for _ in range(20))

    run_together(work, 4)
    assert len(set(found)) == 1
    assert found[0].read_bytes() == META + DATA * 1000
    assert len(files(spool)) == 1


def run_together(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


KILLED = """
import os, sys
from pathlib import Path
from dicomnode.store.spool import Spool
spool = Spool(Path(sys.argv[1]))
step, count = int(sys.argv[2]), 0
def counted(original):
    def call(*arguments):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
        return original(*arguments)
    return call
os.fsync = counted(os.fsync)
Path.rename = counted(Path.rename)
spool.store("1.2", "1.2.3", "1", b"meta", b"data" * 1000)
"""


@pytest.mark.parametrize("step", range(1, 8))
def test_sigkill_at_every_step_leaves_a_whole_file_or_none(tmp_path: Path, step: int) -> None:
    root = tmp_path / "spool"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(root), str(step)], check=False)
    spool = Spool(root)
    spool.sweep()
    whole = [path for path in root.rglob("*") if path.is_file()]
    assert all(path.read_bytes() == b"meta" + b"data" * 1000 for path in whole)
    # Sync the file, rename (fails: no folder yet), sync two parents of new folders, rename, sync the folder: six steps.
    assert ended.returncode == (-9 if step <= 6 else 0)
    assert len(whole) == (0 if step <= 5 else 1)


def test_free_bytes(spool: Spool) -> None:
    assert spool.free_bytes() > 0
    spool.root.rename(spool.root.with_name("gone"))
    with pytest.raises(SpoolError, match="free space"):
        spool.free_bytes()
