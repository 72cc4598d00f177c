"""Held and cancelled jobs, whose images wait for a person: removed after a time of their own, and told before."""

import hashlib

from sqlalchemy import insert, select

from dicomnode.store.catalog.jobs import Ledger
from dicomnode.store.catalog.tables import events, jobs, removal_notices, studies
from dicomnode.store.records import Event, JobState, Study


class RemovalNotices(Ledger):
    """The notices' part of the catalogue. Times are UTC seconds."""

    def set_aside(self, state: JobState, before: float) -> list[tuple[Study, float | None]]:
        """Return the studies whose newest job is in `state` since before this time, with images, the oldest first.

        Each with the time of the notice, None where none was given since the job came to this state.
        """
        newest = (jobs.c.study_uid == studies.c.study_uid) & (jobs.c.generation == studies.c.generation)
        told = (removal_notices.c.study_uid == jobs.c.study_uid) & (removal_notices.c.generation == jobs.c.generation)
        told &= removal_notices.c.at >= jobs.c.updated_at
        chosen = (studies.c.state == state) & (jobs.c.state == state) & (studies.c.instances > 0)
        chosen &= jobs.c.updated_at <= before
        query = select(studies, removal_notices.c.at).join(jobs, newest).outerjoin(removal_notices, told)
        with self._read() as connection:
            rows = connection.execute(query.where(chosen).order_by(jobs.c.updated_at)).all()
        return [(Study(*row[:-1]), row[-1]) for row in rows]

    def notice_removal(self, study: Study, reason: str, now: float) -> None:
        """Note that a person is told of a removal to come, and leave the event to tell.

        Nothing, where another node on this database was quicker.
        """
        digest = hashlib.sha256(f"{study.study_uid} {study.generation} expiring {now!r}".encode()).hexdigest()[:32]
        event = Event(digest, study.study_uid, study.generation, "expiring", reason, now)
        row = self._insert(removal_notices).values(study_uid=study.study_uid, generation=study.generation, at=now)
        mine = (jobs.c.study_uid == study.study_uid) & (jobs.c.generation == study.generation)
        before = removal_notices.c.at < select(jobs.c.updated_at).where(mine).scalar_subquery()
        row = row.on_conflict_do_update(
            index_elements=["study_uid", "generation"], set_={"at": now}, where=before
        ).execution_options(preserve_rowcount=True)
        with self._write() as connection:
            if connection.execute(row).rowcount == 1:
                connection.execute(insert(events).values(vars(event)))
