"""What the rules of routing decided, and which associations brought a study. Times are UTC seconds."""

from collections.abc import Iterable

from sqlalchemy import select

from dicomnode.store.catalog.jobs import Ledger, arrived_before, lock_study, planned_delivery
from dicomnode.store.catalog.tables import associations, deliveries, instances, routings
from dicomnode.store.records import Routing, original


class Routings(Ledger):
    """The routing's part of the catalogue."""

    def callers(self, study_uid: str) -> list[tuple[str, str]]:
        """Return (calling AE title, called AE title) of the associations that brought the study's images last."""
        query = (
            select(associations.c.calling_ae, associations.c.called_ae)
            .join_from(instances, associations)
            .where(instances.c.study_uid == study_uid)
            .distinct()
        )
        with self._read() as connection:
            return sorted((row.calling_ae, row.called_ae) for row in connection.execute(query))

    def note_routing(self, study_uid: str, generation: int, decision: str, *, now: float) -> Routing:
        """Note a decision. One that a person has released stays as it is. Returns what stands now."""
        mine = (routings.c.study_uid == study_uid) & (routings.c.generation == generation)
        row = {"study_uid": study_uid, "generation": generation, "decided_at": now, "decision": decision}
        with self._write() as connection:
            new = {"decision": decision, "decided_at": now}
            insert = self._insert(routings).values(row)
            changed = insert.on_conflict_do_update(
                index_elements=["study_uid", "generation"], set_=new, where=routings.c.released_at.is_(None)
            )
            connection.execute(changed)
            return Routing(**connection.execute(select(routings).where(mine)).one()._mapping)

    def routing(self, study_uid: str, generation: int) -> Routing | None:
        """None if no rule has decided (yet)."""
        query = select(routings).where(routings.c.study_uid == study_uid, routings.c.generation == generation)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Routing(**row._mapping)

    def forget_routing(self, study_uid: str, generation: int) -> None:
        """No rule has anything to say of it any more."""
        mine = (routings.c.study_uid == study_uid) & (routings.c.generation == generation)
        with self._write() as connection:
            connection.execute(routings.delete().where(mine))

    def release_held(self, study_uid: str, generation: int, *, now: float) -> bool:
        """Let a study go on that a rule held, as a person wishes. False: no rule has held it."""
        mine = (routings.c.study_uid == study_uid) & (routings.c.generation == generation)
        with self._write() as connection:
            return connection.execute(routings.update().where(mine).values(released_at=now)).rowcount == 1

    def plan_originals(
        self, study_uid: str, generation: int, destinations: Iterable[tuple[str, bool]], *, now: float
    ) -> int:
        """Return a delivery of each received image to each of (destination, whether it is asked for commitment).

        As `plan_delivery`: planned twice they stay, and what an earlier generation has brought is not brought again.
        Returns how many are planned now. All in one transaction: a study may have thousands of images.
        """
        with self._write() as connection:
            lock_study(connection, study_uid)
            images = connection.execute(select(instances).where(instances.c.study_uid == study_uid)).all()
            rows = []
            for destination, commitment in destinations:
                before = arrived_before(connection, study_uid, generation, destination)
                for image in images:
                    earlier = before.get(image.sop_instance_uid)
                    if earlier is not None and earlier.path != image.path:
                        earlier = None  # its content was corrected since
                    row = planned_delivery(
                        study_uid,
                        generation,
                        destination,
                        original(image.sop_instance_uid),
                        image.sop_class_uid,
                        image.sop_instance_uid,
                        image.path,
                        earlier,
                        now=now,
                        commitment=commitment,
                    )
                    rows.append(vars(row))
            if rows:
                connection.execute(self._insert(deliveries).on_conflict_do_nothing(), rows)
        return len(rows)
