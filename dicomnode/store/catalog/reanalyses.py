"""Studies that are to be analysed once more, one after the other, when nothing else waits. Times are UTC seconds."""

from collections.abc import Sequence

from sqlalchemy import func, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import reanalyses, studies
from dicomnode.store.records import JobState

#: States from which a study settles once more: its job has ended, and its results or its refusal stand.
REANALYSED: tuple[JobState, ...] = ("analysed", "delivered", "committed", "refused", "failed")


class Reanalyses(Database):
    """The re-analyses' part of the catalogue."""

    def ask_reanalysis(self, study_uids: Sequence[str], per_hour: float, now: float) -> None:
        """Note that these studies are to be analysed once more, `per_hour` of them in an hour."""
        again = {"asked_at": now, "per_hour": per_hour, "generation": None, "taken_at": None}
        row = self._insert(reanalyses)
        with self._write() as connection:
            for study_uid in study_uids:
                one = row.values(study_uid=study_uid, **again)
                connection.execute(one.on_conflict_do_update(index_elements=["study_uid"], set_=again))

    def reanalyses_waiting(self) -> int:
        """Return how many studies wait for their turn."""
        query = select(func.count()).select_from(reanalyses).where(reanalyses.c.generation.is_(None))
        with self._read() as connection:
            return connection.execute(query).scalar_one()

    def forget_reanalyses(self) -> int:
        """Forget those that wait for their turn; return how many."""
        with self._write() as connection:
            return connection.execute(reanalyses.delete().where(reanalyses.c.generation.is_(None))).rowcount

    def take_reanalysis(self, now: float) -> str | None:
        """Let the next study settle once more, if its turn has come. Returns its UID.

        One whose images have gone, or on which work goes on anyway, is dropped from the list.
        """
        waiting = reanalyses.c.generation.is_(None)
        query = select(reanalyses.c.study_uid, reanalyses.c.per_hour).where(waiting)
        with self._read() as connection:
            first = connection.execute(query.order_by(reanalyses.c.asked_at, reanalyses.c.study_uid)).first()
            last = connection.execute(select(func.max(reanalyses.c.taken_at))).scalar()
        if first is None or (last is not None and 0 <= now - last < 3600.0 / first.per_hour):
            return None
        mine = reanalyses.c.study_uid == first.study_uid
        here = (studies.c.study_uid == first.study_uid) & studies.c.state.in_(REANALYSED) & (studies.c.instances > 0)
        with self._write() as connection:
            if not connection.execute(studies.update().where(here).values(state="receiving")).rowcount:
                connection.execute(reanalyses.delete().where(mine & waiting))
                return None
            generation = select(studies.c.generation + 1).where(studies.c.study_uid == first.study_uid)
            taken = {"generation": generation.scalar_subquery(), "taken_at": now}
            connection.execute(reanalyses.update().where(mine).values(taken))
        return str(first.study_uid)

    def is_reanalysis(self, study_uid: str, generation: int) -> bool:
        """Whether this generation of a study is there only because it is analysed once more."""
        mine = (reanalyses.c.study_uid == study_uid) & (reanalyses.c.generation == generation)
        with self._read() as connection:
            return connection.execute(select(reanalyses.c.study_uid).where(mine)).first() is not None
