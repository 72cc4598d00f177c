"""What `dicomnode jobs list` shows, a row for each study: read only, one query of the catalogue and one of the queue.

A row as JSON keeps its keys (docs/admin/looking-at-jobs.md). Whose a study is stands in it only where that is asked
for.
"""

import re
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, get_args

from sqlalchemy.exc import SQLAlchemyError

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.jobs import LIVE
from dicomnode.store.catalog.overview import StudyRow, Wanted
from dicomnode.store.records import StudyState
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import Queue

#: The newest generation of a study is never superseded.
STATES: tuple[StudyState, ...] = ("receiving", *(s for s in get_args(get_args(StudyState)[1]) if s != "superseded"))
_CONFLICTS = "SOP Instance UIDs received again with different content"
_UNIT_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


class Pages:
    """The catalogue and the queue, open to be looked at; a context manager."""

    def __init__(self, config: Config) -> None:
        if not config.storage.database_url and not config.storage.state.is_dir():
            raise UsageError(f"{config.storage.state}: the node has never run with this configuration")
        has_queue = bool(config.storage.database_url) or (config.storage.state / "queue.sqlite").exists()
        with ExitStack() as opened:
            self.catalog = opened.enter_context(closing(Catalog.reading(config.catalog_url, config.storage.state)))
            self._queue = opened.enter_context(closing(Queue(config))) if has_queue else None
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        """Nothing more is to be done."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()

    @property
    def has_queue(self) -> bool:
        """Whether there was a queue when this was opened."""
        return self._queue is not None

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()

    def rows(self, wanted: Wanted, *, identify: bool = False) -> list[dict[str, Any]]:
        """Return the studies that are looked for, as JSON has them.

        Args:
            wanted: which.
            identify: with Patient ID, accession number, study date and description.
        """
        return self._as_json(self.catalog.overview(wanted), identify=identify)

    def page(self, wanted: Wanted, *, identify: bool = False) -> tuple[list[dict[str, Any]], tuple[float, str] | None]:
        """Return a page of studies as `rows`, and behind which row the next one begins (`Wanted.after`); None: none."""
        found = self.catalog.overview(replace(wanted, limit=wanted.limit + 1))
        more, found = len(found) > wanted.limit, found[: wanted.limit]
        after = (found[-1].last_seen, found[-1].study_uid) if more else None
        return self._as_json(found, identify=identify), after

    def _as_json(self, found: list[StudyRow], *, identify: bool) -> list[dict[str, Any]]:
        due = self._due(found)
        return [_row(one, due.get((one.study_uid, one.generation)), identify=identify) for one in found]

    def _due(self, found: list[StudyRow]) -> dict[tuple[str, int], float]:
        waiting = [(one.study_uid, one.generation) for one in found if one.state in (*LIVE, "delivered", "refused")]
        if self._queue is None or not waiting:
            return {}
        try:
            return self._queue.next_attempts(waiting)
        except SQLAlchemyError:
            return {}  # the first worker makes the queue's tables


def wanted(
    *,
    states: tuple[str, ...] = (),
    patient: str = "",
    accession: str = "",
    sender: str = "",
    since: str = "",
    text: str = "",
    limit: int = 50,
) -> Wanted:
    """Return what is looked for; the arguments are those of the command line.

    Raises:
        UsageError: a state or a time is none.
    """
    for state in states:
        if state not in STATES:
            older = (
                "an older generation's: see `dicomnode jobs show STUDY`" if state == "superseded" else "no job state"
            )
            raise UsageError(f"{state!r} is {older}; states: {', '.join(STATES)}")
    return Wanted(
        states=tuple(state for state in STATES if state in states),
        patient_id=patient.strip(),
        accession_number=accession.strip(),
        sender=sender.strip(),
        since=since_s(since, time.time()) if since else None,
        text=text.strip(),
        limit=limit,
    )


def since_s(text: str, now: float) -> float:
    """Return the time that is meant, UTC seconds: "30m", "2h" or "3d" before `now`, or an ISO 8601 date and time.

    A time without an offset is this machine's.

    Raises:
        UsageError: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if ago is not None:
        return now - int(ago[1]) * _UNIT_S[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"since {text!r} is no time: give 30m, 2h, 3d, 2026-11-29 or 2026-11-29T18:30") from None


def flags(row: StudyRow) -> list[str]:
    """Return what a person should know of a job that its state does not say."""
    return [
        *([f"{_CONFLICTS}: {row.conflicts} (quarantined: accept or reject)"] if row.conflicts else []),
        *([f"{plural(row.warnings, 'object')} stored with a warning"] if row.warnings else []),
        *([f"{row.priors_missing} of {plural(row.priors, 'prior')} not here"] if row.priors_missing else []),
        *(["prior scan, fetched for comparison"] if row.is_prior else []),
    ]


def _row(row: StudyRow, due: float | None, *, identify: bool) -> dict[str, Any]:
    label = row.label
    whose = {
        "patient_id": label.patient_id,
        "issuer_of_patient_id": label.issuer,
        "accession_number": label.accession_number,
        "study_date": label.study_date,
        "study_description": label.description,
    }
    return {
        "study_uid": row.study_uid,
        **(whose if identify else {}),
        "generation": row.generation,
        "state": row.state,
        "priority": row.urgency,
        "instances": row.instances,
        "sender": row.sender,
        "called": row.called,
        "first_seen": text(row.first_seen),
        "last_seen": text(row.last_seen),
        "settled_at": text(row.settled_at),
        "started_at": text(row.started_at),
        "analysed_at": text(row.analysed_at),
        "delivered_at": text(row.delivered_at),
        "changed_at": text(row.changed_at),
        "next_attempt_at": text(due),
        "delivered": f"{row.arrived}/{row.deliveries}",
        "objects": {"planned": row.deliveries, "arrived": row.arrived, "lost": row.lost, "warnings": row.warnings},
        "priors": {"asked": row.priors, "missing": row.priors_missing},
        "reason": row.reason,
        "flags": "; ".join(flags(row)),
    }


def text(seconds: float | None) -> str:
    """Return a time as JSON has it, in UTC; "" for none."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def local(stamp: str) -> str:
    """Return a time of `text` in this machine's zone, as people read it; "" for none."""
    if not stamp:
        return ""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")
