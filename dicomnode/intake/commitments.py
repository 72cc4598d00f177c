"""Storage commitment in the catalogue: which transaction asked for what, and what came back. Times are UTC seconds."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from dicomnode.intake.ledger import Ledger, conclude, lock_study
from dicomnode.intake.records import Instance
from dicomnode.intake.tables import commitments, deliveries, instances


class Commitments(Ledger):
    """The storage commitments' part of the catalogue."""

    def ask_commitment(
        self, transaction_uid: str, study_uid: str, generation: int, destination: str, *, now: float
    ) -> None:
        """Notes a request before it is sent: the report may come at any time after that."""
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
        """Takes in a report: SOP Instance UIDs that the peer answers for, and those that it does not, with the reason.

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
                text = f"stored, but not committed: failure reason 0x{reason:04X}"
                lost = mine & (deliveries.c.sop_instance_uid == uid)
                connection.execute(deliveries.update().where(lost).values(state="pending", text=text, updated_at=now))
            conclude(connection, asked.study_uid, asked.generation, now)
        return True

    def held_instance(self, sop_instance_uid: str) -> Instance | None:
        """What the node answers for when it is asked for storage commitment itself."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Instance(**row._mapping)
