"""How the rows of a cohort's list stand: in a file of `storage.state`, and as the report that a person gets."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dicomnode.errors import UsageError
from dicomnode.files import private_opener, write_whole
from dicomnode.operations.cohort_list import CohortRow
from dicomnode.registry_format.tables import write_csv

log = logging.getLogger(__name__)

RowState = Literal[
    "pending", "fetching", "retrieved", "incomplete", "present", "duplicate", "not-found", "ambiguous", "no-series",
    "wrong-patient", "refused", "failed",
]  # fmt: skip
#: Nothing more is to be done.
GOOD: tuple[RowState, ...] = ("retrieved", "present", "duplicate")
#: Asked again only if a person says so: the same question has the same answer.
ANSWERED: tuple[RowState, ...] = ("incomplete", "not-found", "ambiguous", "no-series", "wrong-patient")
#: Of the report.
COLUMNS = ("row", "state", "found", "study_uid", "images_expected", "images_retrieved", "job", "reason")


@dataclass(frozen=True)
class RowReport:
    """What became of a row; no patient data but the UID.

    Attributes:
        row: as a spreadsheet counts.
        found: how many studies of the PACS fit it.
        expected: images of the wanted series, as the PACS lists them; None: it does not say.
        retrieved: of these, images that are here.
        series_uids: what is fetched.
        attempts: that failed in passing.
        job: state of the study in the node, when the report was made.
    """

    row: int
    state: RowState = "pending"
    found: int | None = None
    study_uid: str = ""
    expected: int | None = None
    retrieved: int = 0
    reason: str = ""
    series_uids: tuple[str, ...] = ()
    attempts: int = 0
    job: str = ""

    @property
    def shown(self) -> dict[str, Any]:
        """The row as the report has it, by `COLUMNS`."""
        return {
            "row": self.row,
            "state": self.state,
            "found": self.found,
            "study_uid": self.study_uid,
            "images_expected": self.expected,
            "images_retrieved": self.retrieved,
            "job": self.job,
            "reason": self.reason,
        }


class RetrieveJournal:
    """The rows of one list in a file. The same rows are the same list, whatever the file is called.

    A line is a row as it stood then, and the last line of a row counts. The file is written whole once, with the first
    note of a command; then a line is added for each: a list of thousands of rows costs no more with each of them.
    """

    def __init__(self, state: Path, rows: Sequence[CohortRow]) -> None:
        digest = hashlib.sha256(repr(tuple(rows)).encode("utf-8", "backslashreplace")).hexdigest()[:32]
        self._path = state / "retrieve" / f"{digest}.jsonl"
        #: Of a version that wrote all rows with each note.
        self._former = self._path.with_suffix(".json")
        self._is_whole = False

    def read(self) -> tuple[list[RowReport], float | None]:
        """Return the rows that were noted, and when the last study began to be fetched (UTC seconds)."""
        rows: dict[int, RowReport] = {}
        last_at: float | None = None
        try:
            for kept in self._kept():
                last_at = None if kept["last_at"] is None else float(kept["last_at"])
                for row in kept["rows"]:
                    one = RowReport(**{**row, "series_uids": tuple(row["series_uids"])})
                    rows[one.row] = one
        except (OSError, ValueError, KeyError, TypeError):
            # Nothing is lost by that: what is here is known by the catalogue.
            log.warning("%s cannot be read: what it says no more is asked once more", self._path)
        return list(rows.values()), last_at

    def _kept(self) -> Iterator[dict[str, Any]]:
        with suppress(FileNotFoundError):
            lines = self._path.read_text("utf-8").split("\n")
            yield from map(json.loads, lines[:-1])  # behind the last end of a line is what a kill has cut off
            return
        with suppress(FileNotFoundError):
            yield json.loads(self._former.read_text("utf-8"))

    def note(self, one: RowReport, rows: Iterable[RowReport], last_at: float | None) -> None:
        """Note how a row stands; on the disk when this returns. `rows`: all of them."""
        if self._is_whole:
            with open(self._path, "ab", opener=private_opener) as file:
                file.write(_line([one], last_at).encode())
                file.flush()
                os.fsync(file.fileno())
            return
        write_whole(self._path, _line([row for row in rows if row.state != "pending"], last_at))
        self._former.unlink(missing_ok=True)
        self._is_whole = True


def _line(rows: list[RowReport], last_at: float | None) -> str:
    return json.dumps({"last_at": last_at, "rows": [asdict(one) for one in rows]}) + "\n"


def as_json(rows: Sequence[RowReport]) -> str:
    """Return the report as JSON: how many rows came to each state, and each row."""
    counted = Counter(one.state for one in rows)
    shown = {"rows": len(rows), "states": dict(sorted(counted.items())), "report": [one.shown for one in rows]}
    return json.dumps(shown, indent=2)


def refuse(path: Path, asked: Path) -> None:
    """Refuse a path whose report could not be written as both of its files, or would replace the list.

    Raises:
        UsageError: it is so.
    """
    if path.suffix.lower() == ".json":
        raise UsageError(f"--report {path}: it names the CSV file, beside which the JSON comes: give {path.stem}.csv")
    if asked.resolve() in (path.resolve(), (path.parent / f"{path.stem}.json").resolve()):
        raise UsageError(f"--report {path}: the report would replace the list {asked}: give another name")


def write(path: Path, rows: Sequence[RowReport]) -> None:
    """Write the report as CSV, and as JSON beside it.

    Raises:
        OSError: it cannot be written.
    """
    write_csv(path, COLUMNS, (one.shown for one in rows))
    write_whole(path.with_suffix(".json"), as_json(rows) + "\n")
