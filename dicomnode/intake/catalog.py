"""The catalogue of what came, what was made of it and where it went: SQLAlchemy Core on SQLite or PostgreSQL.

The receiver's one call on its hot path is `record`: one short transaction. Times are UTC seconds, given by the caller.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Row, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.errors import SpoolError
from dicomnode.intake.records import (
    PATIENT_ID_DIGITS,
    Bringer,
    Closed,
    Delivery,
    DeliveryState,
    Instance,
    Job,
    JobState,
    SeriesIntake,
    Settled,
    Study,
    StudyIntake,
    StudyState,
)
from dicomnode.intake.tables import associations, database_error, deliveries, instances, jobs, open_database, studies

Recorded = Literal["new", "same", "conflict"]


class Catalog:
    """One open catalogue; safe to share between threads. Every method raises SpoolError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reading=True)
        # SQLite has one writer, and its waiting is a polling: threads of one process queue here instead.
        is_sqlite = engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager[object] = threading.Lock() if is_sqlite else nullcontext()
        insert: Any = sqlite.insert if is_sqlite else postgresql.insert
        # Only when asked does SQLAlchemy keep the row count of an INSERT.
        self._insert_instance = insert(instances).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        study = insert(studies).values(
            study_uid=bindparam("study"),
            generation=0,
            state="receiving",
            first_seen=bindparam("now"),
            last_seen=bindparam("now"),
            instances=1,
        )
        self._touch_study = study.on_conflict_do_update(
            index_elements=["study_uid"],
            set_={"state": "receiving", "last_seen": bindparam("now"), "instances": studies.c.instances + 1},
        )
        self._insert_delivery = insert(deliveries).on_conflict_do_nothing()

    @classmethod
    def open(cls, url: str) -> "Catalog":
        """`sqlite:////path.db` or `postgresql+psycopg://…`; missing tables are made."""
        return cls(open_database(url))

    def close(self) -> None:
        self._engine.dispose()

    # Associations

    def begin_association(self, receiver_run: str, calling_ae: str, called_ae: str, address: str, now: float) -> int:
        """A new open association; `receiver_run` names the receiving process (`processes.current()`)."""
        row = associations.insert().values(
            receiver_run=receiver_run, calling_ae=calling_ae, called_ae=called_ae, address=address, opened_at=now
        )
        with self._write() as connection:
            key = connection.execute(row).inserted_primary_key
        assert key is not None
        return int(key[0])

    def end_association(self, association_id: int, how: Closed, now: float) -> None:
        chosen = (associations.c.id == association_id) & associations.c.closed.is_(None)
        with self._write() as connection:
            connection.execute(associations.update().where(chosen).values(closed=how, closed_at=now))

    def lose_associations(self, is_alive: Callable[[str], bool], now: float) -> int:
        """Closes as «lost» the open associations of receivers that have died; returns how many."""
        still_open = associations.c.closed.is_(None)
        with self._write() as connection:
            runs = connection.execute(select(associations.c.receiver_run).where(still_open).distinct()).scalars()
            dead = [run for run in runs if not is_alive(run)]
            if not dead:
                return 0
            chosen = still_open & associations.c.receiver_run.in_(dead)
            return connection.execute(associations.update().where(chosen).values(closed="lost", closed_at=now)).rowcount

    # Instances and studies

    def record(self, instance: Instance) -> Recorded:
        """Notes an instance whose file is safe.

        `new`: its study is receiving (again). `same`: this SOP Instance UID with these bytes was here; it now counts as
        brought by this association (a resend heals an aborted one), and no new generation begins. `conflict`: the SOP
        Instance UID is taken by other bytes; nothing is changed, and the caller quarantines what it has.
        """
        with self._write() as connection:
            if connection.execute(self._insert_instance, vars(instance)).rowcount == 1:
                connection.execute(self._touch_study, {"study": instance.study_uid, "now": instance.received_at})
                return "new"
            chosen = instances.c.sop_instance_uid == instance.sop_instance_uid
            # Equal bytes have equal study and series UIDs.
            if connection.execute(select(instances.c.sha256).where(chosen)).scalar_one() != instance.sha256:
                return "conflict"
            connection.execute(
                instances.update()
                .where(chosen)
                .values(association_id=instance.association_id, received_at=instance.received_at)
            )
            connection.execute(
                studies.update().where(studies.c.study_uid == instance.study_uid).values(last_seen=instance.received_at)
            )
            return "same"

    def unsettled(self, now: float) -> list[StudyIntake]:
        """What `settle.decide` needs, for every study that is receiving, the longest silent first.

        Times later than `now` (the clock was set back) are first pulled back to `now`, in the database.
        """
        receiving = studies.c.state == "receiving"
        with self._read() as connection:
            found = connection.execute(select(studies).where(receiving).order_by(studies.c.last_seen)).all()
        if any(row.last_seen > now for row in found):
            self._pull_back(now)
        with self._read() as connection:
            return [_study_intake(connection, row.study_uid, min(row.last_seen, now)) for row in found]

    def _pull_back(self, now: float) -> None:
        with self._write() as connection:
            for column in (studies.c.last_seen, associations.c.closed_at):
                connection.execute(column.table.update().where(column > now).values({column.name: now}))

    def settle(self, study_uid: str, now: float, held: str | None) -> Settled:
        """Makes a receiving study a job of the next generation: `queued`, or `held` with the reason `held`.

        Jobs of earlier generations that have not begun (queued, held) become `superseded`.

        Raises:
            SpoolError: the study is not receiving (another process settled it).
        """
        mine = studies.c.study_uid == study_uid
        state: JobState = "queued" if held is None else "held"
        with self._write() as connection:
            changed = connection.execute(
                studies.update()
                .where(mine & (studies.c.state == "receiving"))
                .values(state=state, generation=studies.c.generation + 1)
            )
            if changed.rowcount != 1:
                raise SpoolError(f"study {study_uid} is not receiving: it was settled already or is unknown")
            generation = connection.execute(select(studies.c.generation).where(mine)).scalar_one()
            waiting = (jobs.c.study_uid == study_uid) & jobs.c.state.in_(("queued", "held"))
            connection.execute(
                jobs.update()
                .where(waiting)
                .values(state="superseded", reason=f"generation {generation} settled", updated_at=now)
            )
            connection.execute(
                jobs.insert().values(
                    study_uid=study_uid, generation=generation, state=state, reason=held, created_at=now, updated_at=now
                )
            )
        return Settled(study_uid, generation)

    def study(self, study_uid: str) -> Study | None:
        with self._read() as connection:
            row = connection.execute(select(studies).where(studies.c.study_uid == study_uid)).one_or_none()
        return None if row is None else Study(**row._mapping)

    def studies(self, limit: int, state: StudyState | None = None) -> list[Study]:
        """The newest studies first."""
        query = select(studies).order_by(studies.c.last_seen.desc()).limit(limit)
        if state is not None:
            query = query.where(studies.c.state == state)
        with self._read() as connection:
            return [Study(**row._mapping) for row in connection.execute(query)]

    def instances(self, study_uid: str) -> list[Instance]:
        query = select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.sop_instance_uid)
        with self._read() as connection:
            return [Instance(**row._mapping) for row in connection.execute(query)]

    def instance(self, sop_instance_uid: str) -> Instance | None:
        """One instance, wherever it belongs."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Instance(**row._mapping)

    def releasable(self, now: float, retention_s: float) -> list[Study]:
        """The studies whose received images are no longer needed here, the longest ended first.

        The newest job ended longer than `retention_s` ago, as `delivered` or `refused`. Never what is `failed`, `held`
        or `cancelled`: a person decides. Never a study that receives, nor one that was released.
        """
        newest = (jobs.c.study_uid == studies.c.study_uid) & (jobs.c.generation == studies.c.generation)
        ended = jobs.c.state.in_(("delivered", "refused")) & (jobs.c.updated_at <= now - retention_s)
        here = (studies.c.state == jobs.c.state) & (studies.c.instances > 0)
        query = select(studies).join(jobs, newest).where(here & ended).order_by(jobs.c.updated_at)
        with self._read() as connection:
            return [Study(**row._mapping) for row in connection.execute(query)]

    def release(self, study: Study, move_out: Callable[[], None]) -> bool:
        """Forgets the study's instances, so that one that comes again is new; its jobs and deliveries stay.

        `move_out` takes the files away, inside the transaction: no image can be recorded in between. Returns False, and
        changes nothing, if anything has happened to the study since `study` was read.
        """
        unchanged = (
            (studies.c.study_uid == study.study_uid)
            & (studies.c.state == study.state)
            & (studies.c.generation == study.generation)
            & (studies.c.last_seen == study.last_seen)
        )
        with self._write() as connection:
            if connection.execute(studies.update().where(unchanged).values(instances=0)).rowcount != 1:
                return False
            connection.execute(instances.delete().where(instances.c.study_uid == study.study_uid))
            move_out()
            return True

    def patient_ids(self, study_uid: str) -> int:
        """How many different patients the study's instances name: more than one, and the study must be held.

        Patients differ by their ID, or by two issuers of it; objects of other systems may lack the issuer, and that
        alone makes no second patient.
        """
        query = select(instances.c.patient_hash).where(instances.c.study_uid == study_uid).distinct()
        with self._read() as connection:
            hashes = list(connection.execute(query).scalars())
        ids = {one[:PATIENT_ID_DIGITS] for one in hashes}
        issuers = {one[PATIENT_ID_DIGITS:] for one in hashes} - {""}
        return max(len(ids), len(issuers))

    # Jobs

    def set_state(
        self, study_uid: str, generation: int, state: JobState, reason: str | None = None, *, now: float
    ) -> JobState:
        """Sets a job's state and returns the state it has now.

        `superseded` is final, and `cancelled` yields only to `queued`: the answer tells a worker that comes too late.

        Raises:
            SpoolError: there is no such job.
        """
        mine = (jobs.c.study_uid == study_uid) & (jobs.c.generation == generation)
        final = ("superseded",) if state == "queued" else ("superseded", "cancelled")
        with self._write() as connection:
            # `settle` takes the study before its jobs: the same order here, or PostgreSQL sees a deadlock.
            connection.execute(select(studies.c.generation).where(studies.c.study_uid == study_uid).with_for_update())
            changed = connection.execute(
                jobs.update()
                .where(mine & jobs.c.state.not_in(final))
                .values(state=state, reason=reason, updated_at=now)
            )
            if changed.rowcount == 1:
                newest = (studies.c.study_uid == study_uid) & (studies.c.generation == generation)
                connection.execute(
                    studies.update().where(newest & (studies.c.state != "receiving")).values(state=state)
                )
                return state
            found: JobState | None = connection.execute(select(jobs.c.state).where(mine)).scalar()
        if found is None:
            raise SpoolError(f"there is no job for study {study_uid} generation {generation}")
        return found

    def jobs(self, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        """The last changed first."""
        query = select(jobs).order_by(jobs.c.updated_at.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._read() as connection:
            return [Job(**row._mapping) for row in connection.execute(query)]

    def job(self, study_uid: str, generation: int) -> Job | None:
        query = select(jobs).where(jobs.c.study_uid == study_uid, jobs.c.generation == generation)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Job(**row._mapping)

    # Deliveries

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
    ) -> None:
        """A pending delivery. Planned twice (a workflow that ran again) it stays as it is."""
        row = Delivery(
            study_uid,
            generation,
            destination,
            object,
            sop_class_uid,
            sop_instance_uid,
            path,
            state="pending",
            status=None,
            text=None,
            attempts=0,
            updated_at=now,
        )
        with self._write() as connection:
            connection.execute(self._insert_delivery, vars(row))

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
        """Notes how a delivery stands: the peer's DIMSE status, if it gave one, and words.

        Raises:
            SpoolError: the delivery was not planned.
        """
        mine = _delivery_key(study_uid, generation) & (deliveries.c.destination == destination)
        with self._write() as connection:
            changed = connection.execute(
                deliveries.update()
                .where(mine & (deliveries.c.object == object))
                .values(state=state, status=status, text=text, attempts=attempts, updated_at=now)
            )
        if changed.rowcount != 1:
            raise SpoolError(f"no delivery of {object} to {destination} was planned for study {study_uid}")

    def deliveries(self, study_uid: str, generation: int) -> list[Delivery]:
        query = select(deliveries).where(_delivery_key(study_uid, generation))
        with self._read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.destination, deliveries.c.object))
            return [Delivery(**row._mapping) for row in rows]

    # Transactions

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._turn, self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database_error(error) from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._reader.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database_error(error) from error


def _delivery_key(study_uid: str, generation: int) -> ColumnElement[bool]:
    return (deliveries.c.study_uid == study_uid) & (deliveries.c.generation == generation)


def _study_intake(connection: Connection, study_uid: str, last_seen: float) -> StudyIntake:
    mine = instances.c.study_uid == study_uid
    brought = (
        select(associations.c.closed, associations.c.closed_at, func.max(instances.c.received_at).label("last_seen"))
        .join_from(instances, associations)
        .where(mine)
        .group_by(associations.c.id, associations.c.closed, associations.c.closed_at)
    )
    columns = (
        instances.c.series_uid, instances.c.modality, instances.c.sop_class_uid, instances.c.orientation,
        instances.c.slice_position,
    )  # fmt: skip
    by_series: dict[str, list[Row[*tuple[Any, ...]]]] = defaultdict(list)
    for row in connection.execute(select(*columns).where(mine)):
        by_series[row.series_uid].append(row)
    return StudyIntake(
        study_uid=study_uid,
        last_seen=last_seen,
        bringers=tuple(Bringer(**row._mapping) for row in connection.execute(brought)),
        series=tuple(_series_intake(uid, rows) for uid, rows in by_series.items()),
    )


def _series_intake(series_uid: str, rows: list[Row[*tuple[Any, ...]]]) -> SeriesIntake:
    return SeriesIntake(
        series_uid=series_uid,
        modality=rows[0].modality,
        sop_class_uids=frozenset(row.sop_class_uid for row in rows),
        instances=len(rows),
        orientations=frozenset(row.orientation for row in rows if row.orientation),
        positions=tuple(row.slice_position for row in rows if row.slice_position is not None),
    )
