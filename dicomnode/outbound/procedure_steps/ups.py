"""The tasks of a UPS worklist (PS3.4 annex CC), as the clock goes through them.

    worklist ── found ──> scheduled ── its study is here ──> claimed ──> progress … ──> COMPLETED, output information
    study ── own, N-CREATE ──^   │                             │
                                 └── it did not come in time ──┴── refused, failed … ──> CANCELED, reason

The clock compares what the catalogue says of a study with what the server was told, and tells the difference: a tick
that is missed, doubled or cut short changes nothing, and no study waits for a server. A task is claimed when its study
is here, under a Transaction UID that was noted before: after a restart the node goes on with it.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicomnode import logs
from dicomnode.config import Config, UpsTable
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import association as sender
from dicomnode.network import find as query
from dicomnode.network import ups
from dicomnode.outbound.procedure_steps import progress
from dicomnode.outbound.procedure_steps.progress import StudyProgress
from dicomnode.outbound.procedure_steps.tick import ProcedureStepTick
from dicomnode.report.uids import derive
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import ProcedureStep
from dicomnode.store.records import Instance, JobState

log = logging.getLogger(__name__)

_LIVE: tuple[JobState, ...] = (
    "queued", "running", "analysed", "refused", "failed", "delivered", "committed", "held", "cancelled",
)  # fmt: skip
_LATE = "its study did not arrive in time"


def tick(config: Config, catalog: Catalog, now: float) -> int:
    """Look at the worklist, and tell the server what it does not know yet. Returns how many tasks have changed.

    Raises:
        PeerError, PeerRejectedError: the server did not answer, or refused.
        SpoolError: the catalogue failed.
    """
    table = config.ups
    if table is None:
        return 0
    if table.create:
        plan(config, catalog, now)
    failure: PeerError | PeerRejectedError | None = None
    try:
        if table.perform:
            find(table, catalog, now)
    except (PeerError, PeerRejectedError) as e:  # the tasks that are claimed already go on
        failure = e
    due = [(step, seen) for step, seen in _looked_at(catalog) if _is_due(table, step, seen, now)]
    changed = 0
    if due:
        with sender.associated(table.peer, ups.contexts(may_create=table.create)) as association:
            changed = UpsTick(config, table, catalog, association, now).advance_all(due)
    if failure is not None:
        raise failure
    return changed


def plan(config: Config, catalog: Catalog, now: float) -> None:
    """Note a task of our own for each study that was accepted, unless the worklist has one for it."""
    for job in progress.untold(config, catalog, ("found", "own"), _LIVE, now):
        uid = derive("unified procedure step", job.study_uid, str(job.generation))
        transaction = generate_uid(prefix=None)
        catalog.note_step(
            ProcedureStep(uid, "own", job.study_uid, job.generation, transaction, "planned", None, None, job.created_at)
        )


def find(table: UpsTable, catalog: Catalog, now: float) -> None:
    """Note the tasks that are scheduled for us. Raises as `query.find`."""
    found = query.find(
        table.peer, ups.PULL, ups.question(table.workitem, table.label), within_s=table.timeout_s, most=table.most
    )
    if not found.is_complete:
        log.warning("the UPS worklist has more than %d tasks: the rest follows when these are done", table.most)
    for answer in found.answers:
        task = _read(answer, table)
        if task is None:
            log.debug("skipped a task of the UPS worklist: not ours, or not for exactly one study")
            continue
        transaction = generate_uid(prefix=None)
        if catalog.note_step(
            ProcedureStep(task.step_uid, "found", task.study_uid, None, transaction, "scheduled", None, None, now)
        ):
            log.info("UPS task %s is for study %s", task.step_uid, task.study_uid)


def _read(answer: bytes, table: UpsTable) -> ups.Task | None:
    try:
        return ups.task(query.read(answer), table.workitem, table.label)
    except Exception as e:  # noqa: BLE001  (one task that cannot be read takes no other away)
        logs.log_unexpected(log, e, "skipped an unreadable task of the UPS worklist")
        return None


def _looked_at(catalog: Catalog) -> Iterator[tuple[ProcedureStep, StudyProgress]]:
    for step in catalog.open_steps(("found", "own")):
        yield step, progress.look(catalog, step.study_uid, step.generation)


def _is_due(table: UpsTable, step: ProcedureStep, seen: StudyProgress, now: float) -> bool:
    """Whether there is anything to tell."""
    if step.state == "planned":
        return True
    if step.state == "scheduled":
        return seen.how != "absent" or now - step.seen_at >= table.wait_s
    return seen.how != "in progress" or step.told != seen.text


class UpsTick(ProcedureStepTick[UpsTable]):
    """A UPS worklist in one tick."""

    what: ClassVar[str] = "UPS task"

    def advance(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        """See `ProcedureStepTick.advance`."""
        if step.state == "planned":
            step = self._begin(step)
        if step.state == "scheduled":
            step = self._claim(step)
        if step.state == "in progress":
            step = self._go_on(step, seen)
        return step

    def _create(self, step: ProcedureStep, images: Sequence[Instance], header: Dataset) -> ProcedureStep:
        mine = self._config.node.ae_title
        references = [
            ups.Reference(i.study_uid, i.series_uid, i.sop_class_uid, i.sop_instance_uid, (mine,)) for i in images
        ]
        label = self._table.label or "dicomnode"
        task = ups.scheduled(header, references, self._table.workitem, label, step.seen_at)
        status = ups.create(self._association, self._peer, step.step_uid, task)
        # A duplicate is what we made before a crash.
        if ups.is_good(status) or status == ups.DUPLICATE_UID:
            return self._save(step.now("scheduled"))
        return self._refused(step, "N-CREATE", status)

    def _claim(self, step: ProcedureStep) -> ProcedureStep:
        status = ups.change_state(self._association, self._peer, step.step_uid, step.transaction_uid, "IN PROGRESS")
        if status == ups.ALREADY_IN_PROGRESS:
            # By us, if the answer to our claim was lost: only who claimed it may change it.
            status = ups.update(
                self._association, self._peer, step.step_uid, step.transaction_uid, ups.progress(0, "claimed")
            )
        if ups.is_good(status):
            log.info("UPS task %s claimed", step.step_uid)
            return self._save(replace(step.now("in progress"), begun_at=self._now))
        if status in ups.NOT_OURS:
            return self._drop(step, status)
        return self._refused(step, "claim", status)

    def _go_on(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        if seen.how == "absent":
            return self._cancel(step, _LATE, progress.UNSPECIFIED)
        if seen.how == "ended without result":
            return self._cancel(step, seen.reason, seen.code)
        if seen.how == "done":
            return self._complete(step, seen)
        change = ups.progress(seen.percent, seen.text)
        status = ups.update(self._association, self._peer, step.step_uid, step.transaction_uid, change)
        if ups.is_good(status):
            return self._save(replace(step, told=seen.text))
        if status in ups.NOT_OURS:
            return self._drop(step, status)
        log.warning("%s did not accept the progress of UPS task %s: 0x%04X", self._peer, step.step_uid, status)
        return self._save(replace(step, told=seen.text))  # the end matters more

    def _complete(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        made = progress.results(self._config, self._catalog, step.study_uid, seen.generation)
        if not made:
            return self._cancel(step, "the node has no results of its study: send its images again", progress.FAILED)
        station, begun_at = self._config.node.ae_title, step.begun_at or self._now
        change = ups.completion(station, self._table.workitem, begun_at, max(begun_at, time.time()), made)
        return self._end(step.now("completed"), change, "COMPLETED")

    def _cancel(self, step: ProcedureStep, reason: str, code: tuple[str, str, str]) -> ProcedureStep:
        change = ups.cancellation(reason, self._now, code)
        return self._end(step.now("canceled", reason=reason), change, "CANCELED")

    def _end(self, step: ProcedureStep, change: Dataset, state: ups.State) -> ProcedureStep:
        mine = (self._association, self._peer, step.step_uid, step.transaction_uid)
        status = ups.update(*mine, change)
        # What may no longer be updated was ended by us, if the answer was lost, or by somebody else: the next tells.
        if ups.is_good(status) or status == ups.NOT_UPDATABLE:
            status = ups.change_state(*mine, state)
            if ups.is_good(status):
                log.info("UPS task %s: %s", step.step_uid, state)
                return self._save(step)
        still = replace(step, state="in progress", reason=None)
        return self._drop(still, status) if status in ups.NOT_OURS else self._refused(still, state, status)

    def _drop(self, step: ProcedureStep, status: int) -> ProcedureStep:
        why = "it no longer exists there" if status == ups.UNKNOWN else "it was claimed or ended by someone else"
        log.warning("UPS task %s dropped, status 0x%04X: %s", step.step_uid, status, why)
        return self._save(step.now("dropped", reason=f"status 0x{status:04X}: {why}"))
