"""The catalogue's way of an image that has just arrived: on the receiver's hot path, so it is short.

On SQLite the row of a new image is committed without waiting for the disk (`synchronous=NORMAL`). The image itself is
on the disk by then, and all of its row can be read from it: a power cut takes the last rows at most, and `reconcile`
puts them back before anything settles. Every other commit waits for the disk, and brings the rows before it there too.
"""

import sqlite3
from typing import Any, Literal

from sqlalchemy import Engine, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert

from dicomnode.errors import DatabaseError
from dicomnode.store.catalog.audit import keep_count
from dicomnode.store.catalog.database import BUSY_S, Database, failure_text
from dicomnode.store.catalog.tables import conflicts, instances, studies
from dicomnode.store.patient_key import PatientKey
from dicomnode.store.records import Conflict, Instance

Recorded = Literal["new", "same", "conflict"]


class Recording(Database):
    """The arriving images' part of the catalogue."""

    def __init__(self, engine: Engine, patient_key: PatientKey) -> None:
        super().__init__(engine, patient_key)
        # Only when asked does SQLAlchemy keep the row count of an INSERT.
        self._insert_instance = (
            self._insert(instances).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        )
        came = self._insert(conflicts)
        # Of several versions, the one that came last is the one that its sender means.
        self._insert_conflict = came.on_conflict_do_update(
            index_elements=list(conflicts.primary_key.columns.keys()),
            set_={"received_at": came.excluded.received_at},
        )
        study = self._insert(studies).values(
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
        self._new_rows = _NewRows(engine, self._insert_instance, self._touch_study) if self._is_sqlite else None

    def record(self, instance: Instance) -> Recorded:
        """Note an instance whose file is safe.

        `new`: its study is receiving (again). `same`: this SOP Instance UID with these bytes was here; it now counts as
        brought by this association (a resend heals an aborted one), and no new generation begins. `conflict`: the SOP
        Instance UID is taken by other bytes; nothing is changed, and the caller says whether it is a conflict in
        truth (`note_conflict`) or the same image in another encoding.
        """
        if self._new_rows is not None:
            with self._turn:
                if self._new_rows.add(instance):
                    return "new"
        with self._write() as connection:
            if connection.execute(self._insert_instance, vars(instance)).rowcount == 1:
                connection.execute(self._touch_study, _touched(instance))
                return "new"
            chosen = instances.c.sop_instance_uid == instance.sop_instance_uid
            # Equal bytes have equal study and series UIDs.
            if connection.execute(select(instances.c.sha256).where(chosen)).scalar_one() != instance.sha256:
                return "conflict"
            keep_count(connection, self._insert, chosen & (instances.c.association_id != instance.association_id), None)
            connection.execute(
                instances.update()
                .where(chosen)
                .values(association_id=instance.association_id, received_at=instance.received_at)
            )
            connection.execute(
                studies.update().where(studies.c.study_uid == instance.study_uid).values(last_seen=instance.received_at)
            )
            return "same"

    def note_conflict(self, instance: Instance) -> None:
        """Flag a conflict where a person looks: at the study that holds the first one, and at the one named now.

        None where a person has accepted this very version meanwhile.
        """
        mine = instances.c.sop_instance_uid == instance.sop_instance_uid
        with self._write() as connection:
            first = connection.execute(select(instances.c.study_uid, instances.c.sha256).where(mine)).all()
            if any(row.sha256 == instance.sha256 for row in first):
                return
            for study_uid in {*(row.study_uid for row in first), instance.study_uid}:
                row = Conflict(study_uid, instance.sop_instance_uid, instance.sha256, instance.received_at)
                connection.execute(self._insert_conflict, vars(row))

    def conflicts(self, study_uid: str) -> list[Conflict]:
        """Return the conflicts, the oldest first."""
        query = select(conflicts).where(conflicts.c.study_uid == study_uid).order_by(conflicts.c.received_at)
        with self._read() as connection:
            return [Conflict(**row._mapping) for row in connection.execute(query)]

    def close(self) -> None:
        """Close every connection."""
        if self._new_rows is not None:
            self._new_rows.close()
        super().close()


class _NewRows:
    """A plain connection to a SQLite file whose commits do not wait for the disk.

    SQLAlchemy's part of one image's row would be 0.1 ms, the disk's 0.4 ms.
    """

    def __init__(self, engine: Engine, insert: Insert, touch: Insert) -> None:
        self._path = str(engine.url.database)
        self._insert, _ = _plain(insert)
        self._touch, self._constants = _plain(touch)
        self._opened: sqlite3.Connection | None = None

    def add(self, instance: Instance) -> bool:
        """Whether it is new, and now recorded; else nothing has changed. Not to be called by two threads at once."""
        try:
            connection = self._opened = self._opened or self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                is_new = connection.execute(self._insert, vars(instance)).rowcount == 1
                if is_new:
                    connection.execute(self._touch, self._constants | _touched(instance))
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        except sqlite3.Error as error:
            raise DatabaseError(failure_text(error)) from error
        return is_new

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _plain(statement: Insert) -> tuple[str, dict[str, Any]]:
    """Return the statement as the driver takes it, and the values that SQLAlchemy would add."""
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
    return str(compiled), compiled.params


def _touched(instance: Instance) -> dict[str, object]:
    return {"study": instance.study_uid, "now": instance.received_at}
