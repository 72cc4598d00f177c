"""Files of a backup on their way to the node, each by its digest."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dicomnode import files
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations.backup_format import Sums, Told

_CHUNK = 1 << 20


class Placing:
    """Files of the backup on their way to the node, each by its digest."""

    def __init__(self, source: Path, sums: Sums) -> None:
        self.source, self.sums = source, sums

    def size(self, name: str) -> int:
        """Bytes; raises SpoolError where it is missing."""
        try:
            return (self.source / name).stat().st_size
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from error

    def refuse_others(self, targets: Mapping[str, Path]) -> None:
        """Raise UsageError where something else is there than the backup has."""
        for name, target in targets.items():
            if target.exists() and files.sha256_of(target) != self.sums.digests[name]:
                raise UsageError(f"{target} is there, and is not that of the backup: move it away")

    def place_all(self, targets: Mapping[str, Path], told: Told, *, resumed: bool) -> None:
        """Place every file; of the files that the configuration names, those of this machine stay.

        `resumed`: what is there of the node's own folders is what an earlier try has left.
        """
        total = sum(map(self.size, targets))
        done = 0
        for name, target in targets.items():
            is_named = name.startswith("configuration/")
            self.place(name, target, replace=resumed and not name.startswith("weights/"), keep_other=is_named)
            done += self.size(name)
            told("files", done, total)

    def place(self, name: str, target: Path, *, replace: bool = False, keep_other: bool = False) -> None:
        """Place one file; what is there and the same stays.

        Args:
            name: in the backup.
            target: where to.
            replace: something else that is there is what an earlier try has left of it.
            keep_other: something else that is there stays.

        Raises:
            UsageError: something else is there.
            SpoolError: the backup is damaged.
        """
        if target.exists():
            if keep_other or files.sha256_of(target) == self.sums.digests[name]:
                return
            if not replace:
                raise UsageError(f"{target} is there, and is not that of the backup: move it away")
        files.make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.part")
        try:
            with open(temporary, "wb", opener=files.private_opener) as writing:
                found = self._read(name, writing.write)
            self._refuse_other(name, found)
            status = (self.source / name).stat()
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def check(self, name: str) -> None:
        """Raise SpoolError where a file of the backup is damaged."""
        self._refuse_other(name, self._read(name, lambda _: None))

    def _refuse_other(self, name: str, digest: str) -> None:
        if digest != self.sums.digests[name]:
            raise self._damaged(name, "its digest is not that of SHA256SUMS")

    def _read(self, name: str, put: Callable[[bytes], object]) -> str:
        digest = hashlib.sha256()
        try:
            reading = (self.source / name).open("rb")
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from error
        with reading:
            while piece := reading.read(_CHUNK):
                digest.update(piece)
                put(piece)
        return digest.hexdigest()

    def _damaged(self, name: str, why: str) -> SpoolError:
        return SpoolError(f"{self.source / name}: {why}; take this file from another copy of the backup, then again")
