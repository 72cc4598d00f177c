"""Each analysis as a performed procedure step (PS3.4 annex F), as the clock tells of it.

    job has begun ── N-CREATE ──> in progress ──┬── results delivered ──> COMPLETED, with its series
                                                └── refused, failed … ──> DISCONTINUED, with the reason

As with UPS tasks, the clock compares the catalogue with what the server was told: nothing waits for the server.
"""

import logging
from collections.abc import Sequence
from typing import ClassVar

from pydicom.dataset import Dataset

from dicomnode.config import Config, MppsTable
from dicomnode.network import association as sender
from dicomnode.network import mpps
from dicomnode.network.ups import DUPLICATE_UID, is_good
from dicomnode.outbound.procedure_steps import progress
from dicomnode.outbound.procedure_steps.progress import StudyProgress
from dicomnode.outbound.procedure_steps.tick import ProcedureStepTick
from dicomnode.report.uids import derive
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import ProcedureStep
from dicomnode.store.records import Instance, JobState

log = logging.getLogger(__name__)

_BEGUN: tuple[JobState, ...] = ("running", "analysed", "refused", "failed", "delivered", "committed")


def tick(config: Config, catalog: Catalog, now: float) -> int:
    """Tell the server of what has begun and ended. Returns how many steps have changed.

    Raises:
        PeerError, PeerRejectedError: the server did not answer, or refused.
        SpoolError: the catalogue failed.
    """
    table = config.mpps
    if table is None:
        return 0
    plan(config, catalog, now)
    seen = [(step, progress.look(catalog, step.study_uid, step.generation)) for step in catalog.open_steps(("mpps",))]
    due = [(step, how) for step, how in seen if step.state == "planned" or how.how != "in progress"]
    if not due:
        return 0
    with sender.associated(table.peer, mpps.contexts()) as association:
        return MppsTick(config, table, catalog, association, now).advance_all(due)


def plan(config: Config, catalog: Catalog, now: float) -> None:
    """Note a step for each analysis that has begun; its UID follows from study and generation."""
    for job in progress.untold(config, catalog, ("mpps",), _BEGUN, now):
        uid = derive("performed procedure step", job.study_uid, str(job.generation))
        begun_at = job.updated_at if job.state == "running" else job.created_at
        catalog.note_step(
            ProcedureStep(uid, "mpps", job.study_uid, job.generation, "", "planned", None, None, now, begun_at)
        )


class MppsTick(ProcedureStepTick[MppsTable]):
    """An MPPS provider in one tick."""

    what: ClassVar[str] = "performed procedure step"

    def advance(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        """See `ProcedureStepTick.advance`."""
        if step.state == "planned":
            step = self._begin(step)
        if step.state == "in progress" and seen.how != "in progress":
            step = self._end(step, seen)
        return step

    def _create(self, step: ProcedureStep, _images: Sequence[Instance], header: Dataset) -> ProcedureStep:
        begun_at = step.begun_at or self._now
        content = mpps.begun(header, step.step_uid, self._config.node.ae_title, begun_at)
        status = mpps.create(self._association, self._peer, step.step_uid, content)
        # A duplicate is what we made before a crash.
        return self._taken(step, step.now("in progress"), "N-CREATE", 0 if status == DUPLICATE_UID else status)

    def _end(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        change, after = self._ending(step, seen)
        status = mpps.update(self._association, self._peer, step.step_uid, change)
        if status == mpps.ENDED_ALREADY:  # by us, where the answer was lost; or by a person there
            return self._save(after)
        return self._taken(step, after, "N-SET", status)

    def _ending(self, step: ProcedureStep, seen: StudyProgress) -> tuple[Dataset, ProcedureStep]:
        made = progress.results(self._config, self._catalog, step.study_uid, seen.generation)
        if seen.how == "done" and made:
            return mpps.completed(self._now, made), step.now("completed")
        reason = seen.reason or "the results were removed before the server could be updated"
        empty = derive("series of a discontinued step", step.step_uid)
        return mpps.discontinued(self._now, reason, seen.code, empty), step.now("canceled", reason=reason)

    def _taken(self, before: ProcedureStep, after: ProcedureStep, what: str, status: int) -> ProcedureStep:
        """Return the step as it is after the server's answer."""
        if is_good(status):
            log.info("performed procedure step %s: %s", after.step_uid, after.state)
            return self._save(after)
        return self._refused(before, what, status)

    def _is_late(self, step: ProcedureStep) -> bool:
        return self._now - step.seen_at > self._table.retry_for_s
