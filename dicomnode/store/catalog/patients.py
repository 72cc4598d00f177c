"""Whose a study is, kept for longer than its images: prior scans of a patient are found by it.

Two studies are one patient's only where Patient ID and issuer are both the same, or both lack the issuer. An ID with
its issuer and the same ID without one may be two people (IDs are counted up from 1 in every hospital): they stay apart,
because a change against somebody else's scan is worse than none.
"""

import time
from typing import Any

from pydicom.uid import KeyObjectSelectionDocumentStorage
from sqlalchemy import Connection, select

from dicomnode.registry_format.identity import one_patient
from dicomnode.store.catalog.audit import PatientHeader, tell_removed
from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import instances, patients, studies


def patient_hashes(connection: Connection, study_uid: str) -> list[str]:
    """Return the different patients that a study's instances name; notes (`Instance.is_note`) are left out."""
    mine = (instances.c.study_uid == study_uid) & (instances.c.sop_class_uid != KeyObjectSelectionDocumentStorage)
    return list(connection.execute(select(instances.c.patient_hash).where(mine).distinct()).scalars())


def note_patient(connection: Connection, insert: Any, study_uid: str) -> None:
    """Keep whose the study is, as its instances say now. `insert` is the dialect's."""
    row = insert(patients).values(study_uid=study_uid, patient_hash=one_patient(patient_hashes(connection, study_uid)))
    changed = row.on_conflict_do_update(index_elements=["study_uid"], set_={"patient_hash": row.excluded.patient_hash})
    connection.execute(changed)


class Patients(Database):
    """The patients' part of the catalogue."""

    def other_studies(self, study_uid: str) -> list[str]:
        """Return the UIDs of the same patient's other settled studies, also of those whose images have been removed."""
        of_patient = select(patients.c.patient_hash).where(patients.c.study_uid == study_uid).scalar_subquery()
        others = (patients.c.patient_hash == of_patient) & (patients.c.study_uid != study_uid)
        with self._read() as connection:
            query = select(patients.c.study_uid).where(others).order_by(patients.c.study_uid)
            return list(connection.execute(query).scalars())

    def long_removed(self, before: float) -> list[str]:
        """Return the UIDs of studies without images since `before` whose findings are still kept."""
        gone = (studies.c.instances == 0) & (studies.c.last_seen <= before)
        with self._read() as connection:
            query = select(studies.c.study_uid).join(patients, patients.c.study_uid == studies.c.study_uid).where(gone)
            return list(connection.execute(query).scalars())

    def forget_patient(self, study_uid: str) -> None:
        """No later scan is compared with this study any more."""
        with self._write() as connection:
            connection.execute(patients.delete().where(patients.c.study_uid == study_uid))
            why = "findings removed after storage.findings_days"
            tell_removed(connection, study_uid, PatientHeader(), why, time.time())
