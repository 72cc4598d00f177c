"""`dicomnode backup`: the whole node in one folder, while it runs.

    files ── pass 1: link or copy ──> [instant: catalogue and queue] ──> databases ──> pass 2: what is new ──> manifest

Every image that the snapshot knows was on the disk before it: pass 1 or pass 2 has it. What came later is there too,
and the restored node records it when it starts. What retention removed before the instant must not come back (the node
would take it for new, and send it again): a file that is gone by pass 2, and that the catalogue does not know, is
dropped.
"""

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dicomnode
from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import backup_format, snapshot
from dicomnode.operations.audited import note_command
from dicomnode.operations.backup_format import (
    CONFIGURATION,
    MANIFEST,
    NAMED,
    SUMS,
    UNFINISHED,
    BackupManifest,
    Sums,
    Told,
)
from dicomnode.operations.snapshot import Contents

#: The log of what is there already, by which a backup that was cut short goes on.
_LOG = "SHA256SUMS.part"
_CHUNK = 1 << 20
#: Beside what is copied: the lists, folders, blocks.
_SPARE_BYTES = 64 << 20
#: A file may be linked if it is never changed in place, only replaced.
_LINKED = ("spool", "results", "registry", "weights")
#: In these a file that is gone, and that the catalogue does not know, was removed on purpose.
_PRUNED = (*_LINKED, "audit")


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
        SpoolError: no room, the database failed, a file cannot be read.
    """
    _refuse_place(config, to, keys)
    note_command(config, "backup", {"to": str(to)})
    with _alone(config, to):
        own = backup_format.keys(config)
        making = _Making(to, link=link)
        _refuse_without_room(config, making, told)
        making.take_all(config, told, "files")
        with snapshot.take(config) as taken:
            made_at = time.time()
            names = taken.write(to, told)
            contents = taken.contents
        for name in names:
            making.note(name, files.sha256_of(to / name), (to / name).stat().st_size)
        seen = making.take_all(config, told, "new files")
        for key, path in backup_format.plain_files(config).items():
            if path.is_file():
                making.keep(path, f"{NAMED}/{key}", link=False)
        making.keep(file, CONFIGURATION, link=False)
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
    files.make_folder(to)
    files.tighten(to)
    node = {"state": str(config.storage.state.resolve()), "database": bool(config.storage.database_url)}
    with open(to / UNFINISHED, "a+b", opener=files.private_opener) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{to}: another backup is writing into this folder; wait until it has ended") from None
        held.seek(0)
        before = held.read()
        if before and before != json.dumps(node).encode():
            raise UsageError(f"{to} holds a backup of another node that was cut short: give a new folder")
        if not before:
            held.write(json.dumps(node).encode())
            held.flush()
        yield
    (to / UNFINISHED).unlink()


def _refuse_without_room(config: Config, making: "_Making", told: Told) -> None:
    needed = snapshot.database_bytes(config) * 2 + _SPARE_BYTES
    for number, (name, path) in enumerate(_all_files(config)):
        needed += making.bytes_of(name, path)
        if not number % 1000:
            told("counting", number, 0)
    free = shutil.disk_usage(making.to).free
    if needed > free:
        raise SpoolError(
            f"{making.to}: the backup needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: make room, or "
            "give a folder on another disk"
        )


def _all_files(config: Config) -> Iterator[tuple[str, Path]]:
    return itertools.chain.from_iterable(
        backup_format.walk(part, root) for part, root in backup_format.parts(config).items()
    )


def _keep_keys(own: Mapping[str, Path], folder: Path) -> None:
    for key, path in own.items():
        if not path.is_file():
            continue
        target, content = folder / key, path.read_bytes()
        if target.exists() and target.read_bytes() != content:
            raise UsageError(f"{target} is there, and is another key: give a new folder for the keys")
        files.write_whole(target, content)


class _Making:
    """A backup's folder while it is being made."""

    def __init__(self, to: Path, *, link: bool) -> None:
        self.to, self._link = to, link
        self._linked: set[str] = set()
        self._device = to.stat().st_dev
        log = to / _LOG
        self._digests = Sums.of(log.read_text("utf-8", "replace")).digests if log.exists() else {}
        self._bytes: dict[str, int] = {}
        self._log = log

    @property
    def linked(self) -> int:
        """How many files are links to the node's own."""
        return len(self._linked & self._digests.keys())

    def bytes_of(self, name: str, source: Path) -> int:
        """Return how much room `source` will take."""
        try:
            status = source.stat()
        except FileNotFoundError:
            return 0
        is_linked = self._link and status.st_dev == self._device and name.partition("/")[0] in _LINKED
        return 0 if is_linked or self._has(name, status) else status.st_size

    def _has(self, name: str, status: os.stat_result) -> bool:
        """Whether this very content is there: the same size and time, and its digest was noted after it was synced."""
        if name not in self._digests:
            return False
        try:
            there = (self.to / name).stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns)

    def take_all(self, config: Config, told: Told, what: str) -> set[str]:
        """Link or copy what is there and not yet here; return all names that are there."""
        found = list(_all_files(config))
        sizes = [_size(path) for _, path in found]
        done, total = 0, sum(sizes)
        seen = set()
        for (name, path), size in zip(found, sizes, strict=True):
            if self.keep(path, name, link=self._link and name.partition("/")[0] in _LINKED):
                seen.add(name)
            done += size
            told(what, done, total)
        return seen

    def keep(self, source: Path, name: str, *, link: bool) -> bool:
        """Link or copy one file; False where it is gone."""
        if "\n" in name or "\\" in name:
            raise UsageError(f"{source}: a file with such a name cannot be backed up: rename it")
        target = self.to / name
        try:
            status = source.stat()
            if self._has(name, status):
                self._bytes[name] = status.st_size
                if target.stat().st_ino == status.st_ino:
                    self._linked.add(name)
                return True
            files.make_folder(target.parent)
            target.unlink(missing_ok=True)
            if link and _linked(source, target):
                self._linked.add(name)
                digest = files.sha256_of(target)
            else:
                digest = _copied(source, target, status)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(
                f"{error.filename or source}: {error.strerror}; check the rights, and the room in {self.to}, then run "
                "the same command again: it resumes"
            ) from error
        self.note(name, digest, target.stat().st_size)
        return True

    def note(self, name: str, digest: str, size: int) -> None:
        """Note that a file is here, whole and synced."""
        self._digests[name], self._bytes[name] = digest, size
        with open(self._log, "a", encoding="utf-8", opener=files.private_opener) as log:
            log.write(f"{digest}  {name}\n")

    def prune(self, config: Config, seen: set[str], contents: Contents) -> None:
        """Drop what the node has removed before the instant of the snapshot, and what nobody has noted."""
        instances = contents.instance_names(config.storage.spool)
        for name in list(self._digests):
            part, _, rest = name.partition("/")
            if part not in _PRUNED or name in seen:
                continue
            known = name in instances or (part == "results" and rest.partition("/")[0] in contents.studies_here)
            if known and (self.to / name).exists():
                self._bytes.setdefault(name, (self.to / name).stat().st_size)
            else:
                del self._digests[name]
        for folder, _, names in os.walk(self.to):
            for one in names:
                path_here = Path(folder, one)
                name = str(path_here.relative_to(self.to))
                if name not in self._digests and name not in (UNFINISHED, _LOG):
                    path_here.unlink()

    def finish(self, config: Config, contents: Contents, made_at: float, keys: list[str]) -> BackupManifest:
        """Write the lists: the backup is whole when this returns."""
        digests = {name: digest for name, digest in self._digests.items() if (self.to / name).is_file()}
        instances = contents.instance_names(config.storage.spool)
        text = Sums(digests).to_text()
        weights = config.analysis.weights
        manifest = BackupManifest(
            dicomnode=dicomnode.__version__,
            made_at=made_at,
            database="postgresql" if config.storage.database_url else "sqlite",
            revision=contents.revision,
            folders=contents.folders(backup_format.parts(config)),
            links={p.name: str(p.readlink()) for p in _entries(weights) if backup_format.is_beside(p)},
            keys=keys,
            files=len(digests),
            bytes=sum(self._bytes[name] for name in digests),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            instances=len(contents.instances),
            jobs=contents.jobs,
            missing=len(contents.instances) - len(instances & digests.keys()),
        )
        for folder, _, _ in os.walk(self.to):
            files.sync_folder(Path(folder))
        files.write_whole(self.to / SUMS, text)
        files.write_whole(self.to / MANIFEST, manifest.to_json())
        self._log.unlink(missing_ok=True)
        return manifest


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _linked(source: Path, target: Path) -> bool:
    """Whether `target` is now another name of `source`. Another disk, or a file system without links: it is not."""
    try:
        os.link(source.resolve(), target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _copied(source: Path, target: Path, status: os.stat_result) -> str:
    """Copy a file as long as it was, so that one that is appended to has an end; synced. Returns its digest."""
    temporary = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    left = status.st_size
    try:
        with source.open("rb") as reading, open(temporary, "wb", opener=files.private_opener) as writing:
            while left and (piece := reading.read(min(_CHUNK, left))):
                digest.update(piece)
                writing.write(piece)
                left -= len(piece)
            writing.flush()
            os.fsync(writing.fileno())
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()
