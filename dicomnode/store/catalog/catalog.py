"""The catalogue of what came, what was made of it and where it went: SQLAlchemy Core on SQLite or PostgreSQL.

Times are UTC seconds, given by the caller.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from dicomnode.audit import messages, trail
from dicomnode.errors import SpoolError
from dicomnode.registry_format.identity import count_patients
from dicomnode.store.catalog import audit
from dicomnode.store.catalog.alerts import AlertRows
from dicomnode.store.catalog.audit import PatientHeader
from dicomnode.store.catalog.bulk_studies import BulkRows
from dicomnode.store.catalog.commitments import Commitments
from dicomnode.store.catalog.console import ConsoleRows
from dicomnode.store.catalog.corrections import Corrections
from dicomnode.store.catalog.events import note
from dicomnode.store.catalog.figures import Figures
from dicomnode.store.catalog.job_choice import JobChoice
from dicomnode.store.catalog.jobs import supersede
from dicomnode.store.catalog.labels import Labels
from dicomnode.store.catalog.orders import Orders
from dicomnode.store.catalog.overview import Overview
from dicomnode.store.catalog.patients import Patients, note_patient, patient_hashes
from dicomnode.store.catalog.priors import FETCHED, Priors
from dicomnode.store.catalog.procedure_steps import Steps
from dicomnode.store.catalog.reanalyses import Reanalyses
from dicomnode.store.catalog.recording import Recording
from dicomnode.store.catalog.registry import RegistryRows
from dicomnode.store.catalog.relocation import Relocation
from dicomnode.store.catalog.removal_notices import RemovalNotices
from dicomnode.store.catalog.result_rows import ResultRows
from dicomnode.store.catalog.routings import Routings
from dicomnode.store.catalog.tables import associations, bulk_studies, deliveries, instances, jobs, priors, studies
from dicomnode.store.catalog.web_holdings import WebHoldingsRows
from dicomnode.store.catalog.workers import Workers
from dicomnode.store.records import (
    Bringer,
    Closed,
    Instance,
    JobState,
    SeriesIntake,
    Settled,
    Study,
    StudyIntake,
    StudyState,
)

#: Why images are removed, for the audit trail.
AFTER_DELIVERY = "images removed after delivery to free space"


class Catalog(
    AlertRows,
    BulkRows,
    Recording,
    Commitments,
    ConsoleRows,
    Corrections,
    Figures,
    JobChoice,
    Labels,
    Orders,
    Overview,
    Patients,
    Priors,
    RegistryRows,
    RemovalNotices,
    Reanalyses,
    Relocation,
    ResultRows,
    Routings,
    Steps,
    WebHoldingsRows,
    Workers,
):
    """One open catalogue; safe to share between threads. Every method raises SpoolError when the database fails."""

    # Associations

    def begin_association(self, receiver_run: str, calling_ae: str, called_ae: str, address: str, now: float) -> int:
        """Note a new open association; `receiver_run` names the receiving process (`process_names.current()`)."""
        row = associations.insert().values(
            receiver_run=receiver_run, calling_ae=calling_ae, called_ae=called_ae, address=address, opened_at=now
        )
        with self._write() as connection:
            key = connection.execute(row).inserted_primary_key
        assert key is not None
        return int(key[0])

    def end_association(self, association_id: int, how: Closed, now: float) -> None:
        """Note how an association ended; a second call changes nothing."""
        self._end((associations.c.id == association_id) & associations.c.closed.is_(None), how, now)

    def dead_receivers(self, is_alive: Callable[[str], bool]) -> list[str]:
        """Receiving processes that have died and left associations open; `is_alive` is asked with their names."""
        runs = select(associations.c.receiver_run).where(associations.c.closed.is_(None)).distinct()
        with self._read() as connection:
            return [run for run in connection.execute(runs).scalars() if not is_alive(run)]

    def lose_associations(self, receiver_runs: Sequence[str], now: float) -> int:
        """Close as «lost» the open associations of these receiving processes; return how many."""
        return self._end(associations.c.closed.is_(None) & associations.c.receiver_run.in_(receiver_runs), "lost", now)

    def _end(self, chosen: ColumnElement[bool], how: Closed, now: float) -> int:
        patients: dict[str, PatientHeader] = {}
        if trail.source() is not None:
            with self._read() as connection:
                patients = audit.patients_brought(connection, chosen)
        with self._write() as connection:
            outcome = messages.SUCCESS if how == "released" else messages.MINOR
            audit.tell_received(connection, chosen, patients, outcome, now)
            return connection.execute(associations.update().where(chosen).values(closed=how, closed_at=now)).rowcount

    # Instances and studies

    def unsettled(self, now: float) -> list[StudyIntake]:
        """Return what `settle.decide` needs, for every study that is receiving, the longest silent first.

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
        """Make a receiving study a job of the next generation: `queued`, or `held` with the reason `held`.

        What earlier generations have not brought to its end becomes `superseded`: their live jobs, and the deliveries
        that wait; what a destination has stored stays told as it is.

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
                raise SpoolError(f"study {study_uid} is not receiving: already settled, or unknown")
            generation = connection.execute(select(studies.c.generation).where(mine)).scalar_one()
            supersede(connection, study_uid, generation, now)
            note_patient(connection, self._insert, study_uid)
            connection.execute(
                jobs.insert().values(
                    study_uid=study_uid, generation=generation, state=state, reason=held, created_at=now, updated_at=now
                )
            )
            note(connection, study_uid, generation, None, state, held, now)
        return Settled(study_uid, generation)

    def study(self, study_uid: str) -> Study | None:
        """Return the study; None where nothing of it has come."""
        with self._read() as connection:
            row = connection.execute(select(studies).where(studies.c.study_uid == study_uid)).one_or_none()
        return None if row is None else Study(**row._mapping)

    def studies(self, limit: int, state: StudyState | None = None) -> list[Study]:
        """Return studies, the newest first."""
        query = select(studies).order_by(studies.c.last_seen.desc()).limit(limit)
        if state is not None:
            query = query.where(studies.c.state == state)
        with self._read() as connection:
            return [Study(**row._mapping) for row in connection.execute(query)]

    def instances(self, study_uid: str) -> list[Instance]:
        """Return the study's instances by SOP Instance UID."""
        query = select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.sop_instance_uid)
        with self._read() as connection:
            return [Instance(**row._mapping) for row in connection.execute(query)]

    def instances_after(self, sop_instance_uid: str, limit: int) -> list[Instance]:
        """Return a page of all instances by SOP Instance UID, from the one after `sop_instance_uid` ("": the first)."""
        query = select(instances).where(instances.c.sop_instance_uid > sop_instance_uid)
        with self._read() as connection:
            rows = connection.execute(query.order_by(instances.c.sop_instance_uid).limit(limit))
            return [Instance(**row._mapping) for row in rows]

    def releasable(self, now: float, retention_s: float) -> list[Study]:
        """Return the studies whose received images are no longer needed here, the longest ended first.

        The newest job ended longer than `retention_s` ago, as `committed`, as `delivered` where no destination is asked
        for storage commitment, as `analysed` where its results stay here (a prior scan, a study of a cohort), as
        `ignored`, or as `refused` with its reports (if any) stored: these wait for nobody, and the sender has its
        images. Never what is `failed`, `held` or `cancelled`: a person decides. Never a study that receives or has
        anything on its way, nor one that was released.
        """
        newest = (jobs.c.study_uid == studies.c.study_uid) & (jobs.c.generation == studies.c.generation)
        theirs = (deliveries.c.study_uid == jobs.c.study_uid) & (deliveries.c.generation == jobs.c.generation)
        # What is superseded of the newest generation is a rejection note that nobody wants any more.
        arrived = deliveries.c.state.in_(("committed", "superseded")) | (
            (deliveries.c.state == "delivered") & deliveries.c.commitment.is_(False)
        )
        ended = jobs.c.state.in_(("committed", "delivered", "refused", "ignored")) & (
            jobs.c.updated_at <= now - retention_s
        )
        fetched = select(priors.c.study_uid).where(
            (priors.c.study_uid == jobs.c.study_uid) & priors.c.state.in_(FETCHED)
        )
        kept = select(bulk_studies.c.study_uid).where(
            (bulk_studies.c.study_uid == jobs.c.study_uid) & bulk_studies.c.keep
        )
        stays = fetched.exists() | kept.exists()
        ended |= (jobs.c.state == "analysed") & stays & (jobs.c.updated_at <= now - retention_s)
        waiting = select(deliveries.c.study_uid).where(theirs & ~arrived).exists()
        here = (studies.c.state == jobs.c.state) & (studies.c.instances > 0)
        query = select(studies).join(jobs, newest).where(here & ended & ~waiting)
        with self._read() as connection:
            return [Study(**row._mapping) for row in connection.execute(query.order_by(jobs.c.updated_at))]

    def release(self, study: Study, move_out: Callable[[], None], why: str = AFTER_DELIVERY) -> bool:
        """Forgets the study's instances, so that one that comes again is new; its jobs and deliveries stay.

        `move_out` takes the files away, inside the transaction: no image can be recorded in between. Returns False, and
        changes nothing, if anything has happened to the study since `study` was read. `why` is for the audit trail.
        """
        unchanged = (
            (studies.c.study_uid == study.study_uid)
            & (studies.c.state == study.state)
            & (studies.c.generation == study.generation)
            & (studies.c.last_seen == study.last_seen)
        )
        patient = self.patient_header(study.study_uid)
        with self._write() as connection:
            if connection.execute(studies.update().where(unchanged).values(instances=0)).rowcount != 1:
                return False
            audit.keep_count(connection, self._insert, instances.c.study_uid == study.study_uid, patient)
            audit.tell_removed(connection, study.study_uid, patient, why, time.time())
            connection.execute(instances.delete().where(instances.c.study_uid == study.study_uid))
            move_out()
            return True

    def named_patients(self, study_uid: str) -> list[str]:
        """Return the patient hashes of the study's instances, each once; objects that only refer to others aside."""
        with self._read() as connection:
            return sorted(patient_hashes(connection, study_uid))

    def patient_ids(self, study_uid: str) -> int:
        """How many different patients the study's instances name: more than one, and the study must be held."""
        with self._read() as connection:
            return count_patients(patient_hashes(connection, study_uid))


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
