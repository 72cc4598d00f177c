"""What the node holds and may give out: the catalogue's part of Query/Retrieve."""

from collections.abc import Collection

from sqlalchemy import select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import instances, jobs, studies
from dicomnode.store.records import JobState, Study

#: Jobs whose results stand. A held one waits for a person, a cancelled or superseded one was called back.
STANDING: tuple[JobState, ...] = ("analysed", "delivered", "committed", "refused", "failed")


class HoldingsRows(Database):
    """The part of the catalogue that answers queries."""

    def held_studies(self, study_uids: Collection[str] = ()) -> list[Study]:
        """Studies that have images, by UID: all of them, or those named. Never one that is held as doubtful."""
        query = select(studies).where((studies.c.instances > 0) & (studies.c.state != "held"))
        if study_uids:
            query = query.where(studies.c.study_uid.in_(study_uids))
        with self._read() as connection:
            return [Study(**row._mapping) for row in connection.execute(query.order_by(studies.c.study_uid))]

    def sample(self, study_uid: str) -> str | None:
        """Return the path of any image of a study; None where it has none."""
        query = select(instances.c.path).where(instances.c.study_uid == study_uid).limit(1)
        with self._read() as connection:
            return connection.execute(query).scalar()

    def standing_generation(self, study_uid: str) -> int | None:
        """Return the newest generation whose results stand."""
        mine = (jobs.c.study_uid == study_uid) & jobs.c.state.in_(STANDING)
        query = select(jobs.c.generation).where(mine).order_by(jobs.c.generation.desc()).limit(1)
        with self._read() as connection:
            return connection.execute(query).scalar()
