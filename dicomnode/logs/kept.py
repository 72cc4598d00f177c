"""Log lines about studies, kept for the console: a line of JSON each, in two files that take turns.

Every process of a node appends to the same file. A full one becomes `lines.jsonl.1`, in place of the one before.
"""

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = "study-log.jsonl"
#: A file that could not be locked at once is another process's to turn.
_TURN: Final = fcntl.LOCK_EX | fcntl.LOCK_NB


@dataclass(frozen=True)
class KeptLines:
    """Where lines are kept.

    Attributes:
        folder: which is there, or will be; until then nothing is kept.
        most_bytes: of both files.
    """

    folder: Path
    most_bytes: int

    def keep(self, line: str) -> None:
        """Append a line. What cannot be written is not kept: standard error has it."""
        with suppress(OSError):
            opened = os.open(self.folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(opened, line.encode("utf-8", "backslashreplace") + b"\n")
                if os.fstat(opened).st_size > self.most_bytes / 2:
                    self._turn(opened)
            finally:
                os.close(opened)

    def _turn(self, opened: int) -> None:
        fcntl.flock(opened, _TURN)
        path = self.folder / FILE
        # Another process may have turned it since it was opened.
        if os.path.samestat(path.stat(), os.fstat(opened)):
            path.replace(path.with_name(f"{FILE}.1"))


def of_study(folder: Path, study_uid: str, most: int) -> list[dict[str, Any]]:
    """Return the last lines about a study, at most so many, the oldest first."""
    wanted = f'"study": "{study_uid}"'.encode()
    found = deque((line for line in _lines(folder) if wanted in line), maxlen=most)
    return [told for line in found if (told := _parsed(line)).get("study") == study_uid]


def _lines(folder: Path) -> Iterator[bytes]:
    for name in (f"{FILE}.1", FILE):
        with suppress(OSError), (folder / name).open("rb") as file:
            yield from file


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}  # cut by a full disk
    return told if isinstance(told, dict) else {}
