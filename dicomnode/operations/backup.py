"""`dicomnode backup`: the whole node in one folder, while it runs.

    files ── pass 1: link or copy ──> [instant: catalogue and queue] ──> databases ──> pass 2: what is new ──> manifest

Every image that the snapshot knows was on the disk before it: pass 1 or pass 2 has it. What came later is there too,
and the restored node records it when it starts. What retention removed before the instant must not come back (the node
would take it for new, and send it again): a file that is gone by pass 2, and that the catalogue does not know, is
dropped.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import backup_format, snapshot
from dicomnode.operations.audited import note_command
from dicomnode.operations.backup_folder import BackupFolder
from dicomnode.operations.backup_format import CONFIGURATION, MANIFEST, NAMED, UNFINISHED, BackupManifest, Told
from dicomnode.store import restoring

#: Beside what is copied: the lists, folders, blocks.
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class BackupSummary:
    """What was backed up: its manifest, how many files are links to the node's own, and where the keys lie."""

    manifest: BackupManifest
    linked: int
    keys: Mapping[str, Path]


def backup(
    config: Config, file: Path, to: Path, told: Told, *, keys: Path | None = None, link: bool = True
) -> BackupSummary:
    """Back the node up, or go on with a backup that was cut short.

    Args:
        config: the node's.
        file: its configuration file.
        to: the backup's folder: a new one, or one that was cut short.
        told: of progress.
        keys: a folder for the keys; None: they are named, and stay where they are.
        link: files that lie on the same disk as `to` are linked, not copied.

    Raises:
        UsageError: `to` is in use, or not suitable.
        SpoolError: no room, the database failed, a file cannot be read, or a restore into the node was cut short.
    """
    restoring.refuse(config.storage.state)
    _refuse_place(config, to, keys)
    note_command(config, "backup", {"to": str(to)})
    with _alone(config, to):
        own = backup_format.keys(config)
        making = BackupFolder(to, link=link)
        _refuse_without_room(config, making)
        making.take_all(config, told, "files")
        made_at = time.time()
        with snapshot.take(config) as taken:
            names = taken.write(to, told)
            contents = taken.contents
        for name in names:
            making.note(name, files.sha256_of(to / name))
        seen = making.take_all(config, told, "new files")
        for key, path in backup_format.plain_files(config).items():
            if path.is_file():
                making.keep(path, f"{NAMED}/{key}", link=False)
        if not making.keep(file, CONFIGURATION, link=False):
            raise SpoolError(f"{file} has gone: put it back, and run the same command again")
        making.prune(config, seen, contents)
        if keys is not None:
            _keep_keys(own, keys)
        manifest = making.finish(config, contents, made_at, [key for key, path in own.items() if path.is_file()])
        return BackupSummary(manifest, making.linked, {key: path for key, path in own.items() if path.is_file()})


def _refuse_place(config: Config, to: Path, keys: Path | None) -> None:
    if (to / MANIFEST).exists():
        raise UsageError(f"{to} holds a whole backup already: give a new folder for another")
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is not a folder: give a new one")
    if to.is_dir() and any(to.iterdir()) and not (to / UNFINISHED).exists():
        raise UsageError(f"{to} is not empty, and no backup that was cut short: give a new folder")
    place = to.resolve()
    for folder in (*backup_format.parts(config).values(), config.storage.state):
        own = folder.resolve()
        if place.is_relative_to(own) or own.is_relative_to(place):
            raise UsageError(f"{to} and the node's own {folder} lie within each other: give a folder elsewhere")
    if keys is not None and (keys.resolve().is_relative_to(place) or place.is_relative_to(keys.resolve())):
        raise UsageError(f"{keys}: the keys must not lie with the backup: give a folder elsewhere")


@contextmanager
def _alone(config: Config, to: Path) -> Iterator[None]:
    """Hold the folder of a backup that is being made; nobody else may write into it, and only its own node."""
    state = config.storage.state
    if not state.is_dir():
        raise UsageError(f"{state}: the node has never run with this configuration: there is nothing to back up")
    files.make_folder(to)
    files.tighten(to)
    node = {"state": str(state.resolve()), "database": bool(config.storage.database_url)}
    with (
        open(state / "backup.lock", "ab", opener=files.private_opener) as of_node,
        open(to / UNFINISHED, "a+b", opener=files.private_opener) as held,
    ):
        if not files.lock(of_node):
            raise UsageError(f"{state}: another backup of this node is being made; wait until it has ended")
        if not files.lock(held):
            raise UsageError(f"{to}: another backup is writing into this folder; wait until it has ended")
        held.seek(0)
        before = held.read()
        if before and before != json.dumps(node).encode():
            raise UsageError(f"{to} holds a backup of another node that was cut short: give a new folder")
        if not before:
            held.write(json.dumps(node).encode())
            held.flush()
        yield
    (to / UNFINISHED).unlink()


def _refuse_without_room(config: Config, making: BackupFolder) -> None:
    needed = snapshot.database_bytes(config) * 2 + _SPARE_BYTES
    needed += sum(making.bytes_of(name, path) for name, path in backup_format.walk_all(config))
    free = shutil.disk_usage(making.to).free
    if needed > free:
        raise SpoolError(
            f"{making.to}: the backup needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: make room, or "
            "give a folder on another disk"
        )


def _keep_keys(own: Mapping[str, Path], folder: Path) -> None:
    for key, path in own.items():
        if not path.is_file():
            continue
        target, content = folder / key, path.read_bytes()
        if target.exists() and target.read_bytes() != content:
            raise UsageError(f"{target} is there, and is another key: give a new folder for the keys")
        files.write_whole(target, content)
