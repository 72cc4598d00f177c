"""Files that are whole or not there, and on the disk when that is promised."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from dicomnode.files import Content, make_folder, sha256_of, sync_folder, write_whole


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"bytes", b"bytes"), ("Größe", "Größe".encode()), (lambda file: file.write(b"by hand"), b"by hand")],
)
def test_bytes_text_or_what_writes_them(tmp_path: Path, content: Content, expected: bytes) -> None:
    path = tmp_path / "a" / "folder" / "that is" / "missing.txt"
    write_whole(path, content)
    assert path.read_bytes() == expected
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_format_that_puts_its_ending_to_names_writes_under_the_given_one(tmp_path: Path) -> None:
    write_whole(tmp_path / "array", lambda file: np.save(file, np.arange(3)))
    assert np.load(tmp_path / "array").tolist() == [0, 1, 2]
    assert (tmp_path / "array").stat().st_mode & 0o777 == 0o600


def full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def broken(_file: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "findings.json"
    write_whole(path, b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_stopped_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, broken)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_order_is_file_rename_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        steps.append("fsync file" if name.endswith(".part") else f"fsync {name}")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_whole(tmp_path / "new" / "file", b"content")
    assert steps == [f"fsync {tmp_path.name}", "fsync file", "rename", "fsync new"]
    steps.clear()
    write_whole(tmp_path / "new" / "file", b"content", durable=False)
    assert steps == ["rename"]


def test_many_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path, failures = tmp_path / "file", []

    def write(letter: bytes) -> None:
        try:
            for _ in range(20):
                write_whole(path, letter * 100_000, durable=False)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            content = path.read_bytes()
            seen.add((len(content), len(set(content))))
    assert seen == {(100_000, 1)}
    assert not failures
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from dicomnode.files import write_whole
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
Path.replace = counted(Path.replace)
write_whole(Path(sys.argv[1]), b"new")
"""


@pytest.mark.parametrize("step", range(1, 5))
def test_sigkill_at_every_step_leaves_the_old_file_or_the_new(tmp_path: Path, step: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(step)], check=False)
    # Sync the file, rename, sync the folder: three steps.
    assert ended.returncode == (-9 if step <= 3 else 0)
    assert path.read_bytes() == (b"old" if step <= 2 else b"new")


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "folder")


def test_a_file_system_that_syncs_no_folders_is_borne_and_a_full_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("os.fsync", unknown)
    sync_folder(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        sync_folder(tmp_path)


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
