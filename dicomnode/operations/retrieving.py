"""`dicomnode retrieve`: the studies of a list, fetched from the PACS of [priors] one after the other.

Each row's state is noted in `storage.state` before and after each step: a command that was killed goes on, and no study
comes twice. A study settles only when all of it has come, and is held if its images are not the patient's who was asked
for (`store.catalog.bulk_studies`).
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode.config import Config, PriorsTable
from dicomnode.context import cohort, retrieval
from dicomnode.errors import PeerError, PeerRejectedError, UsageError
from dicomnode.files import make_folder
from dicomnode.operations import cohort_list
from dicomnode.operations.audited import note_command, noted
from dicomnode.operations.cohort_list import CohortRow
from dicomnode.operations.pacing import Pacing, Rate, Told, alone
from dicomnode.operations.retrieve_report import ANSWERED, RetrieveJournal, RowReport
from dicomnode.reception.process import recover
from dicomnode.retry import backoff_s
from dicomnode.store import process_names, restoring
from dicomnode.store.catalog.bulk_studies import patient_of
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: Attempts at one row, the later ones after all other rows; and so many rows in succession that fail are the PACS's
#: failure, not theirs.
_ATTEMPTS, _MOST_IN_SUCCESSION = 3, 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0


@dataclass(frozen=True)
class RetrieveOptions:
    """What a person may say of a retrieval.

    Attributes:
        rate: see `Rate`.
        queue: wait while so many studies are to be analysed; 0: never.
        send: results go to the destinations; else they stay here.
        again: ask again for rows that were answered, and not with a whole study.
    """

    rate: Rate
    queue: int = 100
    send: bool = False
    again: bool = False


#: Follows the work: rows done, of how many.
Follow = Callable[[int, int], None]


def run(
    config: Config,
    path: Path,
    options: RetrieveOptions,
    follow: Follow = lambda _done, _total: None,
    told: Told = lambda _text: None,
    report: Callable[[Sequence[RowReport]], None] = lambda _rows: None,
    *,
    dry_run: bool = False,
) -> list[RowReport]:
    """Fetch what a list asks for. `report` gets all rows at the end, also where that comes early.

    Raises:
        UsageError: the list or the configuration cannot work, or another retrieval runs.
        PeerError, PeerRejectedError: the PACS fails one row after the other; the same call goes on later.
        SpoolError: spool or catalogue failed; likewise.
    """
    rows = cohort_list.read(path)
    table = _table(config)
    if dry_run:
        return [_report_of(row.number, cohort.look_up(table, _asked(row))) for row in rows]
    here = bool(config.storage.database_url) or process_names.is_serving(config.storage.state)
    if table.retrieve == "move" and not here:
        raise UsageError(
            "the node does not run, and with priors.retrieve = 'move' its receiver takes the images: start it with "
            "`dicomnode serve`, or set 'get'"
        )
    restoring.refuse(config.storage.state)
    make_folder(config.storage.state)
    with (
        alone(config.storage.state, "retrieve"),
        closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog,
        noted(config, catalog),
    ):
        details = {"list": str(path), "rows": str(len(rows)), "results": "sent" if options.send else "kept"}
        note_command(config, "retrieve", details, catalog=catalog)
        work = _Retrieval(config, table, catalog, rows, options, told)
        try:
            work.run(follow)
        finally:
            report(work.reported())
        return work.reported()


def _table(config: Config) -> PriorsTable:
    if config.priors is None:
        raise UsageError("there is no [priors] table: it names the PACS that studies are fetched from (ae_config.toml)")
    return config.priors


def _asked(row: CohortRow) -> cohort.AskedStudy:
    return cohort.AskedStudy(row.patient_id, row.issuer, row.accession_number, row.study_date, row.study_uid)


def _report_of(number: int, seen: cohort.LookedUp) -> RowReport:
    study = seen.study
    if study is None:
        return RowReport(number, seen.state, seen.found, reason=seen.reason)
    return RowReport(number, "pending", seen.found, study.study_uid, study.images, series_uids=study.series_uids)


class _Retrieval:
    """One list, from its first row to its last."""

    def __init__(
        self,
        config: Config,
        table: PriorsTable,
        catalog: Catalog,
        rows: Sequence[CohortRow],
        options: RetrieveOptions,
        told: Told,
    ) -> None:
        self._config, self._table, self._catalog, self._options = config, table, catalog, options
        self._rows = {row.number: row for row in rows}
        self._spool = Spool(config.storage.spool)
        self._pacing = Pacing(config, catalog, options.rate, options.queue, told)
        self._journal = RetrieveJournal(config.storage.state, rows)
        before, self._last_at = self._journal.read()
        asked_again = ("refused", "failed", *(ANSWERED if options.again else ()))
        stays = {one.row: replace(one, attempts=0) for one in before if one.state not in asked_again}
        self._reports = {row.number: stays.get(row.number, RowReport(row.number)) for row in rows}

    def reported(self) -> list[RowReport]:
        """All rows, with what the node makes of each study now."""
        return [replace(one, job=self._job(one.study_uid)) for one in self._reports.values()]

    def _job(self, study_uid: str) -> str:
        study = self._catalog.study(study_uid) if study_uid else None
        return "" if study is None else study.state

    def run(self, follow: Follow) -> None:
        """Fetch row by row; what fails in passing is tried again behind the others."""
        recover(self._spool, self._catalog)
        for one in self._reports.values():
            if one.state in ("retrieved", "present"):
                self._sent(one.study_uid)
        in_succession = 0
        for _ in range(_ATTEMPTS):
            for number in [n for n, one in self._reports.items() if self._is_open(one)]:
                self._follow(follow)
                self._pacing.in_quiet_hours()
                try:
                    self._one(number)
                except (PeerError, PeerRejectedError) as error:
                    in_succession += 1
                    self._failed(number, error)
                    if in_succession >= _MOST_IN_SUCCESSION:
                        raise
                    self._pacing.after_failure(
                        backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, in_succession, seed=f"row {number}")
                    )
                else:
                    in_succession = 0
        self._follow(follow)

    def _follow(self, follow: Follow) -> None:
        follow(sum(not self._is_open(one) for one in self._reports.values()), len(self._reports))

    @staticmethod
    def _is_open(one: RowReport) -> bool:
        return one.state in ("pending", "fetching")

    def _failed(self, number: int, error: PeerError | PeerRejectedError) -> None:
        one = self._reports[number]
        attempts = one.attempts + 1
        state = one.state
        if isinstance(error, PeerRejectedError):
            state = "refused"
        elif attempts >= _ATTEMPTS:
            state = "failed"
        log.warning("row %d of the list: %s", number, error)
        self._note(replace(one, state=state, attempts=attempts, reason=str(error)))
        if state in ("refused", "failed") and one.study_uid:
            self._over(one.study_uid)

    def _one(self, number: int) -> None:
        """Take one row as far as it goes."""
        one = self._reports[number]
        bulk = self._catalog.bulk(one.study_uid) if one.state == "fetching" else None
        if bulk is not None:  # it was cut short
            self._fetch(one, bulk.patient)
            return
        asked = self._rows[number]
        seen = cohort.look_up(self._table, _asked(asked))
        one = replace(_report_of(number, seen), attempts=one.attempts)
        before = next((o.row for o in self._reports.values() if o.row < number and o.study_uid == one.study_uid), None)
        if seen.study is None:
            self._note(one)
        elif before is not None:
            self._note(replace(one, state="duplicate", reason=f"the same study as row {before}"))
        elif not self._is_here(one):
            self._fetch(one, patient_of(self._catalog.patient_key, seen.study.patient_id, asked.issuer))

    def _is_here(self, one: RowReport) -> bool:
        """Whether a study needs no fetching: it came by itself, or an earlier list has brought it."""
        study, bulk = self._catalog.study(one.study_uid), self._catalog.bulk(one.study_uid)
        if study is None:
            return False
        here = self._images(one)
        if bulk is None:
            reason = "it came to this node by itself: its results go where those of other studies go"
        elif bulk.ended_at is not None and (here >= (one.expected or 1) or not study.instances):
            reason = "an earlier list, or an import, has brought it"
            reason += self._sent(one.study_uid)
        else:
            return False
        self._note(replace(one, state="present", retrieved=here, reason=reason))
        return True

    def _sent(self, study_uid: str) -> str:
        """Let results that stayed here go out, where that is asked for now; says so."""
        if not self._options.send or not self._catalog.send_bulk(study_uid):
            return ""
        if self._catalog.reopen(study_uid):  # it settles once more, and goes out
            return "; its results are sent now"
        study = self._catalog.study(study_uid)
        if study is not None and study.state in ("receiving", "queued", "running"):
            return "; its results are sent when it has been analysed"
        if study is not None and study.state == "held":
            return "; it is held, and its results are sent once it is released"
        why = "its images are gone" if study is None or not study.instances else f"it is {study.state}"
        return f"; nothing of it is sent: {why}"

    def _fetch(self, one: RowReport, patient: str) -> None:
        self._pacing.before_study(self._last_at)
        self._pacing.in_quiet_hours()
        now = self._last_at = time.time()
        if not self._catalog.begin_bulk(
            one.study_uid, "retrieve", keep=not self._options.send, patient=patient, now=now
        ):
            self._is_here(one)  # it has come while this one waited
            return
        one = replace(one, state="fetching", reason="")
        self._note(one)
        done = retrieval.retrieve(self._config, self._table, self._catalog, self._spool, one.study_uid, one.series_uids)
        here = self._images(one)
        expected = one.expected if one.expected is not None else done.completed + done.failed
        if not here and (expected or done.failed):
            raise PeerError(f"of {plural(expected or done.failed, 'image')} of the study none has come")
        one = replace(one, retrieved=here, expected=expected)
        bulk = self._catalog.bulk(one.study_uid)
        if bulk is not None and not bulk.is_of(self._catalog.named_patients(one.study_uid)):
            reason = "its images name another patient than the row: held, and nothing of it is sent"
            one = replace(one, state="wrong-patient", reason=reason)
        elif here < expected:
            lost = f", {done.failed} of which the PACS could not send" if done.failed else ""
            one = replace(
                one, state="incomplete", reason=f"{expected - here} of {plural(expected, 'image')} missing{lost}"
            )
        else:
            one = replace(one, state="retrieved")
        self._over(one.study_uid)
        self._note(one)

    def _images(self, one: RowReport) -> int:
        """Count what is here of the wanted series."""
        wanted = set(one.series_uids)
        return sum(image.series_uid in wanted for image in self._catalog.instances(one.study_uid))

    def _over(self, study_uid: str) -> None:
        """No more of a study is on its way."""
        study = self._catalog.study(study_uid)
        if study is None:
            self._catalog.forget_bulk(study_uid)
        else:
            self._catalog.end_bulk(study_uid, time.time())

    def _note(self, one: RowReport) -> None:
        self._reports[one.row] = one
        self._journal.note(one, self._reports.values(), self._last_at)
