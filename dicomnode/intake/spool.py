"""The spool: a file is either wholly there, under its final name and on the disk, or not there.

Order of a write: temporary file, fsync, rename, fsync of the directory (and of the parent of every directory made). A
SIGKILL or a power cut at any point leaves a temporary file that `sweep` removes, or a complete file that the catalogue
does not know, and no sender was told that such a file is safe.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import SpoolError
from dicomnode.intake import processes

_SAFE_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH = 64  # PS3.5 section 9.1
#: Temporary files of another machine can't be judged by process; none takes a day to write.
_FOREIGN_TEMPORARY_S = 86_400.0


@dataclass(frozen=True)
class Stored:
    """A file that is safe on disk. `sha256`: of the dataset's bytes, after the file meta group; `size`: the file's."""

    path: Path
    sha256: str
    size: int


def folder_name(uid: str) -> str:
    """A UID as one path component. What the network calls a UID may be anything: all but a true UID is hashed."""
    if len(uid) <= _UID_LENGTH and _SAFE_UID.fullmatch(uid):
        return uid
    return "x" + hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:40]


class Spool:
    """`incoming/` (temporary), `studies/<study>/<series>/` and `quarantine/` under one root, in one file system.

    Raises:
        SpoolError: a folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._studies = root / "studies"
        self._quarantine = root / "quarantine"
        # One name per process and one number per file: several receivers may share the spool.
        self._process = processes.current()
        self._numbers = itertools.count()
        for folder in (self._incoming, self._studies, self._quarantine):
            try:
                _make_folder(folder)
            except OSError as error:
                raise _spool_error("make the folder", folder, error) from error

    def store(self, study_uid: str, series_uid: str, sop_instance_uid: str, file_meta: bytes, dataset: bytes) -> Stored:
        """Writes one instance: `file_meta` (preamble, prefix, group 2) and the dataset's bytes as they were received.

        The name holds the content's hash, so that two contents of one SOP Instance UID never meet in one file, however
        many associations and processes write at once, and the same content twice is the same file.

        Raises:
            SpoolError: disk full, no permission. Nothing is left behind.
        """
        sha256 = hashlib.sha256(dataset).hexdigest()
        folder = self._studies / folder_name(study_uid) / folder_name(series_uid)
        path = folder / f"{folder_name(sop_instance_uid)}-{sha256[:16]}.dcm"
        self._write(path, file_meta, dataset)
        return Stored(path, sha256, len(file_meta) + len(dataset))

    def quarantine(self, file_meta: bytes, dataset: bytes, code: str, text: str, now: float) -> Path:
        """Keeps bytes that were not accepted, with a `.json` beside them that says why (no patient data in it).

        The name is the content's hash: a sender that tries the same bad object every minute fills no disk.

        Raises:
            SpoolError: disk full, no permission.
        """
        sha256 = hashlib.sha256(dataset).hexdigest()
        path = self._quarantine / f"{sha256}.dcm"
        reason = {"code": code, "text": text, "at": now, "sha256": sha256, "size": len(dataset)}
        self._write(path, file_meta, dataset)
        self._write(path.with_suffix(".json"), json.dumps(reason, indent=1).encode(), b"")
        return path

    def discard(self, path: Path) -> None:
        """Removes a stored file that the catalogue did not take."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _spool_error("remove", path, error) from error

    def study_folders(self) -> list[Path]:
        """The folders of the studies; a folder's name is the study's UID, or a hash where that is no plain one."""
        return sorted(p for p in self._studies.iterdir() if p.is_dir())

    def sweep(self) -> int:
        """Removes temporary files whose process has died; returns how many. Called when a receiver starts."""
        removed = 0
        for path in self._incoming.glob("*.part"):
            try:
                old = time.time() - path.stat().st_mtime > _FOREIGN_TEMPORARY_S
                if old or not processes.is_alive(path.name.rpartition("~")[0]):
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

    def _write(self, path: Path, *parts: bytes) -> None:
        temporary = self._incoming / f"{self._process}~{next(self._numbers)}.part"
        try:
            try:
                with temporary.open("xb") as file:
                    file.writelines(parts)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    temporary.rename(path)
                except FileNotFoundError:  # the first file of its series: asking before every file would cost more
                    _make_folder(path.parent)
                    temporary.rename(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)
        except OSError as error:
            raise _spool_error("write", path, error) from error


def _make_folder(folder: Path) -> None:
    """Makes a folder and its parents; each new name is on the disk (fsync of its parent) when this returns."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spool_error(what: str, path: Path, error: OSError) -> SpoolError:
    return SpoolError(
        f"cannot {what} {path}: {error.strerror or error}; check the free space and the permissions of the spool"
    )
