"""Jobs and deliveries: what is made of each generation of a study, and where it went. Times are UTC seconds."""

from sqlalchemy import ColumnElement, Connection, Float, case, func, literal, select

from dicomnode.errors import SpoolError
from dicomnode.metrics import counters
from dicomnode.store.catalog.audit import AuditRows, tally_sent, tell_accessed
from dicomnode.store.catalog.events import Events, note
from dicomnode.store.catalog.tables import deliveries, jobs, studies, transitions
from dicomnode.store.records import (
    ARRIVED,
    BEING_SENT,
    DROPPED_WHILE_SENT,
    ORIGINAL,
    Delivery,
    DeliveryState,
    Job,
    JobState,
)
from dicomnode.words.numerals import plural

#: States in which a job may still bring something to a destination.
LIVE: tuple[JobState, ...] = ("queued", "held", "running", "analysed", "routed")


class Ledger(AuditRows, Events):
    """The jobs' and deliveries' part of the catalogue."""

    # Jobs

    def set_state(
        self, study_uid: str, generation: int, state: JobState, reason: str | None = None, *, now: float
    ) -> JobState:
        """Set a job's state and return the state it has now.

        `superseded` is final, and `cancelled` yields only to `queued`: the answer tells a worker that comes too late.

        Raises:
            SpoolError: there is no such job.
        """
        patient = self.patient_header(study_uid) if state == "running" else None
        with self._write() as connection:
            lock_study(connection, study_uid)
            before = connection.execute(select(jobs.c.state).where(_job_key(study_uid, generation))).scalar()
            found = _set_state(connection, study_uid, generation, state, reason, now)
            if patient is not None and found == "running" != before:
                tell_accessed(connection, study_uid, patient, now)
            return found

    def jobs(self, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        """Return the jobs, the last changed first."""
        query = select(jobs).order_by(jobs.c.updated_at.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._read() as connection:
            return [Job(**row._mapping) for row in connection.execute(query)]

    def count_jobs(self) -> int:
        """Return how many there are."""
        with self._read() as connection:
            return int(connection.execute(select(func.count()).select_from(jobs)).scalar_one())

    def job(self, study_uid: str, generation: int) -> Job | None:
        """None if the study has no such generation."""
        query = select(jobs).where(_job_key(study_uid, generation))
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Job(**row._mapping)

    # Deliveries

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether an object is, or was, to be delivered as a result of this node, whatever its study is called now.

        An object that came from elsewhere, and was forwarded as it came, is none.
        """
        same = deliveries.c.sop_instance_uid == sop_instance_uid
        result = same & deliveries.c.object.not_like(f"{ORIGINAL}%")
        with self._read() as connection:
            return connection.execute(select(deliveries.c.state).where(result).limit(1)).first() is not None

    def plan_delivery(
        self,
        study_uid: str,
        generation: int,
        destination: str,
        object: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        path: str,
        *,
        now: float,
        commitment: bool = False,
    ) -> None:
        """Plan a delivery. Planned twice (a workflow that ran again) it stays as it is; another object replaces it.

        Where an earlier generation has brought this very object to the destination, there is nothing left to do.
        """
        with self._write() as connection:
            earlier = _arrived(connection, study_uid, generation, destination, sop_instance_uid)
            row = planned_delivery(
                study_uid,
                generation,
                destination,
                object,
                sop_class_uid,
                sop_instance_uid,
                path,
                earlier,
                now=now,
                commitment=commitment,
            )
            planned = self._insert(deliveries)
            other = planned.excluded.sop_instance_uid != deliveries.c.sop_instance_uid
            connection.execute(
                planned.on_conflict_do_update(
                    index_elements=["study_uid", "generation", "destination", "object"],
                    set_={name: planned.excluded[name] for name in vars(row)},
                    where=other,
                ),
                vars(row),
            )

    def mark_delivery(
        self,
        study_uid: str,
        generation: int,
        destination: str,
        object: str,
        state: DeliveryState,
        *,
        status: int | None,
        text: str | None,
        attempts: int,
        now: float,
    ) -> None:
        """Note how a delivery stands: the peer's DIMSE status, if it gave one, and words.

        A superseded delivery changes only if its object arrived after all.

        Raises:
            SpoolError: the delivery was not planned.
        """
        mine = _job_deliveries(study_uid, generation) & (deliveries.c.destination == destination)
        mine &= deliveries.c.object == object
        open_ = deliveries.c.state != "superseded"
        changeable = mine if state in ARRIVED else mine & open_
        values = {"state": state, "status": status, "text": text, "attempts": attempts, "updated_at": now}
        with self._write() as connection:
            if connection.execute(deliveries.update().where(changeable).values(values)).rowcount == 1:
                if state == "delivered":
                    tally_sent(connection, self._insert, mine, now)
                return
            planned = connection.execute(select(func.count()).select_from(deliveries).where(mine)).scalar_one()
        if not planned:
            raise SpoolError(f"no delivery of {object} to {destination} was planned for study {study_uid}")

    def note_attempt(
        self, delivery: Delivery, state: DeliveryState, *, status: int | None = None, text: str, now: float
    ) -> None:
        """Note one more attempt to deliver: how it left the delivery. Status, text and errors as `mark_delivery`."""
        counters.delivery_attempted(delivery.destination, "again" if state == "pending" else state)
        self.mark_delivery(
            delivery.study_uid,
            delivery.generation,
            delivery.destination,
            delivery.object,
            state,
            status=status,
            text=text,
            attempts=delivery.attempts + 1,
            now=now,
        )

    def may_send(self, delivery: Delivery) -> bool:
        """Asked just before each object is sent: False once a newer generation has settled, or the job was cancelled.

        A worker that has lost its lease does not get this answer.
        """
        with self._write() as connection:
            lock_study(connection, delivery.study_uid)
            key = _job_key(delivery.study_uid, delivery.generation)
            job_state = connection.execute(select(jobs.c.state).where(key)).scalar()
            mine = _job_deliveries(delivery.study_uid, delivery.generation)
            mine &= (deliveries.c.destination == delivery.destination) & (deliveries.c.object == delivery.object)
            state = connection.execute(select(deliveries.c.state).where(mine)).scalar()
            may = job_state not in ("superseded", "cancelled") and state == "pending"
            if may and delivery.kind == "results":  # whoever drops it from now on knows that it may arrive
                connection.execute(deliveries.update().where(mine).values(text=BEING_SENT))
        return may

    def deliveries(self, study_uid: str, generation: int) -> list[Delivery]:
        """By destination and object."""
        query = select(deliveries).where(_job_deliveries(study_uid, generation))
        with self._read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.destination, deliveries.c.object))
            return [Delivery(**row._mapping) for row in rows]

    def conclude(self, study_uid: str, generation: int, *, now: float) -> JobState:
        """Brings a job's state in line with its deliveries, and returns it.

        `failed` when one was rejected or given up; `delivered` when all are stored; `committed` when, beyond that,
        every destination that is asked for storage commitment has given it. A refused study stays `refused`. What is
        superseded is not waited for.

        Raises:
            SpoolError: there is no such job.
        """
        with self._write() as connection:
            lock_study(connection, study_uid)
            return conclude(connection, study_uid, generation, now)


def planned_delivery(
    study_uid: str,
    generation: int,
    destination: str,
    object: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    path: str,
    earlier: Delivery | None,
    *,
    now: float,
    commitment: bool,
) -> Delivery:
    """Return a delivery as it is planned.

    Pending, or as it stands where an `earlier` generation has brought this object.
    """
    return Delivery(
        study_uid,
        generation,
        destination,
        object,
        sop_class_uid,
        sop_instance_uid,
        path,
        state="pending" if earlier is None else earlier.state,
        status=None if earlier is None else earlier.status,
        text=None if earlier is None else f"unchanged since generation {earlier.generation}",
        attempts=0,
        updated_at=now,
        commitment=commitment,
    )


def lock_study(connection: Connection, study_uid: str) -> None:
    """`settle` takes the study before its jobs: the same order everywhere, or PostgreSQL sees a deadlock."""
    connection.execute(select(studies.c.generation).where(studies.c.study_uid == study_uid).with_for_update())


def conclude(connection: Connection, study_uid: str, generation: int, now: float) -> JobState:
    """`Ledger.conclude` within a transaction that has locked the study."""
    job = connection.execute(select(jobs.c.state, jobs.c.reason).where(_job_key(study_uid, generation))).one_or_none()
    if job is None:
        raise SpoolError(f"there is no job for study {study_uid} generation {generation}")
    state: JobState = job.state
    planned = _job_deliveries(study_uid, generation) & (deliveries.c.state != "superseded")
    rows = connection.execute(select(deliveries).where(planned)).all()
    lost = [row for row in rows if row.state in ("failed", "rejected")]
    if lost and state in ("analysed", "routed", "delivered", "refused", "failed"):
        what = "; ".join(_lost_in_words([Delivery(**row._mapping) for row in lost]))
        return _set_state(connection, study_uid, generation, "failed", what, now)
    if state in ("analysed", "routed", "delivered") and all(row.state in ARRIVED for row in rows):
        wanted = [row for row in rows if row.commitment]
        ended: JobState = "committed" if wanted and all(r.state == "committed" for r in wanted) else "delivered"
        if ended != state:
            # What is doubtful about the result (missing images) stays so when it has arrived.
            return _set_state(connection, study_uid, generation, ended, job.reason, now)
    return state


def _lost_in_words(lost: list[Delivery]) -> list[str]:
    """Return a sentence for each result; one for the thousand images that a destination refuses for the same reason."""
    words = [f"{d.object} to {d.destination}: {d.text}" for d in lost if d.kind == "results"]
    first: dict[str, Delivery] = {}
    count: dict[str, int] = {}
    for d in lost:
        if d.kind == "originals":
            first.setdefault(d.destination, d)
            count[d.destination] = count.get(d.destination, 0) + 1
    return words + [f"{plural(count[name], 'received image')} to {name}: {d.text}" for name, d in first.items()]


def supersede(connection: Connection, study_uid: str, generation: int, now: float, reason: str = "") -> None:
    """Drop what earlier generations than `generation` have not brought to its end. The study is locked."""
    older = (jobs.c.study_uid == study_uid) & (jobs.c.generation < generation) & jobs.c.state.in_(LIVE)
    reason = reason or f"generation {generation} settled"
    told = select(
        jobs.c.study_uid, jobs.c.generation, literal("superseded"), literal(reason), literal(now, Float)
    ).where(older)
    connection.execute(transitions.insert().from_select(["study_uid", "generation", "state", "reason", "at"], told))
    connection.execute(jobs.update().where(older).values(state="superseded", reason=reason, updated_at=now))
    waiting = (deliveries.c.study_uid == study_uid) & (deliveries.c.generation < generation)
    waiting &= deliveries.c.state == "pending"
    text = case((deliveries.c.text == BEING_SENT, DROPPED_WHILE_SENT), else_=reason)
    connection.execute(deliveries.update().where(waiting).values(state="superseded", text=text, updated_at=now))


def _set_state(
    connection: Connection, study_uid: str, generation: int, state: JobState, reason: str | None, now: float
) -> JobState:
    mine = _job_key(study_uid, generation)
    before: JobState | None = connection.execute(select(jobs.c.state).where(mine)).scalar()
    final = ("superseded",) if state == "queued" else ("superseded", "cancelled")
    changed = connection.execute(
        jobs.update().where(mine & jobs.c.state.not_in(final)).values(state=state, reason=reason, updated_at=now)
    )
    if changed.rowcount == 1:
        note(connection, study_uid, generation, before, state, reason, now)
        newest = (studies.c.study_uid == study_uid) & (studies.c.generation == generation)
        connection.execute(studies.update().where(newest & (studies.c.state != "receiving")).values(state=state))
        return state
    if before is None:
        raise SpoolError(f"there is no job for study {study_uid} generation {generation}")
    return before


def _arrived(
    connection: Connection, study_uid: str, generation: int, destination: str, sop_instance_uid: str
) -> Delivery | None:
    earlier = (deliveries.c.study_uid == study_uid) & (deliveries.c.generation < generation)
    same = (deliveries.c.destination == destination) & (deliveries.c.sop_instance_uid == sop_instance_uid)
    arrived = deliveries.c.state.in_(ARRIVED)
    query = select(deliveries).where(earlier & same & arrived).order_by(deliveries.c.generation.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Delivery(**row._mapping)


def arrived_before(connection: Connection, study_uid: str, generation: int, destination: str) -> dict[str, Delivery]:
    """By SOP Instance UID, what earlier generations have brought to a destination; the newest delivery counts."""
    earlier = (deliveries.c.study_uid == study_uid) & (deliveries.c.generation < generation)
    arrived = (deliveries.c.destination == destination) & deliveries.c.state.in_(ARRIVED)
    rows = connection.execute(select(deliveries).where(earlier & arrived).order_by(deliveries.c.generation))
    return {row.sop_instance_uid: Delivery(**row._mapping) for row in rows}


def _job_key(study_uid: str, generation: int) -> ColumnElement[bool]:
    return (jobs.c.study_uid == study_uid) & (jobs.c.generation == generation)


def _job_deliveries(study_uid: str, generation: int) -> ColumnElement[bool]:
    return (deliveries.c.study_uid == study_uid) & (deliveries.c.generation == generation)
