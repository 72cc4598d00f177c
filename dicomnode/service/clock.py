"""What happens by the clock: studies settle, dead workers' work is given to others, room is made on the disk.

The clock only looks; the state stands in the catalogue and in the queue, so a tick that is missed or doubled changes
nothing.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy.exc import SQLAlchemyError

from dicomnode import logs
from dicomnode.config import Config
from dicomnode.context import late_orders, prefetch, worklist
from dicomnode.errors import DatabaseError, DicomnodeError, SpoolError
from dicomnode.files import write_whole
from dicomnode.metrics import counters
from dicomnode.outbound.notify.message import kind
from dicomnode.outbound.procedure_steps import mpps, ups
from dicomnode.reception.reconcile import reconcile
from dicomnode.reception.rejection_notes import apply_notes
from dicomnode.reception.settle import SettleRule, decide, is_broken_off
from dicomnode.reception.spooled import read_instance
from dicomnode.results import reader_flags
from dicomnode.retry import backoff_s
from dicomnode.service import certificates
from dicomnode.service.corrections import follow
from dicomnode.service.labelling import Labelling
from dicomnode.service.pacs_count import Counts, Numbers, expected
from dicomnode.service.retention import CarefulClock, Room, SetAside, make_room, remove_set_aside
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import StudyIntake
from dicomnode.store.replaced import Replaced
from dicomnode.store.results_folder import RECEPTION, results_folder
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural
from dicomnode.workflows.calls import study_priority
from dicomnode.workflows.queue import WORKFLOW_VERSION, Queue

log = logging.getLogger(__name__)

#: A job that is queued for so long, and of which the queue knows nothing that lives, was lost on its way there.
_LOST_S = 60.0
#: What a study is held for, and what to do.
_HELD = {
    "two-patients": "its images name two patients; correct it with `dicomnode jobs accept` or `jobs drop`",
    "other-patient": "its images name another patient than the list that it was fetched by; see `dicomnode jobs show`",
}
#: How often jobs that are settled, but perhaps not enqueued, are enqueued again (which is harmless if they are).
RECONCILE_S = 15.0
#: How often events are handed to those who want to be told.
EVENTS_S = 2.0
_EVENTS_AT_ONCE = 200
#: A tick that finds the database away is left out for so long, longer and longer.
_AWAY_FIRST_S, _AWAY_LONGEST_S = 1.0, 10.0
#: How often new studies get their label.
LABELS_S = 2.0
#: How often the room on the disk is looked at.
ROOM_S = 10.0
#: How often replaced objects are looked through: there may be many, and their time is counted in days.
REPLACED_S = 600.0
#: How often held and cancelled studies are looked through for those whose time is over.
SET_ASIDE_S = 60.0
#: How often it is looked whether the turn of a study has come that is to be analysed once more.
REANALYSES_S = 2.0
#: How often the certificates are looked at.
CERTIFICATES_S = 60.0
#: How often the worklist is looked through for patients whose prior scans may be fetched.
PREFETCH_S = 20.0
#: How often studies are looked for that went out without a prior scan which has come since, or with a wrong one.
LATE_S = 5.0


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
        self._config, self._catalog, self._queue, self._clock = config, catalog, queue, clock
        self._rule = SettleRule(release_s=config.settle.release_s, quiet_s=config.settle.quiet_s)
        self._tick_s = config.settle.tick_s
        self._room = Room(
            int(config.storage.low_free_gb * 1e9),
            config.storage.retention_days * 86_400,
            config.storage.findings_days * 86_400,
        )
        self._storage = config.storage
        self._notify = config.notify
        self._careful = CarefulClock(clock, steady)
        self._dead_after_s = config.worker.dead_after_s
        self._spool_root = config.storage.spool
        # Nothing could come while the node was down: a silence is counted from here.
        self._since = clock()
        self._due: float | None = None
        self._enqueued: set[tuple[str, int, float]] = set()
        self._looked_for: set[tuple[str, int, float]] = set()
        self._fetched_ahead: set[tuple[str, str]] = set()
        self._certificates_told: set[str] = set()
        self._counts = _counts(config, catalog)
        self._labelling = Labelling(catalog, config.storage.results)
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._stopping, self._compared = threading.Event(), threading.Event()
        # A thread of its own: a job that adds jobs waits for the scheduler's end, which waits for the job.
        self._comparing = threading.Thread(target=self._compare_first, name="compare", daemon=True)

    def add(self, tick: Callable[[], object], trigger: BaseTrigger) -> None:
        """One more thing that happens by the clock."""
        self._scheduler.add_job(_guarded(tick), trigger, max_instances=1, coalesce=True, misfire_grace_time=None)

    def start(self) -> None:
        """Start ticking."""
        self._every(RECONCILE_S, self.reconcile)
        self._every(EVENTS_S, self.hand_over)
        self._every(min(RECONCILE_S, self._dead_after_s / 4), self.recover)
        compared: dict[Callable[[], object], float] = {
            self.settle_in_time: self._tick_s,
            self.make_room: ROOM_S,
            self.tidy_replaced: REPLACED_S,
            self.remove_set_aside: SET_ASIDE_S,
            self.take_up_reanalyses: REANALYSES_S,
        }
        for tick, seconds in compared.items():
            self._every(seconds, self._once_compared(tick))
        self._every(LATE_S, self.follow_corrections)
        self._every(LABELS_S, self.label)
        if self._config.all_tls_files:
            self._every(CERTIFICATES_S, self.tell_certificates, at_once=True)
        if self._config.worklist is not None:
            self._every(self._config.worklist.every_s, self.refresh_worklist, at_once=True)
        if self._config.priors is not None:
            self._every(PREFETCH_S, self.fetch_ahead)
            self._every(LATE_S, self.take_up_late_priors)
        if self._config.ups is not None:
            self._every(self._config.ups.every_s, self.perform_tasks)
        if self._config.mpps is not None:
            self._every(self._config.mpps.every_s, self.tell_steps)
        self._scheduler.start()
        self._comparing.start()

    def _every(self, seconds: float, tick: Callable[[], object], *, at_once: bool = False) -> None:
        once = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(_guarded(tick), "interval", seconds=seconds, **once, **first)

    def _compare_first(self) -> None:
        # A power cut may have taken the last rows of images: before they are restored, nothing settles without them,
        # and no study is removed as if it had not gone on.
        compare = _guarded(self.compare_spool)
        while not compare():
            if self._stopping.wait(self._tick_s):
                return
        self._compared.set()

    def _once_compared(self, tick: Callable[[], object]) -> Callable[[], object]:
        @wraps(tick)
        def run() -> None:
            if self._compared.is_set():
                tick()

        return run

    def stop(self) -> None:
        """Stop ticking; a running tick ends first."""
        self._stopping.set()
        self._scheduler.shutdown(wait=True)
        if self._comparing.is_alive():
            self._comparing.join()
        if self._counts is not None:
            self._counts.close()

    def settle_in_time(self) -> None:
        """Settle what is to be settled now, and what becomes so before the next tick at its own time."""
        self.settle()
        wait_s = 0.0 if self._due is None else self._due - self._clock()
        if 0 < wait_s < self._tick_s and not self._stopping.wait(wait_s):
            self.settle()

    def settle(self) -> list[tuple[str, int]]:
        """Settle what is complete or has been quiet long enough.

        Returns the (study UID, generation)s that were queued.
        """
        now = self._clock()
        # A clock that was set back must not make the silence begin in the future.
        self._since = min(self._since, now)
        queued: list[tuple[str, int]] = []
        self._due = None
        for study in self._catalog.unsettled(now):
            try:
                with logs.about(study.study_uid):
                    queued.extend(self._settle(study, now))
            except DatabaseError:
                raise
            except Exception as e:  # noqa: BLE001  (one study that cannot be judged holds up no other)
                logs.log_unexpected(log, e, "study %s cannot be settled", study.study_uid)
        return queued

    def _settle(self, study: StudyIntake, now: float) -> list[tuple[str, int]]:
        decision = decide(self._heard(study), now, self._rule)
        if decision.due is not None:
            self._due = min(decision.due, self._due or decision.due)
        if not decision.settled:
            return []
        bulk = self._catalog.bulk(study.study_uid)
        if bulk is not None and bulk.is_coming(now):
            return []
        if self._counts is not None and self._counts.lacks(self._heard(study), now):
            return []
        apply_notes(Spool(self._spool_root), self._catalog, study.study_uid, now)
        held = "two-patients" if self._catalog.patient_ids(study.study_uid) > 1 else None
        if held is None and bulk is not None and not bulk.is_of(self._catalog.named_patients(study.study_uid)):
            held = "other-patient"
        try:
            settled = self._catalog.settle(study.study_uid, now, held)
        except DatabaseError:
            raise
        except SpoolError:
            return []  # another node on this database was quicker
        if held:
            log.error("study %s held: %s", study.study_uid, _HELD[held])
            return []
        log.info("study %s settled as generation %d: %s", study.study_uid, settled.generation, decision.reason)
        try:
            self._note_doubts(study, settled.generation, now)
        finally:  # whatever the disk says
            self._enqueue(settled.study_uid, settled.generation)
        return [(settled.study_uid, settled.generation)]

    def _note_doubts(self, study: StudyIntake, generation: int, now: float) -> None:
        """Leave word, for the findings and the table of jobs, that images may be missing."""
        images = sum(series.instances for series in study.series)
        folder, before = (
            results_folder(self._config.storage.results, study.study_uid, number)
            for number in (generation, generation - 1)
        )
        known = None if self._counts is None else self._counts.given_up(study.study_uid)
        if self._counts is not None and self._counts.was_silent(study.study_uid):
            known = reader_flags.counted_before(before, images)
        noted: dict[str, object] = {}
        if known is not None:
            noted["listed"], noted["arrived"] = listed_there, here = known
            noted["images"] = images
            text = f"the PACS lists {plural(listed_there, 'image')}, {here} arrived: {listed_there - here} missing"
            log.warning("study %s generation %d: %s", study.study_uid, generation, text)
            self._catalog.set_state(study.study_uid, generation, "queued", text, now=now)
        if is_broken_off(study):
            noted["broken_off"] = True
        if noted:
            write_whole(folder / RECEPTION, json.dumps(noted).encode())
        else:
            (folder / RECEPTION).unlink(missing_ok=True)  # `carry_reception` may have begun this generation in vain

    def _enqueue(self, study_uid: str, generation: int) -> None:
        try:
            self._put_into_queue(study_uid, generation)
        except SQLAlchemyError as e:
            # The text of a database error holds the row's values. The job is queued in the catalogue: `reconcile`
            # enqueues it, and the other studies do not wait for that.
            log.warning("study %s will be queued later: %s", study_uid, _name(e))

    def _put_into_queue(self, study_uid: str, generation: int, *, again: bool = False) -> None:
        if self._catalog.is_reanalysis(study_uid, generation) or self._catalog.bulk(study_uid) is not None:
            place = study_priority("research", self._clock(), self._config.routing)
            self._queue.enqueue(study_uid, generation, again=again, priority=place)
        else:
            self._queue.enqueue(study_uid, generation, again=again)

    def _heard(self, study: StudyIntake) -> StudyIntake:
        """Return the study as if its last image had come when this node began to listen, if it came before that."""
        return replace(study, last_seen=max(study.last_seen, self._since))

    def reconcile(self) -> None:
        """Enqueue what a crash left settled but not enqueued; say what the queue has given up."""
        waiting = {(j.study_uid, j.generation, j.updated_at) for j in self._catalog.jobs(state="queued")}
        for study_uid, generation, _ in waiting - self._enqueued:
            self._put_into_queue(study_uid, generation)
        # Once for each time that a job was queued: a long queue is not asked for again at every tick.
        self._enqueued = waiting
        given_up = self._queue.given_up()
        self._find_lost({one for one in waiting if one[:2] not in given_up and self._clock() - one[2] > _LOST_S})
        for study_uid, generation in given_up:
            found = self._catalog.job(study_uid, generation)
            if found is not None and found.state in ("queued", "running"):
                why = "the worker crashed each time it processed this study: see its log, then `dicomnode jobs retry`"
                self._catalog.set_state(study_uid, generation, "failed", why, now=self._clock())
                log.error("study %s generation %d failed: %s", study_uid, generation, why)

    def _find_lost(self, waiting: set[tuple[str, int, float]]) -> None:
        """Enqueue as a new run what a retry was killed over: it counts as queued, and its last run has ended."""
        for study_uid, generation, _ in waiting - self._looked_for:
            if not self._queue.is_live(study_uid, generation):
                log.warning("study %s generation %d was not in the queue: enqueued again", study_uid, generation)
                self._put_into_queue(study_uid, generation, again=True)
        self._looked_for = waiting

    def hand_over(self) -> int:
        """Enqueue a notification of each event for each receiver that asks for it. Returns how many events there were.

        A crash between enqueueing and forgetting enqueues again, which is harmless.
        """
        events = self._catalog.events(_EVENTS_AT_ONCE)
        for event in events:
            for to in self._notify:
                if kind(event) in to.events:
                    self._queue.notify(to.name, event)
            self._catalog.forget_event(event.event_id)
        return len(events)

    def label(self) -> int:
        """Read whose the new studies are, so that people find them. Returns how many."""
        counters.ticked(self._clock())
        return self._labelling.tick(self._clock())

    def tell_certificates(self) -> int:
        """Log and enqueue a notification of each certificate that expires soon, once. Returns how many are new."""
        new = [e for e in certificates.events(self._config, self._clock()) if e.event_id not in self._certificates_told]
        for event in new:
            for to in self._notify:
                if kind(event) in to.events:
                    self._queue.notify(to.name, event)
            log.warning("TLS: %s", event.reason)
            self._certificates_told.add(event.event_id)
        return len(new)

    def make_room(self) -> list[str]:
        """Remove what was delivered long enough ago while the disk is short of room. Returns the studies' UIDs."""
        spool = Spool(self._storage.spool)
        return make_room(self._room, spool, self._storage.results, self._catalog, self._careful())

    def tidy_replaced(self) -> int:
        """Delete what was replaced or taken out of its study, after its time. Returns how many objects."""
        before = self._careful() - self._storage.replaced_days * 86_400
        return Replaced(Spool(self._storage.spool)).tidy(before)

    def remove_set_aside(self) -> list[str]:
        """Remove held and cancelled studies whose time is over, after a notice. Returns the studies' UIDs."""
        storage = self._storage
        days = (storage.held_days, storage.cancelled_days, storage.notice_days)
        times = SetAside(*(86_400 * one for one in days))
        return remove_set_aside(times, Spool(storage.spool), storage.results, self._catalog, self._careful())

    def take_up_reanalyses(self) -> str | None:
        """Let the next study settle once more that is to be analysed again. Returns its UID."""
        study_uid = self._catalog.take_reanalysis(self._clock())
        if study_uid is not None:
            log.info("study %s will be analysed again, as asked for by `jobs reanalyse`", study_uid)
        return study_uid

    def recover(self) -> int:
        """Give the work of dead workers, and of versions without a worker, to those that live.

        Returns how many workflows.
        """
        moved = 0
        for name in self._catalog.declare_dead(self._dead_after_s):
            count = self._queue.resume_of(name)
            self._catalog.mark_reassigned(name)
            # A node that was down for so long finds its own worker of before: no trouble where nothing was left.
            level = logging.ERROR if count else logging.INFO
            log.log(
                level,
                "worker %s missed its heartbeat for %g s; %s reassigned",
                name,
                self._dead_after_s,
                plural(count, "workflow"),
            )
            moved += count
        versions = {worker.version for worker in self._catalog.workers("alive")}
        # Without a worker of this version, there is nobody to give anything to.
        if WORKFLOW_VERSION in versions:
            count = self._queue.adopt_orphans(versions)
            if count:
                log.warning(
                    "%s of an older version restarted under version %s", plural(count, "workflow"), WORKFLOW_VERSION
                )
            moved += count
        return moved

    def refresh_worklist(self) -> int:
        """Ask the RIS for the orders of these days. Returns how many there are."""
        count = worklist.refresh(self._config, self._catalog, self._clock())
        log.info("worklist: %s", plural(count, "order"))
        for study_uid in late_orders.take_up(self._config, self._catalog, self._clock()):
            log.info("study %s will be reported again: its order has appeared", study_uid)
        return count

    def fetch_ahead(self) -> int:
        """Look for the prior scans of the patients who are expected, once a day. Returns for how many patients."""
        day = time.strftime("%Y%m%d", time.localtime(self._clock()))
        expected = {(order.key, day) for order in prefetch.due(self._config, self._catalog, self._clock())}
        for key, _ in expected - self._fetched_ahead:
            self._queue.prefetch(key, day)
        self._fetched_ahead = expected | {one for one in self._fetched_ahead if one[1] == day}
        return len(expected)

    def take_up_late_priors(self) -> list[str]:
        """Settle anew what went out without a prior scan that has come by now. Returns the studies' UIDs."""
        reopened = self._catalog.reopen_for_late_priors()
        for study_uid in reopened:
            log.info("study %s will be analysed again: a prior has arrived", study_uid)
        return reopened

    def follow_corrections(self) -> list[str]:
        """Settle anew what was compared with a scan that was corrected since. Returns the studies' UIDs."""
        return follow(self._config, self._catalog)

    def perform_tasks(self) -> int:
        """Bring the tasks of the UPS worklist in line with what became of their studies. Returns how many changed."""
        return ups.tick(self._config, self._catalog, self._clock())

    def tell_steps(self) -> int:
        """Tell of each analysis as a performed procedure step. Returns how many steps changed."""
        return mpps.tick(self._config, self._catalog, self._clock())

    def compare_spool(self) -> None:
        """Once after the start: the spool and the catalogue, compared in both directions."""
        found = reconcile(Spool(self._spool_root), self._catalog, read_instance)
        log.log(logging.WARNING if found.trouble else logging.INFO, "compared spool and catalogue: %s", found)


def _counts(config: Config, catalog: Catalog) -> Counts | None:
    """Who is asked for the number of images; None where nobody is."""
    peer = next((d.peer for d in config.destination if d.name == config.settle.count_at), None)
    if peer is None:
        return None

    def ask(study: StudyIntake) -> Numbers:
        decided = {one.sop_instance_uid for one in catalog.corrections(study.study_uid)}
        here = {one.sop_instance_uid for one in catalog.instances(study.study_uid)} if decided else set()
        return expected(peer, study, decided - here)

    return Counts(ask, config.settle.count_wait_s)


def _guarded(tick: Callable[[], object], steady: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Wrap a tick so that a failure is logged, and a later tick retries. Return whether it succeeded.

    While the database is away, ticks are left out, more and more of them: it is asked less often, and the log says so
    a few times a minute at most.
    """
    failures, again_at = 0, 0.0

    def away() -> None:
        nonlocal failures, again_at
        failures += 1
        again_at = steady() + backoff_s(_AWAY_FIRST_S, _AWAY_LONGEST_S, failures, seed=tick.__name__)

    def run() -> bool:
        nonlocal failures
        if steady() < again_at:
            return False
        try:
            tick()
        except SQLAlchemyError as e:
            # The text of a database error holds the row's values.
            log.warning("%s postponed: %s", tick.__name__, _name(e))
            away()
        except DatabaseError as e:
            log.warning("%s failed, will retry: %s", tick.__name__, e)
            away()
        except DicomnodeError as e:
            log.warning("%s failed, will retry: %s", tick.__name__, e)
        except Exception as e:  # noqa: BLE001  (the clock goes on, whatever one tick met)
            logs.log_unexpected(log, e, "%s failed", tick.__name__)
        else:
            failures = 0
            return True
        return False

    return run


def _name(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    if type(cause).__name__ == "UndefinedTable" or "no such table" in str(cause):  # PostgreSQL, SQLite
        return "the queue does not exist yet; the first worker creates it"
    return f"database error {type(cause).__name__}"
