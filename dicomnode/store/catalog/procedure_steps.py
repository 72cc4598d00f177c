"""What other systems are told of the work on a study: UPS tasks, performed procedure steps. Times are UTC seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import jobs, procedure_steps
from dicomnode.store.records import Job, JobState

#: A task found on the UPS worklist, one that the node has put there itself, a performed procedure step (MPPS).
StepKind = Literal["found", "own", "mpps"]
#: `planned` → `scheduled` → `in progress` → `completed` or `canceled`; `dropped`: somebody else ended or took it.
StepState = Literal["planned", "scheduled", "in progress", "completed", "canceled", "dropped"]
_OPEN: tuple[StepState, ...] = ("planned", "scheduled", "in progress")


@dataclass(frozen=True)
class ProcedureStep:
    """One step, and how much of it the server was told.

    Attributes:
        step_uid: its SOP Instance UID.
        generation: the generation of the study that it is about; None for the newest.
        transaction_uid: the key under which it is claimed (PS3.4 CC.1.1); noted before the claim.
        told: the progress that the server was told last.
        reason: why it was cancelled or dropped; no patient data.
        begun_at: when it was claimed, or the work began.
    """

    step_uid: str
    kind: StepKind
    study_uid: str
    generation: int | None
    transaction_uid: str
    state: StepState
    told: str | None
    reason: str | None
    seen_at: float
    begun_at: float | None = None

    def now(self, state: StepState, *, reason: str | None = None) -> "ProcedureStep":
        """Return the same in another state."""
        return replace(self, state=state, reason=reason or self.reason)


class Steps(Database):
    """The procedure steps' part of the catalogue."""

    def note_step(self, step: ProcedureStep) -> bool:
        """Note a new step; one that is known stays as it is. Returns whether it was new."""
        with self._write() as connection:
            row = self._insert(procedure_steps).values(vars(step)).on_conflict_do_nothing()
            return connection.execute(row.returning(procedure_steps.c.step_uid)).first() is not None

    def save_step(self, step: ProcedureStep) -> None:
        """Note how a known step stands now; one that has ended stays as it is, whoever comes late."""
        mine = (procedure_steps.c.step_uid == step.step_uid) & procedure_steps.c.state.in_(_OPEN)
        with self._write() as connection:
            connection.execute(procedure_steps.update().where(mine).values(vars(step)))

    def open_steps(self, kinds: Sequence[StepKind]) -> list[ProcedureStep]:
        """Those that have not ended, the oldest first."""
        chosen = procedure_steps.c.kind.in_(kinds) & procedure_steps.c.state.in_(_OPEN)
        query = select(procedure_steps).where(chosen).order_by(procedure_steps.c.seen_at, procedure_steps.c.step_uid)
        with self._read() as connection:
            return [ProcedureStep(**row._mapping) for row in connection.execute(query)]

    def steps_of(self, study_uid: str) -> list[ProcedureStep]:
        """Those of a study, the oldest first."""
        mine = procedure_steps.c.study_uid == study_uid
        query = select(procedure_steps).where(mine).order_by(procedure_steps.c.seen_at, procedure_steps.c.step_uid)
        with self._read() as connection:
            return [ProcedureStep(**row._mapping) for row in connection.execute(query)]

    def jobs_without_step(self, kinds: Sequence[StepKind], states: Sequence[JobState], since: float) -> list[Job]:
        """Jobs in one of these states, changed after `since`, of which no step of these kinds tells."""
        theirs = (procedure_steps.c.study_uid == jobs.c.study_uid) & procedure_steps.c.kind.in_(kinds)
        theirs &= procedure_steps.c.generation.is_(None) | (procedure_steps.c.generation == jobs.c.generation)
        told = select(procedure_steps.c.step_uid).where(theirs).exists()
        query = select(jobs).where(jobs.c.state.in_(states) & (jobs.c.updated_at >= since) & ~told)
        with self._read() as connection:
            return [Job(**row._mapping) for row in connection.execute(query.order_by(jobs.c.created_at))]
