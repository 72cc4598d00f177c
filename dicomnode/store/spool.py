"""The spool: a file is either wholly there, under its final name and on the disk, or not there.

Order of a write: temporary file, fsync, rename, fsync of the directory (and of the parent of every directory made). A
SIGKILL or a power cut at any point leaves a temporary file that `sweep` removes, or a complete file that the catalogue
does not know, and no sender was told that such a file is safe.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomnode import files
from dicomnode.errors import SpoolError
from dicomnode.store import process_names

#: Temporary files of another machine can't be judged by process; none takes a day to write.
_FOREIGN_TEMPORARY_S = 86_400.0


@dataclass(frozen=True)
class Stored:
    """A file that is safe on disk. `sha256`: of the dataset's bytes, after the file meta group; `size`: the file's."""

    path: Path
    sha256: str
    size: int


class Incoming:
    """A data set on its way in: a temporary file from its first byte on, so that memory does not grow with its size.

    Every method raises SpoolError: disk full, no permission. Then nothing is left behind.
    """

    def __init__(self, temporary: Path, file_meta: bytes) -> None:
        self._path = temporary
        self._is_kept = False
        self._meta_size = len(file_meta)
        self._digest = hashlib.sha256()
        self.size = 0
        try:
            self._file = open(temporary, "x+b", 0, opener=files.private_opener)  # noqa: SIM115  (closed by us)
        except OSError as error:
            raise _spool_error("write", temporary, error) from error
        self._put(memoryview(file_meta))

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes of the data set."""
        self._put(memoryview(data))
        self._digest.update(data)

    def _put(self, data: memoryview) -> None:
        self.size += len(data)
        try:
            while data:
                data = data[self._file.write(data) :]  # a nearly full disk takes a part
        except OSError as error:
            self.discard()
            raise _spool_error("write", self._path, error) from error

    @property
    def sha256(self) -> str:
        """Of the data set's bytes, after the file meta group."""
        return self._digest.hexdigest()

    @contextmanager
    def dataset(self) -> Iterator[BinaryIO]:
        """Yield the data set's bytes, for reading, once all are written."""
        self._file.seek(self._meta_size)
        reader = io.BufferedReader(self._file)
        try:
            yield reader
        finally:
            reader.detach()  # else it would close the file with itself

    def move_to(self, path: Path) -> None:
        """Whole and on the disk under this name, or not there."""
        try:
            if not self._is_kept:
                with self._file:
                    os.fsync(self._file.fileno())
            try:
                self._path.rename(path)
            except FileNotFoundError:  # the first file of its series: asking before every file would cost more
                files.make_folder(path.parent)
                self._path.rename(path)
            self._path, self._is_kept = path, True
            files.sync_folder(path.parent)
        except OSError as error:
            self.discard()
            raise _spool_error("write", path, error) from error

    def discard(self) -> None:
        """Nothing is left behind. What has been kept stays."""
        self._file.close()
        if not self._is_kept:
            self._path.unlink(missing_ok=True)


class Spool:
    """The folders of received files under one root, in one file system.

    They are `incoming/` (temporary), `studies/<study>/<series>/`, `quarantine/`, `replaced/` (`store.replaced`) and
    `leaving/` (what is being removed).

    Raises:
        SpoolError: a folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._studies = root / "studies"
        self._quarantine = root / "quarantine"
        self._leaving = root / "leaving"
        # One name per process and one number per file: several receivers may share the spool.
        self._process = process_names.current()
        self._numbers = itertools.count()
        for folder in (self._incoming, self._studies, self._quarantine, self._leaving):
            try:
                files.make_folder(folder)
            except OSError as error:
                raise _spool_error("make the folder", folder, error) from error

    def store(self, study_uid: str, series_uid: str, sop_instance_uid: str, file_meta: bytes, dataset: bytes) -> Stored:
        """Write one instance: `file_meta` (preamble, prefix, group 2) and the dataset's bytes as they were received.

        The name holds the content's hash, so that two contents of one SOP Instance UID never meet in one file, however
        many associations and processes write at once, and the same content twice is the same file.

        Raises:
            SpoolError: disk full, no permission. Nothing is left behind.
        """
        incoming = self.receive(file_meta)
        incoming.write(dataset)
        return self.keep(incoming, study_uid, series_uid, sop_instance_uid)

    def receive(self, file_meta: bytes) -> Incoming:
        """Begin to take in a data set.

        Raises:
            SpoolError: disk full, no permission.
        """
        return Incoming(self._incoming / f"{self._process}~{next(self._numbers)}.part", file_meta)

    def keep(self, incoming: Incoming, study_uid: str, series_uid: str, sop_instance_uid: str) -> Stored:
        """As `store`, of bytes that have been written already."""
        sha256 = incoming.sha256
        path = self.place(study_uid, series_uid, sop_instance_uid, sha256)
        incoming.move_to(path)
        return Stored(path, sha256, incoming.size)

    def place(self, study_uid: str, series_uid: str, sop_instance_uid: str, sha256: str) -> Path:
        """Return where an instance lies, or would lie."""
        folder = self._studies / files.name_of(study_uid) / files.name_of(series_uid)
        return folder / f"{files.name_of(sop_instance_uid)}-{sha256[:16]}.dcm"

    def quarantine(self, file_meta: bytes, dataset: bytes, code: str, text: str, now: float) -> Path:
        """As `set_aside`, of bytes that are at hand, whose sender may have heard success."""
        incoming = self.receive(file_meta)
        incoming.write(dataset)
        return self.set_aside(incoming, code, text, now, was_refused=False)

    def set_aside(self, incoming: Incoming, code: str, text: str, now: float, *, was_refused: bool = True) -> Path:
        """Keep in quarantine what was not accepted, with a `.json` beside it that says why (no patient data in it).

        The name is the content's hash: a sender that tries the same bad object every minute fills no disk. What
        `was_refused`, its sender still has: it may go when the quarantine is full (`reception.quarantine`).

        Raises:
            SpoolError: disk full, no permission.
        """
        sha256, size = incoming.sha256, incoming.size
        path = self._quarantine / f"{sha256}.dcm"
        try:
            incoming.move_to(path)
        except SpoolError:
            if not path.exists():  # else another association brought the same and was faster
                raise
        reason = {"code": code, "text": text, "at": now, "sha256": sha256, "size": size, "was_refused": was_refused}
        self.receive(json.dumps(reason, indent=1).encode()).move_to(path.with_suffix(".json"))
        return path

    def discard(self, path: Path) -> None:
        """Remove a stored file that the catalogue did not take.

        Raises:
            SpoolError: it cannot be removed, or does not lie in the spool.
        """
        try:
            files.within(self.root, path).unlink(missing_ok=True)
        except OSError as error:
            raise _spool_error("remove", path, error) from error

    def move_out(self, study_uid: str) -> None:
        """Take a study out of `studies/` in one step: from now on the catalogue decides what becomes of it.

        Raises:
            SpoolError: it cannot be moved.
        """
        source, target = self._studies / files.name_of(study_uid), self._leaving / files.name_of(study_uid)
        try:
            source.rename(target)
            files.sync_folder(self._leaving)
        except FileNotFoundError:
            return  # its folder is gone already
        except OSError as error:
            raise _spool_error("move", source, error) from error

    def move_back(self, name: str) -> None:
        """Undoes `move_out` of the study whose folder has this name.

        Raises:
            SpoolError: it cannot be moved.
        """
        try:
            for path in sorted(files.inside(self._leaving, name).glob("*/*.dcm")):
                # File by file: newer images of the study may have made its folder again.
                target = self._studies / path.relative_to(self._leaving)
                files.make_folder(target.parent)
                path.rename(target)
                files.sync_folder(target.parent)
            files.remove_tree(self._leaving, name)
        except OSError as error:
            raise _spool_error("move", self._leaving / name, error) from error

    def moved_out(self, before: float) -> list[str]:
        """Return the names of the folders that `move_out` moved before this time, and that nobody has deleted."""
        return sorted(path.name for path in self._leaving.iterdir() if path.stat().st_ctime < before)

    def delete(self, name: str) -> None:
        """Delete what was moved out.

        Raises:
            SpoolError: it cannot be deleted.
        """
        try:
            files.remove_tree(self._leaving, name)
        except OSError as error:
            raise _spool_error("delete", self._leaving / name, error) from error

    def study_folders(self) -> list[Path]:
        """Return the folders of the studies.

        A folder's name is the study's UID, or a hash where that is no plain one.
        """
        return sorted(p for p in self._studies.iterdir() if p.is_dir())

    def sweep(self) -> int:
        """Remove temporary files whose process has died; return how many. Receivers call it."""
        removed = 0
        for path in self._incoming.glob("*.part"):
            try:
                old = time.time() - path.stat().st_mtime > _FOREIGN_TEMPORARY_S
                if old or not process_names.is_alive(path.name.rpartition("~")[0]):
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue  # another receiver swept it
        return removed

    def free_bytes(self) -> int:
        """Bytes that this process may still write.

        Raises:
            SpoolError: the spool's file system does not answer.
        """
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise _spool_error("ask the free space of", self.root, error) from error


def _spool_error(what: str, path: Path, error: OSError) -> SpoolError:
    return SpoolError(
        f"cannot {what} {path}: {error.strerror or error}; check the free space and the permissions of the spool"
    )
