"""Alerts about the node itself: which are raised, and the messages about them. Times are UTC seconds.

An alert is raised, and ended, in one transaction with its messages: none is told twice, whatever restarts meanwhile.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, func, insert, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import alert_messages, alerts, deliveries, jobs, refusals, studies

#: Refused associations are counted by periods of so many seconds.
PERIOD_S = 300
#: So much of a reason or a caller is kept, characters, and of an alert's text.
_LONGEST, _LONGEST_TEXT = 200, 1000
#: An image whose time lies further ahead came while a clock was wrong.
_AHEAD_S = 86_400.0
AlertState = Literal["alert", "alert-over"]


@dataclass(frozen=True)
class Alert:
    """Something about the node that a person was told of, and that is not over.

    Attributes:
        key: tells alerts apart: "disk-spool@host".
        host: the machine that raised it.
        text: what is wrong and what to do; no patient data.
    """

    key: str
    host: str
    text: str
    raised_at: float


@dataclass(frozen=True)
class AlertMessage:
    """A message to one receiver. `attempts` were made so far; `at` is when the alert was raised, or ended."""

    event_id: str
    receiver: str
    state: AlertState
    text: str
    at: float
    attempts: int


@dataclass(frozen=True)
class RefusalCount:
    """Associations refused for one reason; `caller`: the last of them."""

    why: str
    caller: str
    count: int


class AlertRows(Database):
    """The alerts' part of the catalogue."""

    def answers(self) -> None:
        """Ask the database for a sign of life. Raises SpoolError."""
        with self._read() as connection:
            connection.execute(select(1))

    def alerts(self) -> list[Alert]:
        """Return what is raised, the oldest first."""
        with self._read() as connection:
            columns = [c for c in alerts.c if c.name != "seen_at"]
            rows = connection.execute(select(*columns).order_by(alerts.c.raised_at, alerts.c.key))
            return [Alert(**row._mapping) for row in rows]

    def see_alerts(self, keys: Collection[str], now: float) -> None:
        """Note that somebody still looks at what these alerts are about."""
        with self._write() as connection:
            connection.execute(alerts.update().where(alerts.c.key.in_(keys)).values(seen_at=now))

    def unseen_alerts(self, before: float) -> list[Alert]:
        """Return the alerts that nobody has looked at since then: their machine is gone."""
        columns = [c for c in alerts.c if c.name != "seen_at"]
        with self._read() as connection:
            rows = connection.execute(select(*columns).where(alerts.c.seen_at < before))
            return [Alert(**row._mapping) for row in rows]

    def raise_alert(self, alert: Alert, receivers: Sequence[str]) -> bool:
        """Raise an alert, with a message to each receiver. False, and nothing: it is raised already."""
        values = {**vars(alert), "text": alert.text[:_LONGEST_TEXT], "seen_at": alert.raised_at}
        new = self._insert(alerts).values(values).on_conflict_do_nothing()
        with self._write() as connection:
            if connection.execute(new.execution_options(preserve_rowcount=True)).rowcount != 1:
                return False
            for message in _messages(alert, "alert", alert.text, alert.raised_at, receivers):
                connection.execute(insert(alert_messages).values(message))
        return True

    def end_alert(self, alert: Alert, text: str, receivers: Sequence[str], now: float) -> bool:
        """End an alert, with a message to each receiver. False, and nothing: it has ended already."""
        mine = (alerts.c.key == alert.key) & (alerts.c.raised_at == alert.raised_at)
        with self._write() as connection:
            if connection.execute(alerts.delete().where(mine)).rowcount != 1:
                return False
            for message in _messages(alert, "alert-over", text, now, receivers):
                connection.execute(insert(alert_messages).values(message))
        return True

    def tell_over(self, alert: Alert, text: str, receivers: Sequence[str], now: float) -> None:
        """Leave messages that an alert is over which was not raised here; a second call changes nothing."""
        with self._write() as connection:
            for message in _messages(alert, "alert-over", text, now, receivers):
                connection.execute(self._insert(alert_messages).values(message).on_conflict_do_nothing())

    def due_alert_messages(
        self, receiver: str, now: float, claimed_s: float, longest_s: float = math.inf
    ) -> list[AlertMessage]:
        """Claim the messages to a receiver that are due, for `claimed_s`: another node does not send them too.

        `longest_s` is the longest pause before a next attempt: what is due later was put off by a clock that has been
        set back since, and is due now.
        """
        due = (alert_messages.c.due_at <= now) | (alert_messages.c.due_at > now + max(claimed_s, longest_s))
        mine = (alert_messages.c.receiver == receiver) & due
        columns = [c for c in alert_messages.c if c.name != "due_at"]
        query = select(*columns).where(mine).order_by(alert_messages.c.at).limit(20)
        with self._read() as connection:  # most looks find nothing, and need no writer's turn
            if connection.execute(query).first() is None:
                return []
        with self._write() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            found = [AlertMessage(**row._mapping) for row in rows]
            ids = [message.event_id for message in found]
            claimed = alert_messages.update().where(mine & alert_messages.c.event_id.in_(ids))
            connection.execute(claimed.values(due_at=now + claimed_s))
        return found

    def put_off_alert_message(self, message: AlertMessage, due_at: float) -> None:
        """Note one more attempt that has failed."""
        mine = _key_of(message)
        with self._write() as connection:
            connection.execute(alert_messages.update().where(mine).values(attempts=message.attempts + 1, due_at=due_at))

    def forget_alert_message(self, message: AlertMessage) -> None:
        """Forget a message that was taken, or given up."""
        with self._write() as connection:
            connection.execute(alert_messages.delete().where(_key_of(message)))

    def forget_alert_messages(self, before: float) -> None:
        """Forget messages of before this time: nobody has sent them, as their receiver is no longer configured."""
        with self._write() as connection:
            connection.execute(alert_messages.delete().where(alert_messages.c.at < before))

    # What alerts are about

    def note_refusals(self, counted: Sequence[RefusalCount], now: float) -> None:
        """Add refused associations to the counts of this time."""
        period = int(now // PERIOD_S)
        with self._write() as connection:
            for one in counted:
                caller = one.caller[:_LONGEST]
                row = self._insert(refusals).values(
                    period=period, why=one.why[:_LONGEST], caller=caller, count=one.count
                )
                more = {"count": refusals.c.count + one.count, "caller": caller}
                connection.execute(row.on_conflict_do_update(index_elements=["period", "why"], set_=more))

    def refusals_between(self, since: float, now: float) -> list[RefusalCount]:
        """Return the refused associations from the period of `since` on, by reason, the most frequent first."""
        chosen = refusals.c.period.between(int(since // PERIOD_S), int(now // PERIOD_S) + 1)
        total = func.sum(refusals.c.count)
        query = select(refusals.c.why, func.max(refusals.c.caller), total).where(chosen).group_by(refusals.c.why)
        with self._read() as connection:
            return [RefusalCount(why, caller, int(n)) for why, caller, n in connection.execute(query.order_by(-total))]

    def forget_refusals(self, before: float, now: float) -> None:
        """Remove the counts of the periods that ended before this time, and of those that a wrong clock has made."""
        first, last = int(before // PERIOD_S), int(now // PERIOD_S) + 1
        with self._write() as connection:
            connection.execute(refusals.delete().where(~refusals.c.period.between(first, last)))

    def last_received(self, now: float) -> float | None:
        """Return when the last image came; None: none ever did."""
        query = select(func.max(studies.c.last_seen)).where(studies.c.last_seen <= now + _AHEAD_S)
        with self._read() as connection:
            return connection.execute(query).scalar()

    def dead_letters(self) -> dict[str, int]:
        """Return how many objects of failed jobs were rejected or given up, by destination."""
        theirs = (deliveries.c.study_uid == jobs.c.study_uid) & (deliveries.c.generation == jobs.c.generation)
        lost = deliveries.c.state.in_(("rejected", "failed"))
        query = select(deliveries.c.destination, func.count()).join(jobs, theirs)
        query = query.where((jobs.c.state == "failed") & lost).group_by(deliveries.c.destination)
        with self._read() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query.order_by(deliveries.c.destination))}


def event_id(alert: Alert, state: AlertState) -> str:
    """Return what tells an alert's beginning, and its end, from all others."""
    return hashlib.sha256(f"{alert.key} {alert.raised_at!r} {state}".encode()).hexdigest()[:32]


def _messages(
    alert: Alert, state: AlertState, text: str, at: float, receivers: Sequence[str]
) -> list[dict[str, object]]:
    one = {
        "event_id": event_id(alert, state),
        "state": state,
        "text": text[:_LONGEST_TEXT],
        "at": at,
        "attempts": 0,
        "due_at": at,
    }
    return [{**one, "receiver": receiver} for receiver in receivers]


def _key_of(message: AlertMessage) -> ColumnElement[bool]:
    return (alert_messages.c.event_id == message.event_id) & (alert_messages.c.receiver == message.receiver)
