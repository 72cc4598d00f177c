"""Which jobs a command is for that names no study."""

from collections.abc import Collection

from sqlalchemy import select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import deliveries, jobs, studies
from dicomnode.store.records import Job, JobState


class JobChoice(Database):
    """The choice's part of the catalogue."""

    def newest_jobs(
        self, states: Collection[JobState], *, undelivered_to: str | None = None, since: float | None = None
    ) -> list[Job]:
        """Return each study's newest job that is in one of `states`, the oldest first.

        Args:
            states: of the jobs.
            undelivered_to: only those of which this destination lacks something: it waits, was rejected or given up.
            since: only those that have changed since then, UTC seconds.
        """
        newest = (jobs.c.study_uid == studies.c.study_uid) & (jobs.c.generation == studies.c.generation)
        query = select(jobs).join(studies, newest).where(jobs.c.state.in_(states))
        if undelivered_to is not None:
            theirs = (deliveries.c.study_uid == jobs.c.study_uid) & (deliveries.c.generation == jobs.c.generation)
            lacking = deliveries.c.state.in_(("pending", "rejected", "failed"))
            there = theirs & lacking & (deliveries.c.destination == undelivered_to)
            query = query.where(select(deliveries.c.study_uid).where(there).exists())
        if since is not None:
            query = query.where(jobs.c.updated_at >= since)
        with self._read() as connection:
            rows = connection.execute(query.order_by(jobs.c.updated_at, jobs.c.study_uid))
            return [Job(**row._mapping) for row in rows]
