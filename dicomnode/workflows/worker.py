"""What a worker works with, and the lease under which it may: `workflow` and `delivery` are built on it.

A worker that falls silent for `worker.dead_after_s` is declared dead: its lease ends, its workflows go to others. It
may only have been cut off, and come back in the middle of a step. Whatever it then wants to write or send begins with a
look at its lease; without one it ends on the spot, before the workflow engine notes anything as its doing. `serve`, or
the service manager, starts it again as a new worker.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy.exc import SQLAlchemyError

from dicomnode.config import Config
from dicomnode.errors import ConfigurationError, DatabaseError, DicomnodeError, SpoolError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Lease
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import Queue

if TYPE_CHECKING:
    from dicomnode.models.serving import Models
    from dicomnode.workflows.analyst import Analyst

log = logging.getLogger(__name__)

#: EX_TEMPFAIL of sysexits.h: the same program may be started again at once.
LOST_LEASE_STATUS = 75
#: A worker shows itself so often within the time after which it would be declared dead.
_BEATS = 4
#: After its time to drain, a worker waits so long for threads that are just ending.
_LAST_STEPS_S = 0.5


@dataclass(frozen=True)
class Work:
    """What a worker needs to do its work.

    Attributes:
        config: of the node.
        catalog: leased (`Catalog.leased`).
        models: what is served, in a process that analyses.
        analyst: who analyses under limits; None: this process does, under none.
    """

    config: Config
    catalog: Catalog
    models: "Models | None" = None
    analyst: "Analyst | None" = None

    @property
    def served(self) -> "Models":
        """What is served; only in a process that analyses."""
        assert self.models is not None, "this process has others analyse"
        return self.models

    @property
    def digest(self) -> str:
        """Of the default profile's method, as it is now."""
        return self.digest_of(None)

    def digest_of(self, profile: str | None) -> str:
        """Of a profile's method (None: the default one's), as it is now; "" where this worker does not know it."""
        if self.analyst is not None:
            return self.analyst.digest_of(profile)
        try:
            return self.served.method(profile).digest
        except ConfigurationError:
            return ""


_work: Work | None = None


def begin(work: Work) -> None:
    """Set what `current` returns: DBOS calls plain functions, so their surroundings have to stand somewhere."""
    global _work  # noqa: PLW0603
    _work = work


def current() -> Work:
    """Return the work of this process."""
    if _work is None:
        raise RuntimeError("the worker was not started: call runtime.start() first")
    return _work


def passing(error: BaseException) -> bool:
    """Whether a step that failed so is tried again: the database is being restarted, or cannot be reached."""
    return isinstance(error, DatabaseError)


#: Of every step: two hours of patience with a database that is away.
RETRIES: Final[dict[str, Any]] = {
    "retries_allowed": True,
    "interval_seconds": 1.0,
    "max_attempts": 13,
    "backoff_rate": 2.0,
    "should_retry": passing,
}


#: Set once the lease is given back: what still runs then goes no further, and ends with the process.
_leaving = threading.Event()


def exit_without_lease() -> NoReturn:
    """End this process at once: no `finally`, no thread that writes another line."""
    while _leaving.is_set():
        # The main thread is giving the work to others, and ends the process then.
        time.sleep(_LAST_STEPS_S)
    log.critical("this worker missed its heartbeat for too long: its work has been reassigned, exiting")
    logging.shutdown()
    os._exit(LOST_LEASE_STATUS)


def exit_after_drain(give_back: Callable[[], object]) -> None:
    """End a worker that has drained: a step that still runs does not outlive it.

    It would go on for as long as its analysis takes, and its workflow would fail for want of the engine. The next start
    runs it again, as after a kill. `give_back` leaves the work to others, when nothing of it goes on here.
    """
    deadline = time.monotonic() + _LAST_STEPS_S
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    _leaving.set()
    give_back()
    if any(thread.is_alive() for thread in others):
        log.warning("exiting with work unfinished: the next start, or another worker, will repeat it")
        logging.shutdown()
        os._exit(0)


def give_back(config: Config, catalog: Catalog, lease: Lease) -> int:
    """End the lease and put back into the queues what this worker has begun; returns how many workflows.

    Without it, others would wait for `worker.dead_after_s`, and then call a worker dead that was only stopped.
    """
    try:
        with closing(Queue(config)) as queue:
            if not catalog.give_back(lease):
                return 0
            count = queue.resume_of(lease.name)
    except (DicomnodeError, SQLAlchemyError) as error:
        # As after a kill: others wait until this worker counts as dead.
        log.warning("the lease could not be given back: %s", type(error).__name__)
        return 0
    log.info("the lease is given back, with %s", plural(count, "workflow"))
    return count


class Heartbeat:
    """Beats for a lease, in a thread of its own, until `stop`."""

    def __init__(self, catalog: Catalog, lease: Lease, dead_after_s: float) -> None:
        self._catalog, self._lease, self._pause_s = catalog, lease, dead_after_s / _BEATS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more: what this worker leaves unfinished is taken up by others after `dead_after_s`."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stop.wait(self._pause_s):
            try:
                if not self._catalog.beat(self._lease):
                    exit_without_lease()
                failures = 0
            except SpoolError as e:
                failures += 1
                if failures & (failures - 1):
                    continue  # the first, second, fourth …: the same trouble needs no line at each beat
                # While the database is away nobody can declare anybody dead, and without it nothing is sent.
                log.warning("heartbeat failed: %s", e)
