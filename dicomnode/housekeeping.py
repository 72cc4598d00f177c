"""What happens by the clock: studies settle, what was settled is enqueued, what was given up is said, room is made.

The clock only looks; the state stands in the catalogue and in the queue, so a tick that is missed or doubled changes
nothing.
"""

import logging
import time
from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import SQLAlchemyError

from dicomnode import logs
from dicomnode.config import Config
from dicomnode.errors import DicomnodeError
from dicomnode.intake.catalog import Catalog
from dicomnode.intake.settle import SettleRule, decide
from dicomnode.intake.spool import Spool
from dicomnode.queueing import Queue
from dicomnode.retention import CarefulClock, Room, make_room

log = logging.getLogger(__name__)

#: How often jobs that are settled, but perhaps not enqueued, are enqueued again (which is harmless if they are).
RECONCILE_S = 15.0
#: How often the room on the disk is looked at.
ROOM_S = 10.0


class Housekeeping:
    """The ticks of one node. `start` and `stop` them; each can also be called by itself."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        queue: Queue,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog, self._queue, self._clock = catalog, queue, clock
        self._rule = SettleRule(release_s=config.settle.release_s, quiet_s=config.settle.quiet_s)
        self._tick_s = config.settle.tick_s
        self._room = Room(int(config.storage.low_free_gb * 1e9), config.storage.retention_days * 86_400)
        self._storage = config.storage
        self._careful = CarefulClock(clock, steady)
        self._scheduler = BackgroundScheduler(timezone="UTC")

    def start(self) -> None:
        """Start ticking."""
        once = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        self._scheduler.add_job(_guarded(self.settle), "interval", seconds=self._tick_s, **once)
        self._scheduler.add_job(_guarded(self.reconcile), "interval", seconds=RECONCILE_S, **once)
        self._scheduler.add_job(_guarded(self.make_room), "interval", seconds=ROOM_S, **once)
        self._scheduler.start()

    def stop(self) -> None:
        """Stop ticking; a running tick ends first."""
        self._scheduler.shutdown(wait=True)

    def settle(self) -> list[tuple[str, int]]:
        """Settle what is complete or has been quiet long enough.

        Returns the (study UID, generation)s that were queued.
        """
        now = self._clock()
        queued = []
        for study in self._catalog.unsettled(now):
            decision = decide(study, now, self._rule)
            if not decision.settled:
                continue
            held = "two-patients" if self._catalog.patient_ids(study.study_uid) > 1 else None
            settled = self._catalog.settle(study.study_uid, now, held)
            if held:
                log.error(
                    "study %s is held: its images name two patients; correct it and send it again", study.study_uid
                )
                continue
            log.info("study %s settled as generation %d: %s", study.study_uid, settled.generation, decision.reason)
            queued.append((settled.study_uid, settled.generation))
            self._queue.enqueue(settled.study_uid, settled.generation)
        return queued

    def reconcile(self) -> None:
        """Enqueue what a crash left settled but not enqueued; say what the queue has given up."""
        for job in self._catalog.jobs(state="queued"):
            self._queue.enqueue(job.study_uid, job.generation)
        for study_uid, generation in self._queue.given_up():
            found = self._catalog.job(study_uid, generation)
            if found is not None and found.state in ("queued", "running"):
                why = "the worker went down each time it took this study: see its log, then `dicomnode jobs retry`"
                self._catalog.set_state(study_uid, generation, "failed", why, now=self._clock())
                log.error("study %s generation %d failed: %s", study_uid, generation, why)

    def make_room(self) -> list[str]:
        """Remove what was delivered long enough ago while the disk is short of room. Returns the studies' UIDs."""
        spool = Spool(self._storage.spool)
        return make_room(self._room, spool, self._storage.results, self._catalog, self._careful())


def _guarded(tick: Callable[[], object]) -> Callable[[], None]:
    """A tick whose failure is said and forgotten: the next one finds the same state."""

    def run() -> None:
        try:
            tick()
        except SQLAlchemyError as e:
            # The text of a database error holds the row's values.
            log.warning(
                "%s has to wait: the database said %s",
                tick.__name__,
                type(e.orig if hasattr(e, "orig") else e).__name__,
            )
        except DicomnodeError as e:
            log.warning("%s has to wait: %s", tick.__name__, e)
        except Exception as e:  # noqa: BLE001  (the clock goes on, whatever one tick met)
            logs.trouble(log, e, "%s failed", tick.__name__)

    return run
