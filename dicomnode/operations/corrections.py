"""What a person decides about objects that came again with other content, or that do not belong where they are.

Each decision is in the catalogue with who and when, and in the audit trail; what it puts out of use is kept for
`storage.replaced_days`. The files' order: `reception.corrections`.
"""

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dicomnode import logs
from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.operations.audited import note_command, who
from dicomnode.operations.jobs import open_catalog
from dicomnode.operations.one_decision import alone
from dicomnode.reception.corrections import decided_against, put_away
from dicomnode.reception.spooled import read_instance
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.differences import UNREADABLE, Difference, differences
from dicomnode.store.records import Acceptance, Conflict, Instance, RejectionCode
from dicomnode.store.replaced import Replaced
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

#: Why objects are dropped, as a rejection note would say it (PS3.16 CID 7010).
REASONS: Final[dict[str, RejectionCode]] = {
    "quality": "113001",
    "patient-safety": "113037",
    "wrong-worklist-entry": "113038",
    "retention-expired": "113039",
}


@dataclass(frozen=True)
class HeldVersion:
    """A version in quarantine beside the one that stands.

    Attributes:
        conflict: when which version came.
        standing: the recorded version; None where the study's images have been removed.
        differences: by attribute; their values may name a patient.
        path: of the quarantined file; None where the quarantine no longer has it.
    """

    conflict: Conflict
    standing: Instance | None
    differences: tuple[Difference, ...]
    path: Path | None


def held(
    config: Config, study_uid: str, sop_instance_uid: str | None, *, compared: int | None = None
) -> list[HeldVersion]:
    """Return the versions about which nobody has decided, of each object the one that came last.

    Only the first `compared` have their differences: both files are read for these.

    Raises:
        UsageError: there is none, or the study is not known.
    """
    with closing(open_catalog(config)) as catalog:
        area = Replaced(Spool(config.storage.spool))
        latest: dict[str, Conflict] = {}
        for conflict in _conflicts(catalog, study_uid, sop_instance_uid):
            latest[conflict.sop_instance_uid] = conflict  # the oldest first
        found = []
        for number, conflict in enumerate(latest.values()):
            standing = catalog.held_instance(conflict.sop_instance_uid)
            path = area.quarantined(conflict.sha256)
            differ: tuple[Difference, ...] = ()
            if path is not None and standing is not None and (compared is None or number < compared):
                differ = differences(Path(standing.path), path)
            found.append(HeldVersion(conflict, standing, differ, path))
        return found


def acceptable(found: Sequence[HeldVersion]) -> list[tuple[HeldVersion, Instance]]:
    """Return those of `held` that can be taken as the truth, each as its file says; nothing is changed.

    Raises:
        UsageError: as `accept`.
    """
    read = []
    for one in usable(found):
        assert one.path is not None
        try:
            read.append((one, read_instance(one.path)))
        except ValueError as error:
            raise UsageError(f"{one.path}: {error}; reject it, and send the object again") from None
    return read


def usable(found: Sequence[HeldVersion]) -> list[HeldVersion]:
    """Return those that are still in quarantine, beside a version that stands. Raises UsageError: there is none."""
    if all(one.standing is None for one in found):
        raise UsageError("the images of this study were removed to free space: send the corrected study again")
    there = [one for one in found if one.path is not None and one.standing is not None]
    if not there:
        raise UsageError(
            "the quarantine no longer holds these objects (storage.quarantine_gb): send them again, then accept them"
        )
    return there


@alone
def accept(config: Config, study_uid: str, found: Sequence[HeldVersion], minutes: float) -> str:
    """Take quarantined versions as the truth. Return a sentence for the caller.

    Args:
        config: the node's.
        study_uid: the study's.
        found: of `held`.
        minutes: for so long, more of the same correction of this study is taken as it comes.

    Raises:
        UsageError: the quarantine has none of them any more, or the study's images have been removed; or somebody has
            decided meanwhile.
    """
    found = _still_held(config, study_uid, found)
    taken_up = acceptable(found)
    now = time.time()
    with closing(open_catalog(config)) as catalog:
        spool = Spool(config.storage.spool)
        note_command(config, "jobs accept", {"objects": str(len(taken_up))}, study_uid)
        area = Replaced(spool)
        news = []
        for one, read in taken_up:
            assert one.path is not None
            place = spool.place(read.study_uid, read.series_uid, read.sop_instance_uid, read.sha256)
            area.bring_in(one.path, place)
            keyed = catalog.patient_key.keyed(read.patient_hash)
            news.append(replace(read, path=str(place), patient_hash=keyed, received_at=one.conflict.received_at))
        decided = {one.conflict.sop_instance_uid: one.conflict.received_at for one, _ in taken_up}
        # What has come since it was shown waits for a decision of its own.
        older = [c for c in catalog.conflicts(study_uid) if c.received_at <= decided.get(c.sop_instance_uid, -math.inf)]
        further = _further(study_uid, [one for one, _ in taken_up], news, now, minutes) if minutes > 0 else None
        if further is not None:
            further = replace(further, at=_since(catalog, further, news))
        old = catalog.replace_instances(news, "accepted", who(), now=now, more=further)
        put_away(spool, catalog, old, now)
        put_away(spool, catalog, news, now)  # of these only what has left the study meanwhile
        for (one, _), new in zip(taken_up, news, strict=True):
            standing = catalog.held_instance(new.sop_instance_uid)
            if standing is None or standing.sha256 != new.sha256:
                continue
            if one.path is not None and not Path(new.path).exists():
                area.bring_in(one.path, Path(new.path))  # a node that started meanwhile took it for left behind
        taken = {new.sha256 for new in news}
        _set_aside(area, [c for c in older if c.sha256 not in taken], now)
        for sha256 in taken:
            area.forget(sha256)
        missing = len(found) - len(taken_up)
        left = f"; {missing} more no longer in quarantine: to be sent again" if missing else ""
        lasts = plural(minutes, "minute")
        more = f"; more of this correction is taken as it comes for {lasts}" if further is not None else ""
        return f"{plural(len(news), 'object')} replaced{left}{more}; the study settles as its next generation"


def _further(
    study_uid: str, accepted: Sequence[HeldVersion], news: Sequence[Instance], now: float, minutes: float
) -> Acceptance | None:
    """Return what else belongs to this correction; None where nobody can tell (several patients, unreadable files).

    What moves to another study is decided on object by object.
    """
    patients = {new.patient_hash for new in news}
    attributes = {d.attribute for one in accepted for d in one.differences}
    if len(patients) != 1 or attributes & {UNREADABLE, "StudyInstanceUID"}:
        return None
    return Acceptance(study_uid, who(), now + 60 * minutes, patients.pop(), frozenset(attributes), now)


def _since(catalog: Catalog, further: Acceptance, news: Sequence[Instance]) -> float:
    """Return the time from which decisions keep a version out.

    More of a correction that still holds, accepted once more, leaves out what its first acceptance has replaced; only
    one that turns it back does not.
    """
    holds = catalog.acceptance(further.study_uid, further.at)
    if holds is None or any(decided_against(catalog, new, since=holds.at) for new in news):
        return further.at
    return holds.at


@alone
def reject(config: Config, study_uid: str, sop_instance_uid: str | None) -> str:
    """Throw away what lies in quarantine: what stands stays. Return a sentence for the caller.

    Raises:
        UsageError: nothing lies there.
    """
    now = time.time()
    with closing(open_catalog(config)) as catalog:
        found = _conflicts(catalog, study_uid, sop_instance_uid)
        note_command(config, "jobs reject", {"objects": str(len(found))}, study_uid)
        catalog.reject_conflicts(found, who(), now=now)
        _set_aside(Replaced(Spool(config.storage.spool)), found, now)
        return f"{plural(len(found), 'version')} rejected; the study stays as it is"


def drop(config: Config, study_uid: str, sop_instance_uid: str | None, because: str, *, dry_run: bool) -> str:
    """Take an object, or all, out of a study. Return a sentence for the caller.

    Args:
        config: the node's.
        study_uid: the study's.
        sop_instance_uid: the object's; None: all of the study.
        because: of `REASONS`.
        dry_run: only say what would be done.

    Raises:
        UsageError: there is no such object.
    """
    if because not in REASONS:
        raise UsageError(f"{because!r} is no reason; reasons: {', '.join(REASONS)}")
    if dry_run:
        with closing(open_catalog(config)) as catalog:
            return f"{_counted(_droppable(catalog, study_uid, sop_instance_uid))} would be taken out"
    return _drop(config, study_uid, sop_instance_uid, because)


@alone
def _drop(config: Config, study_uid: str, sop_instance_uid: str | None, because: str) -> str:
    now = time.time()
    with closing(open_catalog(config)) as catalog:
        there = _droppable(catalog, study_uid, sop_instance_uid)
        note_command(config, "jobs drop", {"objects": str(len(there)), "because": because}, study_uid)
        spool = Spool(config.storage.spool)
        uids = [i.sop_instance_uid for i in there]
        gone = catalog.take_out(study_uid, uids, "dropped", who(), REASONS[because], now=now)
        put_away(spool, catalog, gone, now)
        return f"{_counted(there)} taken out ({because}); the study settles as its next generation"


def _droppable(catalog: Catalog, study_uid: str, sop_instance_uid: str | None) -> list[Instance]:
    there = [i for i in catalog.instances(study_uid) if sop_instance_uid in (None, i.sop_instance_uid)]
    if not there:
        raise UsageError("the node holds no such object of this study; see `dicomnode jobs list`")
    return there


def _counted(objects: Sequence[Instance]) -> str:
    series = len({i.series_uid for i in objects})
    return f"{plural(len(objects), 'object')} of {plural(series, 'series', 'series')}"


def _still_held(config: Config, study_uid: str, found: Sequence[HeldVersion]) -> list[HeldVersion]:
    """Return those about which nobody has decided since they were shown, as they are now.

    Raises:
        UsageError: somebody has decided about all of them.
    """
    with closing(open_catalog(config)) as catalog:
        area = Replaced(Spool(config.storage.spool))
        waiting = {(c.sop_instance_uid, c.sha256) for c in catalog.conflicts(study_uid)}
        still = [
            replace(
                one,
                standing=catalog.held_instance(one.conflict.sop_instance_uid),
                path=area.quarantined(one.conflict.sha256),
            )
            for one in found
            if (one.conflict.sop_instance_uid, one.conflict.sha256) in waiting
        ]
    if found and not still:
        raise UsageError("somebody has decided about these objects meanwhile: see `dicomnode jobs show`")
    return still


def _set_aside(area: Replaced, found: Iterable[Conflict], now: float) -> None:
    """Keep versions that were decided against, as long as what was replaced."""
    for one in found:
        path = area.quarantined(one.sha256)
        if path is not None:
            area.put(path, one.study_uid, one.sha256, now)
            area.forget(one.sha256)


def _conflicts(catalog: Catalog, study_uid: str, sop_instance_uid: str | None) -> list[Conflict]:
    if catalog.study(study_uid) is None:
        raise UsageError(f"{logs.uid(study_uid)}: no such study; see `dicomnode jobs list`")
    found = [c for c in catalog.conflicts(study_uid) if sop_instance_uid in (None, c.sop_instance_uid)]
    if not found:
        raise UsageError("no object of this study waits in quarantine with other content")
    return found
