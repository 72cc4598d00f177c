"""Decisions about objects: one that replaces another, one that is thrown away, one that leaves its study.

Each is one transaction: the instance, the conflicts that it settles, whose the study is, the decision itself; the study
is receiving again, and what its last generation has not brought to its end is superseded at once, so that nothing
wrong is sent any more. Rows are locked as `record` locks them, instances before their study. Times are UTC seconds.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from dicomnode.audit import messages, trail
from dicomnode.audit.messages import AuditStudy
from dicomnode.store.catalog.audit import PatientHeader, add, keep_count
from dicomnode.store.catalog.jobs import Ledger, lock_study, supersede
from dicomnode.store.catalog.patients import note_patient
from dicomnode.store.catalog.tables import (
    acceptances,
    conflicts,
    corrections,
    deliveries,
    instances,
    jobs,
    patients,
    studies,
)
from dicomnode.store.records import (
    ARRIVED,
    ORIGINAL,
    Acceptance,
    Conflict,
    Correction,
    CorrectionAction,
    Instance,
    RejectionCode,
)

#: A caller that replaces object after object is told of in the audit trail once in so long, for each study.
_TOLD_AGAIN_S = 60.0
_SUPERSEDED = "corrected"
#: So many files are moved while a study is locked.
_MOVED_AT_ONCE = 20


class Corrections(Ledger):
    """The decisions' part of the catalogue."""

    def replace_instances(
        self,
        news: Sequence[Instance],
        action: CorrectionAction,
        who: str,
        *,
        now: float,
        touch: bool = False,
        more: Acceptance | None = None,
    ) -> list[Instance]:
        """Put new versions in the place of recorded ones. Returns what they replaced; what had gone is left out.

        Args:
            news: the new versions.
            action: by whom it was decided.
            who: decided.
            now: UTC seconds since 1970.
            touch: the study counts as just having received something, else it settles as soon as it may.
            more: what of the same correction is taken as it comes from now on.
        """
        replaced = []
        with self._write() as connection:
            if more is not None:
                self._accept_more(connection, more)
            for new in sorted(news, key=lambda one: one.sop_instance_uid):
                old = _take(connection, new.sop_instance_uid)
                if old is None:
                    continue
                if old.sha256 == new.sha256:  # it has found its place already
                    _settle_conflicts(connection, new)
                    continue
                mine = instances.c.sop_instance_uid == new.sop_instance_uid
                keep_count(connection, self._insert, mine, PatientHeader())
                connection.execute(instances.update().where(mine).values(vars(new)))
                _settle_conflicts(connection, new)
                replaced.append((old, new))
            for study_uid in sorted({uid for old, new in replaced for uid in (old.study_uid, new.study_uid)}):
                pairs = [(old, new) for old, new in replaced if study_uid in (old.study_uid, new.study_uid)]
                came = sum(new.study_uid == study_uid != old.study_uid for old, new in pairs)
                left = sum(old.study_uid == study_uid != new.study_uid for old, new in pairs)
                whose = _whose(connection, study_uid)
                rows = [_row(old, new.sha256, action, who, now, whose, "", study_uid) for old, new in pairs]
                self._open(connection, study_uid, came - left, now if touch else None, now)
                self._note(connection, rows, action)
        return [old for old, _ in replaced]

    def take_out(
        self,
        study_uid: str,
        uids: Iterable[str],
        action: CorrectionAction,
        who: str,
        code: RejectionCode,
        *,
        now: float,
    ) -> list[Instance]:
        """Take objects out of a study. Returns those that were in it."""
        wanted = set(uids)
        with self._write() as connection:
            mine = instances.c.study_uid == study_uid
            # Locked: another node that has read the same note takes out what this one has left, which is nothing.
            held = select(instances).where(mine).order_by(instances.c.sop_instance_uid).with_for_update()
            rows = connection.execute(held).all()
            gone = [Instance(**row._mapping) for row in rows if row.sop_instance_uid in wanted]
            if gone:
                for one in gone:
                    chosen = instances.c.sop_instance_uid == one.sop_instance_uid
                    keep_count(connection, self._insert, chosen, PatientHeader())
                    connection.execute(instances.delete().where(chosen))
                    of_it = (conflicts.c.sop_instance_uid == one.sop_instance_uid) & (
                        conflicts.c.study_uid == study_uid
                    )
                    connection.execute(conflicts.delete().where(of_it))
                whose = _whose(connection, study_uid)
                self._open(connection, study_uid, -len(gone), None, now)
                self._note(
                    connection, [_row(one, "", action, who, now, whose, code, study_uid) for one in gone], action
                )
        return gone

    def reject_absent(self, study_uid: str, uids: Iterable[str], who: str, code: RejectionCode, *, now: float) -> None:
        """Note, once, that objects were rejected which are here no more, where results of the study are out."""
        study = (deliveries.c.study_uid == study_uid) & deliveries.c.state.in_(ARRIVED)
        out = select(deliveries.c.object).where(study & deliveries.c.object.not_like(f"{ORIGINAL}%")).limit(1)
        noted = (corrections.c.study_uid == study_uid) & (corrections.c.who == who)
        with self._write() as connection:
            lock_study(connection, study_uid)
            before = connection.execute(select(corrections.c.id).where(noted).limit(1)).first()
            if before is not None or connection.execute(out).first() is None:
                return
            whose = _whose(connection, study_uid)
            rows = [Correction(study_uid, uid, "noted", who, now, "", "", whose, code) for uid in sorted(uids)]
            if rows:
                self._note(connection, rows, "noted")

    def reject_conflicts(self, found: Iterable[Conflict], who: str, *, now: float) -> None:
        """Forget versions that came again with other content: what stands stays."""
        with self._write() as connection:
            for one in found:
                same = (conflicts.c.sop_instance_uid == one.sop_instance_uid) & (conflicts.c.sha256 == one.sha256)
                if connection.execute(conflicts.delete().where(same)).rowcount:
                    rejected = Correction(
                        one.study_uid, one.sop_instance_uid, "rejected", who, now, one.sha256, "", "", "", followed=True
                    )
                    self._note(connection, [rejected], "rejected")

    def open_generation(self, study_uid: str, generation: int, reason: str, *, now: float) -> int | None:
        """Begin the next generation of a study as it stands: a person wants a new version of its results.

        Returns its number; None where a newer one has begun, or the study is receiving.
        """
        mine = (studies.c.study_uid == study_uid) & (studies.c.generation == generation)
        with self._write() as connection:
            values = {"state": "queued", "generation": generation + 1}
            if (
                connection.execute(
                    studies.update().where(mine & (studies.c.state != "receiving")).values(values)
                ).rowcount
                != 1
            ):
                return None
            supersede(connection, study_uid, generation + 1, now)
            connection.execute(
                jobs.insert().values(
                    study_uid=study_uid,
                    generation=generation + 1,
                    state="queued",
                    reason=reason,
                    created_at=now,
                    updated_at=now,
                )
            )
        return generation + 1

    def corrections(self, study_uid: str) -> list[Correction]:
        """Return the decisions about a study, the oldest first."""
        return self._corrections(corrections.c.study_uid == study_uid)

    def corrections_of(self, sop_instance_uid: str) -> list[Correction]:
        """Return the decisions about an object, the oldest first."""
        return self._corrections(corrections.c.sop_instance_uid == sop_instance_uid)

    def unfollowed(self) -> list[Correction]:
        """Return the decisions after which nobody has looked at the studies that were compared with this one."""
        return self._corrections(corrections.c.followed.is_(False))

    def followed(self, study_uid: str, until: float) -> None:
        """Note that they have been looked at, for decisions up to this time."""
        mine = (corrections.c.study_uid == study_uid) & (corrections.c.at <= until)
        with self._write() as connection:
            connection.execute(corrections.update().where(mine).values(followed=True))

    def studies_of(self, patient_hash: str) -> list[str]:
        """Return the UIDs of a patient's settled studies."""
        query = select(patients.c.study_uid).where(patients.c.patient_hash == patient_hash)
        with self._read() as connection:
            return list(connection.execute(query.order_by(patients.c.study_uid)).scalars())

    def whose(self, study_uid: str) -> str:
        """Return the hash of the patient whose a study is; "" where nobody knows."""
        with self._read() as connection:
            return _whose(connection, study_uid)

    def move_unused(self, gone: Sequence[Instance], move: Callable[[Instance], object]) -> None:
        """Let `move` take away the files of versions that a decision has put out of use.

        Not a file that has come again since, and is in use: with the study locked, nobody records it in between, and a
        receiver that has stored it, but not recorded it, sees afterwards that it has gone, and has it sent again.
        """
        for study_uid in sorted({one.study_uid for one in gone}):
            mine = [one for one in gone if one.study_uid == study_uid]
            for begin in range(0, len(mine), _MOVED_AT_ONCE):
                some = mine[begin : begin + _MOVED_AT_ONCE]
                uids = [one.sop_instance_uid for one in some]
                with self._write() as connection:
                    lock_study(connection, study_uid)
                    held = select(instances.c.path).where(instances.c.sop_instance_uid.in_(uids))
                    used = set(connection.execute(held).scalars())
                    for one in some:
                        if one.path not in used:
                            move(one)

    def _accept_more(self, connection: Connection, acceptance: Acceptance) -> None:
        values = {**vars(acceptance), "attributes": json.dumps(sorted(acceptance.attributes))}
        row = self._insert(acceptances).values(values)
        connection.execute(row.on_conflict_do_update(index_elements=["study_uid"], set_=values))

    def acceptance(self, study_uid: str, now: float) -> Acceptance | None:
        """Return what of a correction is taken as it comes; None where nothing is, or no more."""
        mine = (acceptances.c.study_uid == study_uid) & (acceptances.c.until > now)
        with self._read() as connection:
            row = connection.execute(select(acceptances).where(mine)).one_or_none()
        return (
            None if row is None else Acceptance(**{**row._mapping, "attributes": frozenset(json.loads(row.attributes))})
        )

    def _corrections(self, chosen: Any) -> list[Correction]:
        columns = [c for c in corrections.c if c.name != "id"]
        with self._read() as connection:
            rows = connection.execute(select(*columns).where(chosen).order_by(corrections.c.id))
            return [Correction(**row._mapping) for row in rows]

    def _open(self, connection: Connection, study_uid: str, more: int, last_seen: float | None, now: float) -> None:
        """Let a study settle once more, and let nothing of its last generation go out. `more`: instances."""
        lock_study(connection, study_uid)
        mine = studies.c.study_uid == study_uid
        found = connection.execute(select(studies).where(mine)).one_or_none()
        if found is None:  # an object that moves into a study of which nothing has come yet
            seen = now if last_seen is None else last_seen
            connection.execute(
                studies.insert().values(
                    study_uid=study_uid,
                    generation=0,
                    state="receiving",
                    first_seen=seen,
                    last_seen=seen,
                    instances=more,
                )
            )
        else:
            values: dict[str, Any] = {"state": "receiving", "instances": max(0, found.instances + more)}
            if last_seen is not None:
                values["last_seen"] = max(last_seen, found.last_seen)
            connection.execute(studies.update().where(mine).values(values))
            supersede(connection, study_uid, found.generation + 1, now, reason=_SUPERSEDED)
            if found.generation:
                note_patient(connection, self._insert, study_uid)

    def _note(self, connection: Connection, rows: Sequence[Correction], action: CorrectionAction) -> None:
        """Note decisions, and tell the audit trail of those that no command tells of."""
        source, (first, *_) = trail.source(), rows
        if source is not None and action in ("newest", "noted"):
            mine = (corrections.c.study_uid == first.study_uid) & (corrections.c.at > first.at - _TOLD_AGAIN_S)
            before = connection.execute(
                select(corrections.c.id).where(mine & (corrections.c.who == first.who)).limit(1)
            )
            if before.first() is None:
                what = "objects replaced by newer versions" if action == "newest" else "objects rejected by a note"
                study = AuditStudy(first.study_uid)
                add(
                    connection,
                    messages.alert(source, first.at, messages.RESTRICTED, what, {"by": first.who}, study=study),
                )
        connection.execute(corrections.insert(), [vars(row) for row in rows])


def _take(connection: Connection, sop_instance_uid: str) -> Instance | None:
    row = connection.execute(
        select(instances).where(instances.c.sop_instance_uid == sop_instance_uid).with_for_update()
    ).one_or_none()
    return None if row is None else Instance(**row._mapping)


def _settle_conflicts(connection: Connection, new: Instance) -> None:
    """Forget the version that has found its place, and those that came before it: one that came later still waits."""
    of_it = conflicts.c.sop_instance_uid == new.sop_instance_uid
    settled = (conflicts.c.sha256 == new.sha256) | (conflicts.c.received_at <= new.received_at)
    connection.execute(conflicts.delete().where(of_it & settled))


def _whose(connection: Connection, study_uid: str) -> str:
    whose = connection.execute(select(patients.c.patient_hash).where(patients.c.study_uid == study_uid)).scalar()
    return whose or ""


def _row(
    old: Instance,
    successor: str,
    action: CorrectionAction,
    who: str,
    now: float,
    whose: str,
    code: RejectionCode,
    study_uid: str,
) -> Correction:
    return Correction(study_uid, old.sop_instance_uid, action, who, now, old.sha256, successor, whose, code)
