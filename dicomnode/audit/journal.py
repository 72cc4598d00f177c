"""Audit events of a process that must not wait for the database: files of one line an event, taken over by the outbox.

A line is written in one call before what it tells of goes on, so a killed process loses none: the next start finds its
files. `drain` brings them to the disk for good by way of the database, once a second; a power cut may take the events
of that second. The event's own number makes a line that is taken over twice one row.
"""

import itertools
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode import files
from dicomnode.audit.messages import AuditMessage

log = logging.getLogger(__name__)

_SUFFIX, _COUNT = ".journal", ".refused"
#: Together the files take no more, bytes: while the database is away, a peer cannot fill the disk.
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Noted:
    """A message under the number by which it is known."""

    message_id: str
    message: AuditMessage


class Journal:
    """The journal of one process in `folder`; `process` names it (`store.process_names`). Safe between threads."""

    def __init__(self, folder: Path, process: str) -> None:
        files.make_folder(folder)
        self._folder, self._process = folder, process
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        self._counter: int | None = None
        self._full: list[Path] = []

    def note(self, message: AuditMessage) -> None:
        """Keep a message. Raises OSError: it could not be written, or the journal is full."""
        noted = {"id": secrets.token_hex(16), "event": message.event, "at": message.at, "xml": message.xml}
        line = json.dumps(noted).encode() + b"\n"
        with self._lock:
            if self._file is None:
                if self.size() > MOST_BYTES:
                    raise OSError(f"{self._folder} holds more than {MOST_BYTES >> 20} MiB")
                self._path = self._folder / f"{self._process}~{next(self._numbers)}{_SUFFIX}"
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(self._file, line)
            if os.fstat(self._file).st_size > MOST_BYTES // 8:
                self._turn()

    def _turn(self) -> None:
        if self._file is not None and self._path is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._full.append(self._path)
            self._file = self._path = None

    def size(self) -> int:
        """Bytes in the folder."""
        return sum(path.stat().st_size for path in self._folder.glob(f"*{_SUFFIX}") if path.exists())

    def drain(self, put: Callable[[Sequence[Noted]], None]) -> int:
        """Hand over what was noted; what `put` has taken is forgotten. Returns how many. Raises what `put` raises."""
        with self._lock:
            self._turn()
            full = list(self._full)
        done = 0
        for path in full:
            done += _hand_over(path, put)
            self._full.remove(path)
        return done

    def keep_count(self, count: int) -> None:
        """Keep how many refusals were not told, for whoever adopts this journal. Raises OSError."""
        with self._lock:
            if self._counter is None:
                path = self._folder / f"{self._process}{_COUNT}"
                self._counter = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(self._counter, b"%20d" % count, 0)

    def close(self) -> None:
        """Leave nothing behind of a process that has told all it knew."""
        with self._lock:
            if self._counter is not None:
                os.close(self._counter)
                self._counter = None
            (self._folder / f"{self._process}{_COUNT}").unlink(missing_ok=True)

    def adopt(
        self, is_alive: Callable[[str], bool], put: Callable[[Sequence[Noted]], None], untold: Callable[[int], object]
    ) -> int:
        """Hand over what processes have noted that are dead by now. Returns how many events.

        Args:
            is_alive: asked with the name of a process.
            put: takes the events.
            untold: takes how many refusals a dead process had only counted.
        """
        done = 0
        for path in sorted(self._folder.glob(f"*{_COUNT}")):
            owner = path.name.removesuffix(_COUNT)
            if owner != self._process and not is_alive(owner):
                count = int(path.read_bytes() or b"0")
                if count:
                    untold(count)
                path.unlink(missing_ok=True)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            owner = path.name.rpartition("~")[0]
            if owner != self._process and not is_alive(owner):
                done += _hand_over(path, put)
        return done


def _hand_over(path: Path, put: Callable[[Sequence[Noted]], None]) -> int:
    try:
        noted = list(_read(path.read_bytes().split(b"\n")))
    except FileNotFoundError:
        return 0  # another process was faster
    if noted:
        put(noted)
    path.unlink(missing_ok=True)
    return len(noted)


def _read(lines: Iterable[bytes]) -> Iterator[Noted]:
    for line in lines:
        if not line:
            continue
        try:
            row = json.loads(line)
            yield Noted(row["id"], AuditMessage(row["event"], float(row["at"]), row["xml"]))
        except (ValueError, KeyError, TypeError):
            log.warning("an audit event was cut off while it was written")


class Draining:
    """A thread that brings what was noted into the database, every few seconds, from its start until `stop`."""

    def __init__(
        self,
        drain: Callable[[], object],
        every_s: float = 1.0,
        what: str = "audit events",
        level: int = logging.WARNING,
    ) -> None:
        """Begin: `drain` is called every `every_s` seconds; that it failed is logged at `level`, as of `what`."""
        self._drain, self._every_s, self._what, self._level = drain, every_s, what, level
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Drain once more, and end."""
        self._stop.set()
        self._thread.join()
        self._try()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._try()

    def _try(self) -> None:
        try:
            self._drain()
        except Exception as error:  # noqa: BLE001  (what is noted stays noted, and the next time may be better)
            log.log(self._level, "%s wait for the database: %s", self._what, type(error).__name__)


class Refusals:
    """Which refusals are told one by one: `most` in `window_s` seconds; of the others the number is told.

    Whoever is refused a thousand times a second grows neither the trail nor the disk.
    """

    def __init__(
        self,
        keep: Callable[[int], None],
        most: int = 20,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keep` keeps the number of those that were not told, so that a killed process loses none."""
        self._keep, self._most, self._window_s, self._clock = keep, most, window_s, clock
        self._lock = threading.Lock()
        self._since, self._told, self._others = clock(), 0, 0

    def is_told(self) -> bool:
        """Count one, and say whether it is told by itself."""
        with self._lock:
            self._told += 1
            if self._told <= self._most:
                return True
            self._others += 1
            self._keep(self._others)
            return False

    def tell_others(self, tell: Callable[[int], object], *, at_once: bool = False) -> None:
        """Hand the number of the others to `tell`, once their window has ended."""
        with self._lock:
            if not at_once and self._clock() - self._since < self._window_s:
                return
            if self._others:
                tell(self._others)
                self._keep(0)
            self._since, self._told, self._others = self._clock(), 0, 0
