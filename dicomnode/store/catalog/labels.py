"""Whose a study is, who sent it, and under which accession number: what a person looks for, kept beside the catalogue.

An image's row names no patient, and none of this is written on its way: the clock reads the header of one image of each
study once it has come (`service.labelling`). What names a patient is sealed under the patients' key (AES-GCM, NIST
SP 800-38D): whoever has the database alone can neither read nor try it.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Select, func, select, text

from dicomnode.registry_format.identity import PATIENT_ID_DIGITS, patient_hash
from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import associations, instances, studies, study_labels
from dicomnode.store.patient_key import PatientKey

_NONCE_BYTES = 12
_DATE = re.compile(r"[0-9]{8}")


@dataclass(frozen=True)
class Label:
    """What the images of a study say of it; "" where they say nothing.

    `patient_name` is None in a label of a version that did not read it, nor what follows.
    """

    patient_id: str = ""
    issuer: str = ""
    accession_number: str = ""
    study_date: str = ""
    description: str = ""
    patient_name: str | None = None
    birth_date: str = ""
    sex: str = ""
    study_time: str = ""
    study_id: str = ""
    referring_physician: str = ""


@dataclass(frozen=True)
class NotedLabel:
    """A label and the number under which it was noted: a changed one has a new number."""

    study_uid: str
    noted: int
    label: Label = field(repr=False)


@dataclass(frozen=True)
class Unlabelled:
    """A study whose label is still to be made. `path`: of an image; None where none is left."""

    study_uid: str
    generation: int
    last_seen: float
    path: str | None


class Labels(Database):
    """The labels' part of the catalogue."""

    def unlabelled(self, after: float, before: float, limit: int) -> list[Unlabelled]:
        """Return studies without a label of their newest generation, the newest first.

        Args:
            after: only those whose last image came after this time, UTC seconds.
            before: and before this.
            limit: not more than so many.
        """
        sample = select(func.min(instances.c.path)).where(instances.c.study_uid == studies.c.study_uid)
        stale = study_labels.c.study_uid.is_(None) | (study_labels.c.generation != studies.c.generation)
        query = (
            select(studies.c.study_uid, studies.c.generation, studies.c.last_seen, sample.scalar_subquery())
            .join(study_labels, study_labels.c.study_uid == studies.c.study_uid, isouter=True)
            .where(stale & (studies.c.last_seen > after) & (studies.c.last_seen < before))
            .order_by(studies.c.last_seen.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [Unlabelled(*row) for row in connection.execute(query)]

    def note_label(self, study: Unlabelled, label: Label) -> None:
        """Keep a study's label, with the calling and the called AE title of the association that came last."""
        brought = (
            select(associations.c.calling_ae, associations.c.called_ae)
            .join_from(instances, associations)
            .where(instances.c.study_uid == study.study_uid)
            .order_by(associations.c.id.desc())
            .limit(1)
        )
        with self._write() as connection:
            if not self._is_sqlite:
                # One after another: a number that a reader has seen is never followed by a lower one.
                connection.execute(text("LOCK TABLE study_labels IN SHARE ROW EXCLUSIVE MODE"))
            sender, called = connection.execute(brought).one_or_none() or ("", "")
            values = {
                "generation": study.generation,
                "seen_at": study.last_seen,
                "sender": sender,
                "called": called,
                "accession_key": accession_key(self.patient_key, label.accession_number),
                "sealed": _seal(self.patient_key, study.study_uid, label),
                "study_date": label.study_date if _DATE.fullmatch(label.study_date) else "",
                "noted": connection.execute(select(func.coalesce(func.max(study_labels.c.noted), 0) + 1)).scalar_one(),
            }
            row = self._insert(study_labels).values(study_uid=study.study_uid, **values)
            if not label.patient_id and study.path is None:
                # Nothing is left to be read: what was known of it stays known.
                values = {"generation": study.generation, "seen_at": study.last_seen}
            connection.execute(row.on_conflict_do_update(index_elements=["study_uid"], set_=values))

    def labels_after(self, noted: int, limit: int) -> list[NotedLabel]:
        """Return labels that were noted after this one (0: all), in their order, not more than `limit`."""
        with self._read() as connection:
            rows = connection.execute(_after(noted, limit)).all()
        key = self.patient_key
        return [NotedLabel(row.study_uid, row.noted, unseal(key, row.study_uid, row.sealed)) for row in rows]

    def newest_image(self) -> float:
        """Return when the last image of all came, UTC seconds; 0 where there is none."""
        with self._read() as connection:
            return float(connection.execute(select(func.max(studies.c.last_seen))).scalar() or 0.0)

    def without_label(self, after: float) -> list[str]:
        """Return the UIDs of studies without any label whose last image came after this time, UTC seconds."""
        label = select(study_labels.c.study_uid).where(study_labels.c.study_uid == studies.c.study_uid)
        query = select(studies.c.study_uid).where((studies.c.last_seen > after) & ~label.exists())
        with self._read() as connection:
            return list(connection.execute(query).scalars())


def _after(noted: int, limit: int) -> Select[tuple[str, int, bytes]]:
    """Select labels in the order in which they were noted."""
    columns = (study_labels.c.study_uid, study_labels.c.noted, study_labels.c.sealed)
    return select(*columns).where(study_labels.c.noted > noted).order_by(study_labels.c.noted).limit(limit)


def accession_key(key: PatientKey, accession_number: str) -> str:
    """Return by which an accession number is found; "" for none."""
    number = accession_number.strip(" \0")
    return key.digest("accession", number) if number else ""


def patient_prefixes(key: PatientKey, patient_id: str) -> tuple[str, ...]:
    """Return by which the studies of a Patient ID are found, whoever issued it: one form for each way to encode it."""
    text = patient_id.strip(" \0")
    forms = {text.encode("utf-8"), text.encode("latin-1", "replace")}
    return tuple(sorted(key.keyed(patient_hash(form, b""))[:PATIENT_ID_DIGITS] for form in forms))


def _seal(key: PatientKey, study_uid: str, label: Label) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, json.dumps(asdict(label)).encode(), study_uid.encode())


def unseal(key: PatientKey, study_uid: str, sealed: bytes | None) -> Label:
    """Return a study's label; an empty one where there is none, or the key is not the one it was sealed with."""
    if not sealed:
        return Label()
    try:
        content = _cipher(key).decrypt(bytes(sealed[:_NONCE_BYTES]), bytes(sealed[_NONCE_BYTES:]), study_uid.encode())
    except InvalidTag:
        return Label()
    return Label(**json.loads(content.decode()))


@lru_cache(maxsize=5_000)
def unsealed(key: PatientKey, study_uid: str, sealed: bytes | None) -> Label:
    """Return a study's label as `unseal` does; those of the pages that people look at are looked at again."""
    return unseal(key, study_uid, sealed)


@lru_cache(maxsize=4)
def _cipher(key: PatientKey) -> AESGCM:
    return AESGCM(bytes.fromhex(key.digest("labels", "")))
