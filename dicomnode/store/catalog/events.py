"""The outbox of events: written in the transaction that changes a job's state, emptied once somebody was told.

So no event is lost to a crash, and none is told of a change that did not come about.
"""

import hashlib

from sqlalchemy import Connection, insert, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import events, transitions
from dicomnode.store.records import Event, JobState

#: States that are events.
TOLD: tuple[JobState, ...] = ("delivered", "committed", "refused", "failed", "held")


class Events(Database):
    """The events' part of the catalogue."""

    def events(self, limit: int) -> list[Event]:
        """Those that were not handed over, the oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(events).order_by(events.c.at).limit(limit))
            return [Event(**row._mapping) for row in rows]

    def forget_event(self, event_id: str) -> None:
        """Forget an event that was handed over."""
        with self._write() as connection:
            connection.execute(events.delete().where(events.c.event_id == event_id))


def note(
    connection: Connection,
    study_uid: str,
    generation: int,
    before: JobState | None,
    state: JobState,
    reason: str | None,
    now: float,
) -> None:
    """Note that a job has come to a state, and the event that this is: a commitment that follows a delivery is none."""
    if state != before:
        row = {"study_uid": study_uid, "generation": generation, "state": state, "reason": reason, "at": now}
        connection.execute(insert(transitions).values(row))
    if state not in TOLD or state == before or (state, before) == ("committed", "delivered"):
        return
    digest = hashlib.sha256(f"{study_uid} {generation} {state} {now!r}".encode()).hexdigest()[:32]
    if connection.execute(select(events.c.at).where(events.c.event_id == digest)).first() is None:
        event = Event(digest, study_uid, generation, state, reason, now)
        connection.execute(insert(events).values(vars(event)))
