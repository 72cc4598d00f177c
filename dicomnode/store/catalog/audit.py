"""The outbox of audit messages, and what of the catalogue becomes one, in the transaction that causes it.

Of a transfer nothing is written while it goes on: an arriving image's row names its association, and the transaction
that closes the association, also of a receiver that was killed, counts them. So no acknowledged image is missing, and
none costs anything. What would be counted no more then (an image that another association brings again, or that is
removed, while the first is still open) is moved to the tallies first. What is sent is tallied as it is delivered.
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread, read_dataset, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from dicomnode.audit import messages, trail
from dicomnode.audit.journal import Noted
from dicomnode.audit.messages import AuditMessage, AuditPatient, AuditPeer, AuditStudy
from dicomnode.audit.syslog import Outgoing
from dicomnode.network.matching import text
from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import associations, audit_outbox, audit_tallies, deliveries, instances

_TAGS = ["SpecificCharacterSet", "AccessionNumber", "PatientName", "PatientID"]
_LAST_TAG = 0x00200010
#: So much of a deflated data set is looked at, bytes.
_INFLATED = 1 << 18


def add(connection: Connection, message: AuditMessage, message_id: str | None = None) -> None:
    """Put a message into the outbox with the transaction of its cause."""
    row = {"event": message.event, "at": message.at, "xml": message.xml, "message_id": message_id}
    connection.execute(insert(audit_outbox).values(row))


@dataclass(frozen=True)
class PatientHeader:
    """Whose a file is, as an audit message names it."""

    patient: AuditPatient = field(default_factory=AuditPatient)
    accession_number: str = ""


class AuditRows(Database):
    """The audit trail's part of the catalogue."""

    def audit(self, message: AuditMessage) -> None:
        """Keep one message; it is on the disk when this returns."""
        with self._write() as connection:
            add(connection, message)

    def patient_header(self, study_uid: str) -> PatientHeader:
        """Return whose a study is, as its files say; nobody's where nothing is noted, or no file is left."""
        if trail.source() is None:
            return PatientHeader()
        query = select(instances.c.path).where(instances.c.study_uid == study_uid).limit(1)
        with self._read() as connection:
            path = connection.execute(query).scalar()
        return PatientHeader() if path is None else read_patient(Path(path))

    def audit_all(self, noted: Sequence[Noted]) -> None:
        """Take over what a journal holds; what was taken over before stays one."""
        rows = [
            {"message_id": n.message_id, "event": n.message.event, "at": n.message.at, "xml": n.message.xml}
            for n in noted
        ]
        with self._write() as connection:
            connection.execute(self._insert(audit_outbox).on_conflict_do_nothing(), rows)

    def audit_waiting(self, limit: int) -> list[Outgoing]:
        """Return messages that were not sent, the oldest first."""
        columns = (audit_outbox.c.id, audit_outbox.c.at, audit_outbox.c.xml)
        query = select(*columns).where(audit_outbox.c.sent_at.is_(None)).order_by(audit_outbox.c.id).limit(limit)
        with self._read() as connection:
            return [Outgoing(*row) for row in connection.execute(query)]

    def audit_sent(self, numbers: Sequence[int], now: float) -> None:
        """Note that messages were sent."""
        with self._write() as connection:
            connection.execute(audit_outbox.update().where(audit_outbox.c.id.in_(numbers)).values(sent_at=now))

    def audit_backlog(self) -> tuple[int, float | None]:
        """Return how many messages wait, and the time of the oldest."""
        waiting = audit_outbox.c.sent_at.is_(None)
        query = select(func.count(), func.min(audit_outbox.c.at)).select_from(audit_outbox).where(waiting)
        with self._read() as connection:
            count, oldest = connection.execute(query).one()
        return count, oldest

    def tidy_audit(self, sent_before: float, most: int) -> int:
        """Remove what was sent before this time, and what waits beyond the oldest `most`. Returns how many of these.

        The oldest stay: a flood of new events does not wash away what happened before it.
        """
        waiting = audit_outbox.c.sent_at.is_(None)
        beyond = select(audit_outbox.c.id).where(waiting).order_by(audit_outbox.c.id).offset(most).limit(1)
        with self._read() as connection:
            first = connection.execute(beyond).scalar()
        with self._write() as connection:
            connection.execute(audit_outbox.delete().where(audit_outbox.c.sent_at < sent_before))
            if first is None:
                return 0
            return connection.execute(audit_outbox.delete().where(waiting & (audit_outbox.c.id >= first))).rowcount

    def tell_sent(self, study_uid: str, generation: int, destination: str, peer: AuditPeer, now: float) -> None:
        """Tell what was delivered of a study to a destination since the last time; nothing where nothing was."""
        source = trail.source()
        if source is None:
            return
        channel = _outgoing(generation, destination)
        chosen = (audit_tallies.c.channel == channel) & (audit_tallies.c.study_uid == study_uid)
        with self._read() as connection:
            path = connection.execute(select(audit_tallies.c.path).where(chosen)).scalar()
        if path is None:
            return
        header = read_patient(Path(path))
        with self._write() as connection:
            rows = connection.execute(select(audit_tallies).where(chosen)).all()
            if not rows:
                return
            study = AuditStudy(study_uid, {r.sop_class_uid: r.instances for r in rows}, header.accession_number)
            began = min(r.first_at for r in rows)
            for build, at in ((messages.begin_transferring, began), (messages.transferred, now)):
                add(connection, build(source, at, peer, [study], header.patient, incoming=False))
            connection.execute(delete(audit_tallies).where(chosen))

    def sent_untold(self, before: float) -> list[tuple[str, int, str]]:
        """(study UID, generation, destination) of what was delivered before this time, and is not told."""
        outgoing = audit_tallies.c.channel.like("out %") & (audit_tallies.c.last_at < before)
        with self._read() as connection:
            rows = connection.execute(
                select(audit_tallies.c.study_uid, audit_tallies.c.channel).where(outgoing).distinct()
            )
            split = [(study_uid, channel.split(" ", 2)) for study_uid, channel in rows]
        return [(study_uid, int(parts[1]), parts[2]) for study_uid, parts in split]


def patients_brought(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, PatientHeader]:
    """Return whose the studies are of which `chosen` associations have brought images that are still here.

    Files are read: not within a transaction that writes.
    """
    of_study = (instances.c.study_uid, func.min(instances.c.path))
    query = select(*of_study).join_from(instances, associations).where(chosen).group_by(instances.c.study_uid)
    return {study_uid: read_patient(Path(path)) for study_uid, path in connection.execute(query)}


def tell_received(
    connection: Connection,
    chosen: ColumnElement[bool],
    patients: Mapping[str, PatientHeader],
    outcome: messages.Outcome,
    now: float,
) -> None:
    """Tell what the `chosen` associations have brought, in the transaction that closes them."""
    source = trail.source()
    if source is None:
        return
    # Locked, in one order: of two receivers that find the same one dead only the first tells, and none is in deadlock.
    ended = select(associations).where(chosen).order_by(associations.c.id).with_for_update()
    for association in connection.execute(ended).all():
        brought: dict[str, dict[str, int]] = defaultdict(dict)
        since: dict[str, float] = {}
        whose = dict(patients)
        channel = _incoming(association.id)
        mine = instances.c.association_id == association.id
        counted = select(
            instances.c.study_uid, instances.c.sop_class_uid, func.count(), func.min(instances.c.received_at)
        )
        rows = connection.execute(counted.where(mine).group_by(instances.c.study_uid, instances.c.sop_class_uid)).all()
        for study_uid, sop_class, count, first_at in rows:
            brought[study_uid][sop_class] = count
            since[study_uid] = min(first_at, since.get(study_uid, first_at))
        for row in connection.execute(select(audit_tallies).where(audit_tallies.c.channel == channel)):
            classes = brought[row.study_uid]
            classes[row.sop_class_uid] = classes.get(row.sop_class_uid, 0) + row.instances
            since[row.study_uid] = min(row.first_at, since.get(row.study_uid, row.first_at))
            whose.setdefault(row.study_uid, PatientHeader(AuditPatient(row.patient_id, row.patient_name)))
        connection.execute(delete(audit_tallies).where(audit_tallies.c.channel == channel))
        peer = AuditPeer(association.calling_ae, association.address)
        for study_uid, sop_classes in brought.items():
            header = whose.get(study_uid, PatientHeader())
            studies = [AuditStudy(study_uid, sop_classes, header.accession_number)]
            at = since[study_uid]
            add(connection, messages.begin_transferring(source, at, peer, studies, header.patient, incoming=True))
            told = messages.transferred(source, now, peer, studies, header.patient, incoming=True, outcome=outcome)
            add(connection, told)


def keep_count(connection: Connection, insert_: Any, chosen: ColumnElement[bool], header: PatientHeader | None) -> None:
    """Move to the tallies what open associations have brought of the `chosen` instances, before that changes.

    Args:
        connection: of the transaction that changes them.
        insert_: the dialect's INSERT.
        chosen: a condition on the instances.
        header: whose they are; None: read from the file now.
    """
    if trail.source() is None:
        return
    counted = select(
        instances.c.association_id,
        instances.c.study_uid,
        instances.c.sop_class_uid,
        func.count(),
        func.min(instances.c.received_at),
        func.max(instances.c.received_at),
        func.min(instances.c.path),
    )
    is_open = associations.c.closed.is_(None)
    grouped = counted.join_from(instances, associations).where(chosen & is_open)
    by = (instances.c.association_id, instances.c.study_uid, instances.c.sop_class_uid)
    for association_id, study_uid, sop_class, count, first_at, last_at, path in connection.execute(
        grouped.group_by(*by)
    ).all():
        whose = header or read_patient(Path(path))
        _tally(
            connection, insert_, _incoming(association_id), study_uid, sop_class, count, first_at, last_at, path, whose
        )


def tally_sent(connection: Connection, insert_: Any, chosen: ColumnElement[bool], now: float) -> None:
    """Count the object of the `chosen` delivery, which its destination has stored, in the transaction that says so."""
    if trail.source() is None:
        return
    for row in connection.execute(select(deliveries).where(chosen)).all():
        channel = _outgoing(row.generation, row.destination)
        one = (row.study_uid, row.sop_class_uid, 1, now, now, row.path, PatientHeader())
        _tally(connection, insert_, channel, *one)


def tell_removed(connection: Connection, study_uid: str, patient: PatientHeader, why: str, now: float) -> None:
    """Tell that a study's images, or what was left of it, are removed, in the transaction that forgets them."""
    source = trail.source()
    if source is None:
        return
    counted = select(instances.c.sop_class_uid, func.count()).where(instances.c.study_uid == study_uid)
    sop_classes = {row[0]: row[1] for row in connection.execute(counted.group_by(instances.c.sop_class_uid))}
    study = AuditStudy(study_uid, sop_classes, patient.accession_number)
    add(connection, messages.study_deleted(source, now, study, patient.patient, why))


def tell_accessed(connection: Connection, study_uid: str, patient: PatientHeader, now: float) -> None:
    """Tell that the node reads a study, in the transaction that says so."""
    source = trail.source()
    if source is None:
        return
    study = AuditStudy(study_uid, {}, patient.accession_number)
    add(connection, messages.accessed(source, now, study, patient.patient))


def _incoming(association_id: int) -> str:
    return f"in {association_id}"


def _outgoing(generation: int, destination: str) -> str:
    return f"out {generation} {destination}"


def _tally(
    connection: Connection,
    insert_: Any,
    channel: str,
    study_uid: str,
    sop_class_uid: str,
    count: int,
    first_at: float,
    last_at: float,
    path: str,
    whose: PatientHeader,
) -> None:
    row = insert_(audit_tallies).values(
        channel=channel,
        study_uid=study_uid,
        sop_class_uid=sop_class_uid,
        instances=count,
        first_at=first_at,
        last_at=last_at,
        path=path,
        patient_id=whose.patient.patient_id,
        patient_name=whose.patient.name,
    )
    counted = {"instances": audit_tallies.c.instances + count, "last_at": last_at, "path": path}
    connection.execute(
        row.on_conflict_do_update(index_elements=["channel", "study_uid", "sop_class_uid"], set_=counted)
    )


def read_patient(path: Path | None) -> PatientHeader:
    """Return whose a file is: nobody's where it has gone or cannot be read."""
    if path is None:
        return PatientHeader(AuditPatient())
    try:
        header = read_head(path, _TAGS)
        patient = AuditPatient(text(header, "PatientID"), text(header, "PatientName"))
        return PatientHeader(patient, text(header, "AccessionNumber"))
    except Exception:  # noqa: BLE001  (whatever a file holds, its association ends)
        return PatientHeader(AuditPatient())


def read_head(path: Path, tags: Sequence[str]) -> Dataset:
    """Return the elements named `tags` of a file; of a deflated one all of its first bytes.

    Raises:
        Exception: whatever a damaged file provokes.
    """
    syntax = read_file_meta_info(path).TransferSyntaxUID
    if syntax != DeflatedExplicitVRLittleEndian:
        return dcmread(path, specific_tags=list(tags), stop_before_pixels=True)
    # pydicom would inflate all of it.
    with path.open("rb") as file:
        content = file.read(_INFLATED)
    start = 144 + int.from_bytes(content[140:144], "little")  # behind the file meta group, PS3.10 7.1
    head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[start:], _INFLATED)
    return read_dataset(BytesIO(head), False, True, stop_when=lambda tag, _vr, _length: tag > _LAST_TAG)
