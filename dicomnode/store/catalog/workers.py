"""Which workers live, by the database's clock, and the leases that fence off those that were declared dead."""

from typing import Literal

from sqlalchemy import ColumnElement, Float, cast, func, literal_column, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import workers
from dicomnode.store.records import Lease, Worker


class Workers(Database):
    """The workers' part of the catalogue."""

    @property
    def _now(self) -> ColumnElement[float]:
        """The database's clock: the machines' own clocks need not agree."""
        if self._is_sqlite:
            return literal_column("(julianday('now') - 2440587.5) * 86400.0", Float)
        return cast(func.extract("epoch", func.clock_timestamp()), Float)

    def register_worker(self, name: str, version: str) -> Lease:
        """Return a new lease.

        It ends an older one of the same name: a worker that was started again follows its dead self.
        """
        row = self._insert(workers).values(name=name, epoch=1, version=version, state="alive", beat_at=self._now)
        again = {"epoch": workers.c.epoch + 1, "version": version, "state": "alive", "beat_at": self._now}
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["name"], set_=again))
            epoch = connection.execute(select(workers.c.epoch).where(workers.c.name == name)).scalar_one()
        return Lease(name, epoch)

    def beat(self, lease: Lease) -> bool:
        """Give a sign of life; False where the lease is no longer valid."""
        mine = (workers.c.name == lease.name) & (workers.c.epoch == lease.epoch)
        with self._write() as connection:
            return connection.execute(workers.update().where(mine).values(beat_at=self._now)).rowcount == 1

    def declare_dead(self, silent_s: float) -> list[str]:
        """End the leases of workers silent for longer than `silent_s`.

        Returns the names of all the dead whose work has not been given to others yet (`mark_reassigned`).
        """
        silent = (workers.c.state == "alive") & (workers.c.beat_at < self._now - silent_s)
        with self._write() as connection:
            connection.execute(workers.update().where(silent).values(state="dead", epoch=workers.c.epoch + 1))
            return list(connection.execute(select(workers.c.name).where(workers.c.state == "dead")).scalars())

    def mark_reassigned(self, name: str) -> None:
        """Note that the work of this dead worker has been given to others."""
        mine = (workers.c.name == name) & (workers.c.state == "dead")
        with self._write() as connection:
            connection.execute(workers.update().where(mine).values(state="gone"))

    def give_back(self, lease: Lease) -> bool:
        """End a lease at its holder's wish: nobody has to declare it dead. False where it was not valid any more."""
        mine = (workers.c.name == lease.name) & (workers.c.epoch == lease.epoch)
        ended = {"state": "gone", "epoch": workers.c.epoch + 1}
        with self._write() as connection:
            return connection.execute(workers.update().where(mine).values(ended)).rowcount == 1

    def workers(self, state: Literal["alive", "dead", "gone"] | None = None) -> list[Worker]:
        """By name."""
        query = select(workers).order_by(workers.c.name)
        if state is not None:
            query = query.where(workers.c.state == state)
        with self._read() as connection:
            return [Worker(**row._mapping) for row in connection.execute(query)]
