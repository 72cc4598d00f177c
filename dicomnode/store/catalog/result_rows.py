"""Which analyses there were, for those who review their quality. Times are UTC seconds."""

from dataclasses import dataclass

from sqlalchemy import func, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.labels import Label, unseal
from dicomnode.store.catalog.tables import jobs, study_labels, transitions
from dicomnode.store.records import JobState

#: States of a job whose analysis has ended; what was refused has them too, and findings say so.
_ANALYSED: tuple[JobState, ...] = ("analysed", "delivered", "committed", "failed", "superseded", "cancelled")


@dataclass(frozen=True)
class AnalysedJob:
    """One generation of a study. `analysed_at`: when its results were there; before that was noted, its last change."""

    study_uid: str
    generation: int
    state: JobState
    settled_at: float
    analysed_at: float
    label: Label


class ResultRows(Database):
    """Their part of the catalogue."""

    def analysed_jobs(self, since: float | None, until: float | None) -> list[AnalysedJob]:
        """Return the jobs that may have been analysed in this time, the first first; None: without a limit."""
        done = (transitions.c.study_uid == jobs.c.study_uid) & (transitions.c.generation == jobs.c.generation)
        noted = select(func.min(transitions.c.at)).where(done & (transitions.c.state == "analysed")).scalar_subquery()
        at = func.coalesce(noted, jobs.c.updated_at).label("analysed_at")
        columns = (jobs.c.study_uid, jobs.c.generation, jobs.c.state, jobs.c.created_at, at, study_labels.c.sealed)
        label = study_labels.c.study_uid == jobs.c.study_uid
        query = select(*columns).join_from(jobs, study_labels, label, isouter=True).where(jobs.c.state.in_(_ANALYSED))
        if since is not None:
            query = query.where(at >= since)
        if until is not None:
            query = query.where(at < until)
        with self._read() as connection:
            rows = connection.execute(query.order_by(at, jobs.c.study_uid, jobs.c.generation)).all()
        return [AnalysedJob(*row[:5], unseal(self.patient_key, row.study_uid, row.sealed)) for row in rows]
