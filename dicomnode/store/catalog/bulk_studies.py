"""Studies that a person brings in bulk: imported from a folder, or fetched from the PACS by a list.

They are analysed when nothing else waits, and do not settle before the command has brought all that it has of them,
also where it was killed in between and is run again. Times are UTC seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from dicomnode.registry_format.identity import NO_PATIENT_ID, patient_hash
from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import bulk_studies, studies
from dicomnode.store.identity import same_patient
from dicomnode.store.patient_key import PatientKey

#: A command that was killed and is not run again holds up a study no longer than this.
_ABANDONED_S = 86_400.0
BulkSource = Literal["import", "retrieve"]


@dataclass(frozen=True)
class BulkStudy:
    """One of them.

    Attributes:
        keep: its results go to no destination.
        patient: as in the table.
        ended_at: when all of it had come; None: more is on its way.
    """

    study_uid: str
    how: BulkSource
    keep: bool
    patient: str
    begun_at: float
    ended_at: float | None

    def is_coming(self, now: float) -> bool:
        """Whether more of it is on its way, so that it must not settle."""
        return self.ended_at is None and now - self.begun_at < _ABANDONED_S

    def is_of(self, patient_hashes: Iterable[str]) -> bool:
        """Whether images with these patient hashes are of the patient who was asked for.

        Objects without a Patient ID name nobody: beside images that name somebody, they say nothing.
        """
        wanted = [one for one in self.patient.split("\\") if one]
        hashes = list(patient_hashes)
        named = [one for one in hashes if not one.startswith(NO_PATIENT_ID)] or hashes
        return not wanted or all(any(same_patient(one, other) for other in wanted) for one in named)


def patient_of(key: PatientKey, patient_id: str, issuer: str) -> str:
    """Return the table's `patient` of an ID and its issuer ("": any), in each way in which images may encode them."""
    ways = ("utf-8", "latin-1")
    hashes = (patient_hash(patient_id.encode(way, "replace"), issuer.encode(way, "replace")) for way in ways)
    return "\\".join(dict.fromkeys(map(key.keyed, hashes))) if patient_id else ""


class BulkRows(Database):
    """Their part of the catalogue."""

    def begin_bulk(self, study_uid: str, how: BulkSource, *, keep: bool, patient: str, now: float) -> bool:
        """Note that a study is about to be brought. False, and nothing is noted: it came here by itself before.

        Such a study is everybody's: its results go where those of others go.
        """
        values = {"how": how, "keep": keep, "patient": patient, "begun_at": now, "ended_at": None}
        row = self._insert(bulk_studies).values(study_uid=study_uid, **values)
        noted = select(bulk_studies.c.study_uid).where(bulk_studies.c.study_uid == study_uid)
        here = select(studies.c.study_uid).where(studies.c.study_uid == study_uid)
        with self._write() as connection:
            if connection.execute(noted).first() is None and connection.execute(here).first() is not None:
                return False
            connection.execute(row.on_conflict_do_update(index_elements=["study_uid"], set_=values))
            return True

    def end_bulk(self, study_uid: str, now: float) -> None:
        """Note that all of it has come: from now on it may settle."""
        mine = bulk_studies.c.study_uid == study_uid
        with self._write() as connection:
            connection.execute(bulk_studies.update().where(mine).values(ended_at=now))

    def forget_bulk(self, study_uid: str) -> None:
        """Forget one of which nothing came: whoever sends it, sends it as any other."""
        with self._write() as connection:
            connection.execute(bulk_studies.delete().where(bulk_studies.c.study_uid == study_uid))

    def send_bulk(self, study_uid: str) -> bool:
        """Let the results of one go to the destinations after all. Returns whether they stayed here until now."""
        mine = (bulk_studies.c.study_uid == study_uid) & bulk_studies.c.keep
        with self._write() as connection:
            return connection.execute(bulk_studies.update().where(mine).values(keep=False)).rowcount == 1

    def bulk(self, study_uid: str) -> BulkStudy | None:
        """None for a study that came by itself."""
        with self._read() as connection:
            row = connection.execute(select(bulk_studies).where(bulk_studies.c.study_uid == study_uid)).one_or_none()
        return None if row is None else BulkStudy(**row._mapping)
