"""Storage commitment in the catalogue, both sides. Times are UTC seconds.

As SCU: which transaction asked for what, and what came back. As SCP: which reports the node owes.
"""

import json
import logging
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, select

from dicomnode import logs
from dicomnode.retry import backoff_s
from dicomnode.store.catalog.jobs import Ledger, conclude, lock_study
from dicomnode.store.catalog.tables import commitments, deliveries, instances, owed_reports
from dicomnode.store.records import Instance, OwedReport

log = logging.getLogger(__name__)

#: The pause between two attempts to bring a report grows from the first to the longest; then it is given up.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GIVE_UP_S = 10.0, 1800.0, 172_800.0


class Commitments(Ledger):
    """The storage commitments' part of the catalogue."""

    def ask_commitment(
        self, transaction_uid: str, study_uid: str, generation: int, destination: str, *, now: float
    ) -> None:
        """Note a request before it is sent: the report may come at any time after that."""
        row = commitments.insert().values(
            transaction_uid=transaction_uid,
            study_uid=study_uid,
            generation=generation,
            destination=destination,
            asked_at=now,
        )
        with self._write() as connection:
            connection.execute(row)

    def commitment_asked_at(self, study_uid: str, generation: int, destination: str) -> float | None:
        """When the newest request that has not been answered was made."""
        mine = (commitments.c.study_uid == study_uid) & (commitments.c.generation == generation)
        mine &= (commitments.c.destination == destination) & commitments.c.answered_at.is_(None)
        query = select(commitments.c.asked_at).where(mine).order_by(commitments.c.asked_at.desc()).limit(1)
        with self._read() as connection:
            return connection.execute(query).scalar()

    def report_commitment(
        self, transaction_uid: str, committed: Sequence[str], failed: Mapping[str, int], *, now: float
    ) -> bool:
        """Take in a report: SOP Instance UIDs that the peer answers for, and those that it does not, with the reason.

        What failed becomes pending again, so that it is sent once more. A report that comes twice, late, or after its
        object was committed by another one takes nothing back. False: there was no such request.
        """
        with self._write() as connection:
            asked = connection.execute(
                select(commitments).where(commitments.c.transaction_uid == transaction_uid)
            ).one_or_none()
            if asked is None:
                return False
            lock_study(connection, asked.study_uid)
            connection.execute(
                commitments.update().where(commitments.c.transaction_uid == transaction_uid).values(answered_at=now)
            )
            mine = (deliveries.c.study_uid == asked.study_uid) & (deliveries.c.generation == asked.generation)
            mine &= (deliveries.c.destination == asked.destination) & (deliveries.c.state == "delivered")
            safe = mine & deliveries.c.sop_instance_uid.in_(committed)
            connection.execute(deliveries.update().where(safe).values(state="committed", updated_at=now))
            for uid, reason in failed.items():
                text = f"stored but not committed: failure reason 0x{reason:04X}"
                lost = mine & (deliveries.c.sop_instance_uid == uid)
                connection.execute(deliveries.update().where(lost).values(state="pending", text=text, updated_at=now))
            conclude(connection, asked.study_uid, asked.generation, now)
        return True

    def held_instance(self, sop_instance_uid: str) -> Instance | None:
        """Return what the node answers for when it is asked for storage commitment itself."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Instance(**row._mapping)

    def owe_report(self, owed: OwedReport, *, now: float) -> None:
        """Note a report before its request is answered. The first attempt is the caller's. Asked again, it is new."""
        values = {"objects": json.dumps(owed.objects), "asked_at": now, "due_at": now + _FIRST_PAUSE_S, "attempts": 1}
        row = self._insert(owed_reports).values(
            transaction_uid=owed.transaction_uid, requester=owed.requester, **values
        )
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["transaction_uid", "requester"], set_=values))

    def due_reports(self, now: float) -> list[OwedReport]:
        """Return the reports whose next attempt is due. It is the caller's: nobody else is given it."""
        table = owed_reports.c
        # A time far ahead was noted before the clock was set back.
        is_due = (table.due_at <= now) | (table.due_at > now + _LONGEST_PAUSE_S)
        with self._read() as connection:
            found = connection.execute(select(owed_reports).where(is_due)).all()
        taken = []
        for row in found:
            owed = OwedReport(row.transaction_uid, row.requester, tuple((a, b) for a, b in json.loads(row.objects)))
            if now - row.asked_at > _GIVE_UP_S:
                log.error("gave up storage commitment report %s to %s", logs.uid(owed.transaction_uid), owed.requester)
                self.report_brought(owed)
                continue
            seed = f"{owed.transaction_uid} {owed.requester}"
            pause = backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, row.attempts + 1, seed)
            mine = _owed(owed) & (table.attempts == row.attempts) & is_due
            with self._write() as connection:
                changed = connection.execute(
                    owed_reports.update().where(mine).values(due_at=now + pause, attempts=row.attempts + 1)
                )
            if changed.rowcount == 1:
                taken.append(owed)
        return taken

    def report_brought(self, owed: OwedReport) -> None:
        """Nothing more is owed."""
        with self._write() as connection:
            connection.execute(owed_reports.delete().where(_owed(owed)))


def _owed(owed: OwedReport) -> ColumnElement[bool]:
    return (owed_reports.c.transaction_uid == owed.transaction_uid) & (owed_reports.c.requester == owed.requester)
