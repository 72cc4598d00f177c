"""Room on the disk: below the first watermark, what was delivered long enough ago is removed, the oldest first.

The catalogue decides, the files follow: in one transaction a study's instances are forgotten and its folder is moved
aside; then the folder and the results are deleted, all but `findings.json`, which is small and what a later scan of the
patient is compared with. A crash at any point leaves a folder in `leaving/`, and a later call deletes it, or puts it
back if the catalogue did not forget it after all.
"""

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dicomnode.errors import DatabaseError, SpoolError
from dicomnode.files import inside, name_of, remove_tree
from dicomnode.store.catalog.catalog import AFTER_DELIVERY, Catalog
from dicomnode.store.records import JobState, Study
from dicomnode.store.results_folder import FINDINGS
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: A folder that was moved aside so long ago was left by a crash; a younger one may be another node's work.
_CRASHED_S = 60.0


class CarefulClock:
    """The time of day for deciding what has expired: a clock that is set, forward or back, makes nothing older.

    It is the earlier of the time of day and of the time of day at the start plus what has passed since.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def __call__(self) -> float:
        """UTC seconds since 1970."""
        return min(self._wall(), self._steady() + self._ahead)


@dataclass(frozen=True)
class Room:
    """When something may go.

    Attributes:
        low_free_bytes: the first watermark.
        retention_s: for so long after its end a study is kept in any case.
        findings_s: for so long after its last image a study's findings are kept, to compare later scans with.
    """

    low_free_bytes: int
    retention_s: float
    findings_s: float = math.inf


def make_room(room: Room, spool: Spool, results: Path, catalog: Catalog, now: float) -> list[str]:
    """Remove released studies until there is room. Returns the studies' UIDs.

    Raises:
        SpoolError: spool or catalogue failed.
    """
    failures = _Failures()
    _finish(spool, catalog, failures)
    for study_uid in catalog.long_removed(now - room.findings_s):
        catalog.forget_patient(study_uid)
        failures.done(study_uid, partial(_delete_results, results, study_uid, keep=()))
    removed: list[str] = []
    if spool.free_bytes() >= room.low_free_bytes:
        failures.tell()
        return removed
    for study in catalog.releasable(now, room.retention_s):
        if spool.free_bytes() >= room.low_free_bytes:
            break
        if study.instances and failures.done(study.study_uid, partial(_remove, study, spool, results, catalog)):
            removed.append(study.study_uid)
    short_gb = (room.low_free_bytes - spool.free_bytes()) / 1e9
    if removed:
        log.info("%s removed to free space", plural(len(removed), "delivered study", "delivered studies"))
    if short_gb > 0:
        log.warning("the spool's disk is %.1f GB below storage.low_free_gb, and nothing more may be removed", short_gb)
    failures.tell()
    return removed


@dataclass(frozen=True)
class SetAside:
    """For how long the images of studies are kept that wait for a person's decision, seconds; 0: for ever.

    Attributes:
        held_s: of studies that a rule or a doubt holds.
        cancelled_s: of cancelled ones.
        notice_s: a person is told so long before the images go.
    """

    held_s: float
    cancelled_s: float
    notice_s: float


def remove_set_aside(set_aside: SetAside, spool: Spool, results: Path, catalog: Catalog, now: float) -> list[str]:
    """Give notice of held and cancelled studies whose time is nearly over; remove those whose notice is old enough.

    Returns the UIDs of the studies whose images were removed.

    Raises:
        SpoolError: spool or catalogue failed.
    """
    failures, removed = _Failures(), []
    kept_s: dict[JobState, float] = {"held": set_aside.held_s, "cancelled": set_aside.cancelled_s}
    for state, seconds in kept_s.items():
        if not seconds:
            continue
        days = seconds / 86_400
        for study, noticed_at in catalog.set_aside(state, now - max(0.0, seconds - set_aside.notice_s)):
            if noticed_at is None:
                on = time.strftime("%Y-%m-%d", time.gmtime(now + set_aside.notice_s))
                since = plural(round(max(0.0, days - set_aside.notice_s / 86_400)), "day")
                why = f"{state} for {since}: its images go on {on}"
                catalog.notice_removal(study, f"{why} unless it is released or retried", now)
                log.warning("study %s is %s", study.study_uid, why)
            elif noticed_at <= now - set_aside.notice_s:
                why = f"{state} for {plural(days, 'day')}: images removed"
                if failures.done(study.study_uid, partial(_remove, study, spool, results, catalog, why)):
                    catalog.set_state(study.study_uid, study.generation, "cancelled", why, now=now)
                    removed.append(study.study_uid)
    failures.tell()
    return removed


def _remove(study: Study, spool: Spool, results: Path, catalog: Catalog, why: str = AFTER_DELIVERY) -> bool:
    if not catalog.release(study, lambda: spool.move_out(study.study_uid), why):
        return False
    log.info("study %s: %s", study.study_uid, why)
    _delete_results(results, study.study_uid, keep=(FINDINGS,))
    spool.delete(name_of(study.study_uid))
    return True


class _Failures:
    """What cannot be removed (a link in its place, another's file) holds up no other study, and is told at the end."""

    def __init__(self) -> None:
        self._first: SpoolError | None = None

    def done(self, study_uid: str, remove: Callable[[], bool]) -> bool:
        """Whether it was removed."""
        try:
            return remove()
        except DatabaseError:
            raise
        except (SpoolError, OSError) as error:
            log.error("study %s cannot be removed: %s", study_uid, error)
            self._first = self._first or (error if isinstance(error, SpoolError) else SpoolError(str(error)))
            return False

    def tell(self) -> None:
        """Raise the first of them: SpoolError."""
        if self._first is not None:
            raise self._first


def _delete_results(results: Path, study_uid: str, keep: Collection[str]) -> bool:
    name = name_of(study_uid)
    if not keep:
        remove_tree(results, name)
        return True
    for folder in inside(results, name).glob("*"):
        for path in inside(results, name, folder.name).glob("*"):
            if path.name not in keep:
                path.unlink()
    return True


def _finish(spool: Spool, catalog: Catalog, failures: _Failures) -> None:
    """Delete what a crash left between moving and deleting."""
    for name in spool.moved_out(time.time() - _CRASHED_S):
        # A folder's name is its study's UID; a strange UID was hashed, and such a study is kept.
        study = catalog.study(name)
        gone = study is not None and not study.instances
        failures.done(name, partial(_move_on, spool.delete if gone else spool.move_back, name))


def _move_on(move: Callable[[str], None], name: str) -> bool:
    move(name)
    return True
