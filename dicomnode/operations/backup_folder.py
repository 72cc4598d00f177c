"""A backup's folder while it is being made: linked or copied files, the log of their digests, the lists at its end."""

import hashlib
import os
from pathlib import Path

import dicomnode
from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import backup_format
from dicomnode.operations.backup_format import MANIFEST, SUMS, BackupManifest, Sums, Told
from dicomnode.operations.snapshot import Contents

#: The log of what is there already, by which a backup that was cut short goes on.
_LOG = "SHA256SUMS.part"
_CHUNK = 1 << 20
#: A file may be linked if it is never changed in place, only replaced.
_LINKED = ("spool", "results", "registry", "weights")
#: A file system that keeps no nanoseconds keeps these at least.
_COARSE_NS, _COARSEST_NS = 10_000_000, 2_000_000_000


class BackupFolder:
    """A backup's folder while it is being made."""

    def __init__(self, to: Path, *, link: bool) -> None:
        self.to, self._link = to, link
        self._linked: set[str] = set()
        self._device = to.stat().st_dev
        log = to / _LOG
        self._digests = Sums.of(log.read_text("utf-8", "replace")).digests if log.exists() else {}
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
        return there.st_size == status.st_size and _is_same_time(there.st_mtime_ns, status.st_mtime_ns)

    def take_all(self, config: Config, told: Told, what: str) -> set[str]:
        """Link or copy what is there and not yet here; return all names that are there."""
        found = list(backup_format.walk_all(config))
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
        self.note(name, digest)
        return True

    def note(self, name: str, digest: str) -> None:
        """Note that a file is here, whole and synced."""
        self._digests[name] = digest
        with open(self._log, "a", encoding="utf-8", opener=files.private_opener) as log:
            log.write(f"{digest}  {name}\n")

    def prune(self, config: Config, seen: set[str], contents: Contents) -> None:
        """Drop what the node has removed before the instant of the snapshot, and what nobody has noted."""
        instances = contents.instance_names(config.storage.spool)
        for name in list(self._digests):
            part, _, rest = name.partition("/")
            if part not in _LINKED or name in seen:
                continue
            known = name in instances or (part == "results" and rest.partition("/")[0] in contents.studies_here)
            if not known:
                del self._digests[name]
        for part in (*backup_format.parts(config), "database", "configuration"):
            for folder, _, names in os.walk(self.to / part):
                for path in (Path(folder, one) for one in names):
                    if str(path.relative_to(self.to)) not in self._digests:
                        path.unlink()

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
            patient_key=contents.patient_key,
            folders=contents.folders(backup_format.parts(config)),
            links={p.name: str(p.readlink()) for p in _entries(weights) if backup_format.is_beside(p)},
            keys=keys,
            files=len(digests),
            bytes=sum((self.to / name).stat().st_size for name in digests),
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


def _is_same_time(kept_ns: int, source_ns: int) -> bool:
    """Whether the time of a copy is that of its source, as far as the copy's file system keeps it."""
    off = abs(kept_ns - source_ns)
    return off < 1000 or (kept_ns % _COARSE_NS == 0 and off < _COARSEST_NS)


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
        os.link(source, target)
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
