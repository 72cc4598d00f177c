"""What work in bulk waits for, so that the studies of today do not wait for it: rate, quiet hours, disk, queue.

A command that waits can be killed: nothing of it is lost, and the same command goes on later.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomnode.config import Config
from dicomnode.context.prefetch import is_quiet
from dicomnode.errors import UsageError
from dicomnode.files import lock, make_folder, private_opener
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import StudyState
from dicomnode.store.spool import Spool

_RATE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)(/h|/s)?")
#: How often it is looked again whether what is waited for has come.
_LOOK_S = 2.0
_SECONDS_AN_HOUR = 3600.0
#: States of studies that somebody has still to work on.
_WAITING: tuple[StudyState, ...] = ("receiving", "queued", "running")
#: Tells a person what is waited for; "" once it is over.
Told = Callable[[str], None]


@dataclass(frozen=True)
class Rate:
    """So many studies an hour, or images a second, at most; 0: not limited."""

    studies_per_hour: float = 0.0
    images_per_second: float = 0.0

    @classmethod
    def of(cls, text: str) -> "Rate":
        """Return what "60/h" (studies), "20/s" (images) or "0" mean; a number alone counts studies an hour.

        Raises:
            UsageError: it is none of these.
        """
        found = _RATE.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"--rate {text!r}: give studies per hour as '60/h', images per second as '20/s', or '0'")
        number = float(found[1])
        return cls(images_per_second=number) if found[2] == "/s" else cls(studies_per_hour=number)


class Pacing:
    """Holds up one command. Times are UTC seconds, but for the images' own."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        rate: Rate,
        most_waiting: int,
        told: Told = lambda _text: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._catalog, self._rate, self._most = config, catalog, rate, most_waiting
        self._spool = Spool(config.storage.spool)
        self._low = max(config.storage.low_free_gb, config.storage.minimum_free_gb)
        self._told, self._sleep = told, sleep
        self._next_image = 0.0

    def before_study(self, last_at: float | None) -> None:
        """Wait until a study may come; the one before began at `last_at`.

        Raises:
            SpoolError: the catalogue or the spool failed.
        """
        if last_at is not None and self._rate.studies_per_hour:
            pause = _SECONDS_AN_HOUR / self._rate.studies_per_hour
            # A clock that was set back makes nobody wait longer than that.
            rate = f"the rate of {self._rate.studies_per_hour:g} an hour"
            self._until(lambda: _still(last_at + pause, pause, rate), min(_LOOK_S, pause / 4))
        self._until(self._obstacle)

    def before_image(self) -> None:
        """Wait until an image may come.

        Raises:
            SpoolError: the spool failed.
        """
        if self._rate.images_per_second:
            now = time.monotonic()
            if self._next_image > now:
                self._sleep(self._next_image - now)
            self._next_image = max(self._next_image, now) + 1.0 / self._rate.images_per_second
        self._until(self._full_disk)

    def in_quiet_hours(self) -> None:
        """Wait for the hours of `priors.quiet_hours`, where there are any."""
        table = self._config.priors
        if table is not None:
            self._until(lambda: "" if is_quiet(table, time.time()) else f"quiet hours ({table.quiet_hours})")

    def after_failure(self, seconds: float) -> None:
        """Wait for so long before the peer is asked once more."""
        over = time.time() + seconds
        self._until(lambda: _still(over, seconds, "the peer, which failed"))

    def _until(self, look: Callable[[], str], every: float = _LOOK_S) -> None:
        is_told = ""
        while why := look():
            if why != is_told:
                self._told(f"waiting for {why}")
                is_told = why
            self._sleep(every)
        if is_told:
            self._told("")

    def _obstacle(self) -> str:
        if full := self._full_disk():
            return full
        if self._most and self._node_works():
            counts = self._catalog.count_studies()
            waiting = sum(counts.get(state, 0) for state in _WAITING)
            if waiting >= self._most:
                return f"the queue: {self._most} studies or more are to be analysed"
        return ""

    def _full_disk(self) -> str:
        if self._spool.free_bytes() >= self._low * 1e9:
            return ""
        return f"free disk space: less than {self._low:g} GB (storage.low_free_gb)"

    def _node_works(self) -> bool:
        """Whether anybody empties the queue: what a node that is stopped has before it, does not grow old."""
        oldest = time.time() - self._config.worker.dead_after_s
        return any(worker.beat_at >= oldest for worker in self._catalog.workers("alive"))


def _still(until: float, longest: float, what: str) -> str:
    left = until - time.time()
    return what if 0 < left <= longest else ""


@contextmanager
def alone(state: Path, command: str) -> Iterator[None]:
    """Keep others from running the same command on this node at the same time.

    Raises:
        UsageError: one runs.
    """
    make_folder(state)
    with open(state / f"{command}.lock", "ab", opener=private_opener) as file:
        if not lock(file):
            raise UsageError(f"`dicomnode {command}` already runs on this node: wait for its end, or end it")
        yield
