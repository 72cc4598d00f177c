"""The orders that the node has seen on the worklist. Many RISs drop an order once it is done: here it is remembered."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from dicomnode.registry_format.identity import PATIENT_ID_DIGITS
from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.priors import RESULT
from dicomnode.store.catalog.tables import late_orders, orders, patients, studies
from dicomnode.store.records import Study


@dataclass(frozen=True)
class Order:
    """One order (Requested Procedure) of the worklist.

    Attributes:
        key: tells orders apart; the steps of one order share it. Under the catalogue's key.
        patient_hash: as of an `Instance`.
        study_uid: the Study Instance UID that the order's images shall have.
        scheduled: start date and time of the first step as the RIS writes them, "YYYYMMDD HHMMSS".
        content: the worklist item as it came, as a DICOM file.
        seen_at: when it was last on the worklist, UTC seconds.
    """

    key: str
    patient_hash: str
    study_uid: str
    accession_number: str
    scheduled: str
    content: bytes
    seen_at: float


class Orders(Database):
    """The worklist's part of the catalogue."""

    def remember_orders(self, seen: Sequence[Order]) -> None:
        """Add orders, and take over what has changed of known ones."""
        insert = self._insert(orders)
        changed = {name: insert.excluded[name] for name in ("scheduled", "content", "seen_at")}
        with self._write() as connection:
            for order in seen:
                row = insert.values(**vars(order))
                connection.execute(row.on_conflict_do_update(index_elements=["key"], set_=changed))

    def forget_orders(self, before: float) -> int:
        """Remove those last seen before this time; return how many."""
        with self._write() as connection:
            return connection.execute(orders.delete().where(orders.c.seen_at < before)).rowcount

    def orders_like(self, patient_hash: str, study_uid: str, accession_number: str) -> list[Order]:
        """Return the orders of a Patient ID (whoever issued it), a study, or an Accession Number (unless it is "")."""
        patient = orders.c.patient_hash.startswith(patient_hash[:PATIENT_ID_DIGITS])
        like = patient | (orders.c.study_uid == study_uid)
        if accession_number:
            like |= orders.c.accession_number == accession_number
        with self._read() as connection:
            return [Order(**row._mapping) for row in connection.execute(select(orders).where(like))]

    def order(self, key: str) -> Order | None:
        """None if it was forgotten. A queue of before keys were keyed (revision 0010) names it by its old one."""
        named = orders.c.key.in_([key, self.patient_key.order(key)])
        with self._read() as connection:
            row = connection.execute(select(orders).where(named)).one_or_none()
        return None if row is None else Order(**row._mapping)

    def reopen_for_order(self, study_uid: str, order_key: str, now: float) -> bool:
        """Let a study settle once more whose order came after its results had gone out.

        False, and nothing: that was done before for this order, or its images or results are gone.
        """
        mine = (late_orders.c.study_uid == study_uid) & (late_orders.c.order_key == order_key)
        here = (studies.c.study_uid == study_uid) & studies.c.state.in_(RESULT) & (studies.c.instances > 0)
        with self._write() as connection:
            if connection.execute(select(late_orders.c.at).where(mine)).first() is not None:
                return False
            if connection.execute(studies.update().where(here).values(state="receiving")).rowcount != 1:
                return False
            connection.execute(late_orders.insert().values(study_uid=study_uid, order_key=order_key, at=now))
        return True

    def forget_late_orders(self, before: float) -> None:
        """Forget which orders came late before this time: their studies are not looked at any more."""
        with self._write() as connection:
            connection.execute(late_orders.delete().where(late_orders.c.at < before))

    def orders_between(self, first: str, last: str) -> list[Order]:
        """Return the orders scheduled from `first` to `last` (both "YYYYMMDD"), the earliest first."""
        day = orders.c.scheduled.between(first, f"{last} 999999")
        with self._read() as connection:
            rows = connection.execute(select(orders).where(day).order_by(orders.c.scheduled, orders.c.key))
            return [Order(**row._mapping) for row in rows]

    def studies_of_patient(self, patient_hash: str) -> list[tuple[Study, str]]:
        """Return the settled studies of a patient ID (whoever issued it), each with its patient hash."""
        chosen = patients.c.patient_hash.startswith(patient_hash[:PATIENT_ID_DIGITS])
        query = select(studies, patients.c.patient_hash).join(patients, patients.c.study_uid == studies.c.study_uid)
        with self._read() as connection:
            rows = [
                dict(row._mapping) for row in connection.execute(query.where(chosen).order_by(studies.c.first_seen))
            ]
        return [(Study(**{k: v for k, v in row.items() if k != "patient_hash"}), row["patient_hash"]) for row in rows]
