"""What is counted in the catalogue for monitoring: each figure comes by an index, however many studies there are."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, cast, func, select, text
from sqlalchemy.dialects import postgresql

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import (
    associations,
    audit_outbox,
    deliveries,
    instances,
    jobs,
    routings,
    studies,
    transitions,
)


@dataclass(frozen=True)
class Waiting:
    """Studies that wait for their analysis. `since`: when the first of them settled, UTC seconds."""

    priority: str
    count: int
    since: float


@dataclass(frozen=True)
class OpenDeliveries:
    """Objects that have not arrived at a destination.

    Attributes:
        state: `pending`, `failed` or `rejected`.
        retried: of these, those that were tried before.
        since: when the first of them was last touched, UTC seconds.
    """

    destination: str
    state: str
    count: int
    retried: int
    since: float


@dataclass(frozen=True)
class Step:
    """A job has come from one state to another.

    Attributes:
        before: "" for the first.
        seconds: spent in the state before; before the first, since the study's last image.
    """

    id: int
    before: str
    state: str
    at: float
    seconds: float
    study_uid: str
    generation: int


class Figures(Database):
    """The monitoring's part of the catalogue."""

    def queued_by_priority(self) -> list[Waiting]:
        """Return how many studies wait for their analysis and since when, by what the rules say of their priority."""
        priority = func.coalesce(self._priority(), "routine")
        mine = (routings.c.study_uid == jobs.c.study_uid) & (routings.c.generation == jobs.c.generation)
        query = (
            select(priority, func.count(), func.min(jobs.c.created_at))
            .join_from(jobs, routings, mine, isouter=True)
            .where(jobs.c.state == "queued")
            .group_by(priority)
        )
        with self._read() as connection:
            return [Waiting(*row) for row in connection.execute(query)]

    def _priority(self) -> ColumnElement[Any]:
        if self._is_sqlite:
            return func.json_extract(routings.c.decision, "$.action.priority")
        return func.json_extract_path_text(cast(routings.c.decision, postgresql.JSON), "action", "priority")

    def open_deliveries(self) -> list[OpenDeliveries]:
        """Return what has not arrived, by destination and state."""
        # Word for word as the index has it, and with no parameters: or it would not be taken.
        open_ = text("deliveries.state IN ('pending', 'failed', 'rejected')")
        retried = func.sum(cast(deliveries.c.attempts > 0, Integer))
        query = (
            select(
                deliveries.c.destination, deliveries.c.state, func.count(), retried, func.min(deliveries.c.updated_at)
            )
            .where(open_)
            .group_by(deliveries.c.destination, deliveries.c.state)
        )
        with self._read() as connection:
            return [OpenDeliveries(*row) for row in connection.execute(query)]

    def newest_step(self) -> int:
        """Return the number of the newest step of any job; 0 for none."""
        with self._read() as connection:
            return connection.execute(select(func.max(transitions.c.id))).scalar() or 0

    def steps_after(self, number: int, limit: int) -> list[Step]:
        """Return the steps of all jobs behind this number, in their order."""
        earlier = transitions.alias()
        before = (
            select(earlier.c.id)
            .where((earlier.c.study_uid == transitions.c.study_uid) & (earlier.c.id < transitions.c.id))
            .where(earlier.c.generation == transitions.c.generation)
            .order_by(earlier.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        last = transitions.alias()
        query = (
            select(
                transitions.c.id,
                func.coalesce(last.c.state, ""),
                transitions.c.state,
                transitions.c.at,
                transitions.c.at - func.coalesce(last.c.at, studies.c.last_seen),
                transitions.c.study_uid,
                transitions.c.generation,
            )
            .select_from(transitions)
            .outerjoin(last, last.c.id == before)
            .outerjoin(studies, studies.c.study_uid == transitions.c.study_uid)
            .where(transitions.c.id > number)
            .order_by(transitions.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return [Step(*r[:4], max(0.0, r[4] or 0.0), *r[5:]) for r in connection.execute(query)]

    def associations_of(self, study_uid: str) -> list[tuple[int, float, float | None]]:
        """Return the row, opening and end of each association that brought images of a study which are here."""
        of_study = select(instances.c.association_id).where(instances.c.study_uid == study_uid)
        query = select(associations.c.id, associations.c.opened_at, associations.c.closed_at)
        with self._read() as connection:
            rows = connection.execute(query.where(associations.c.id.in_(of_study)).order_by(associations.c.id))
            return [(row[0], row[1], row[2]) for row in rows]

    def audit_waiting_count(self) -> int:
        """Return how many audit messages wait for their server."""
        query = select(func.count()).select_from(audit_outbox).where(audit_outbox.c.sent_at.is_(None))
        with self._read() as connection:
            return connection.execute(query).scalar_one()
