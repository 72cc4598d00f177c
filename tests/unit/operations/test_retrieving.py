"""A cohort by list: a PACS that lies, is away or sends too little, and a study that is not the patient's."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.config import Config
from dicomnode.errors import PeerError, UsageError
from dicomnode.files import write_whole
from dicomnode.network import move
from dicomnode.operations import retrieving
from dicomnode.operations.cohort_list import CohortRow
from dicomnode.operations.pacing import Pacing, Rate
from dicomnode.operations.retrieve_report import RetrieveJournal, RowReport
from dicomnode.operations.retrieving import RetrieveOptions
from dicomnode.registry_format.identity import patient_hash
from dicomnode.service.clock import Housekeeping
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, JobState
from dicomnode.workflows.queue import Queue
from tests.helpers.answering import Answering

QUICK = RetrieveOptions(Rate())


class NoQueue:
    def enqueue(self, _study_uid: str, _generation: int, **_more: object) -> None:
        """Nobody takes it."""


class Pacs:
    """Lists a study for each accession number; its images come as `sends` says."""

    def __init__(self, folder: Path) -> None:
        self.archive = Answering()
        self.archive.find = self._find  # type: ignore[assignment]
        path = folder / "node" / "ae_config.toml"
        path.parent.mkdir()
        path.write_text(
            "[settle]\nrelease_s = 0\n[storage]\nminimum_free_gb = 0.01\nlow_free_gb = 0.01\n"
            f'[priors]\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {self.archive.port}\ntimeout_s = 5\n'
        )
        self.config: Config = config.load(path)
        self.config.storage.state.mkdir(parents=True)
        write_whole(self.config.storage.state / process_names.SERVE, process_names.current() + "\n")
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        self.moved: list[str] = []
        #: By study UID: how many of its 3 images come, and whose they say they are.
        self.sends: dict[str, tuple[int, str]] = {}
        self.listed: dict[str, str] = {}

    def _find(self, _event: object) -> Iterator[tuple[int, Dataset]]:
        asked, found = self.archive.asked[-1], Dataset()
        if asked.QueryRetrieveLevel == "SERIES":
            found.SeriesInstanceUID, found.Modality = f"{asked.StudyInstanceUID}.1", "CT"
            found.NumberOfSeriesRelatedInstances = 3
        else:
            number = str(asked.AccessionNumber)
            found.StudyInstanceUID = self.listed.get(number, f"1.2.{number}")
            found.AccessionNumber, found.PatientID = number, f"P{number}"
        yield 0xFF00, found

    def move(self, _peer: object, identifier: Dataset, _to: str) -> move.Retrieved:
        uid = str(identifier.StudyInstanceUID)
        self.moved.append(uid)
        count, patient = self.sends.get(uid, (3, f"P{uid.rpartition('.')[2]}"))
        if count < 0:
            raise PeerError("the archive is away")
        whose = self.catalog.patient_key.keyed(patient_hash(patient.encode(), b""))
        for number in range(count):
            one = f"{uid}.1.{number}"
            row = self.catalog.begin_association("run", "ARCHIVE", "DICOMNODE", "127.0.0.1", time.time())
            self.catalog.record(Instance(one, "1.9", uid, f"{uid}.1", "/x", one, 1, time.time(), row, whose))
            self.catalog.end_association(row, "released", time.time())
        return move.Retrieved(count, 3 - count)

    def ask(self, folder: Path, *rows: str, options: RetrieveOptions = QUICK) -> dict[int, RowReport]:
        path = folder / "list.csv"
        path.write_text("patient_id,accession\n" + "\n".join(rows))
        return {one.row: one for one in retrieving.run(self.config, path, options)}


@pytest.fixture
def pacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pacs]:
    made = Pacs(tmp_path)
    monkeypatch.setattr(move, "move", made.move)
    monkeypatch.setattr(Pacing, "after_failure", lambda _self, _seconds: None)
    yield made
    made.catalog.close()
    made.archive.close()


def states(rows: dict[int, RowReport]) -> list[str]:
    return [one.state for one in rows.values()]


def test_the_journal_grows_by_a_line_and_survives_a_cut(tmp_path: Path) -> None:
    rows = [CohortRow(number, f"P{number}") for number in range(2, 6)]
    journal = RetrieveJournal(tmp_path, rows)
    assert journal.read() == ([], None)
    reports = {row.number: RowReport(row.number) for row in rows}
    for number, at in ((2, 1.0), (3, 2.0), (2, 3.0)):
        reports[number] = replace(reports[number], state="retrieved" if at > 2 else "fetching", series_uids=("1.2",))
        journal.note(reports[number], reports.values(), at)
    (path,) = (tmp_path / "retrieve").iterdir()
    whole = path.read_bytes()
    assert [line.count(b'"row":') for line in whole.splitlines()] == [1, 1, 1]
    assert path.stat().st_mode & 0o077 == 0
    assert RetrieveJournal(tmp_path, rows).read() == ([reports[2], reports[3]], 3.0)
    # Killed within the last line: it says what the lines before say, and goes on from there.
    path.write_bytes(whole[:-5])
    again = RetrieveJournal(tmp_path, rows)
    assert again.read() == ([replace(reports[2], state="fetching"), reports[3]], 2.0)
    again.note(reports[2], reports.values(), 4.0)
    again.note(replace(reports[3], state="retrieved"), reports.values(), 5.0)
    assert len(path.read_text().splitlines()) == 2
    assert RetrieveJournal(tmp_path, rows).read() == ([reports[2], replace(reports[3], state="retrieved")], 5.0)


def test_a_journal_of_the_version_before_is_read_and_replaced(tmp_path: Path) -> None:
    rows = [CohortRow(2, "P")]
    journal = RetrieveJournal(tmp_path, rows)
    done = RowReport(2, "retrieved", 1, "1.2", series_uids=("1.2.3",))
    former = journal._path.with_suffix(".json")
    write_whole(former, json.dumps({"last_at": 7.0, "rows": [asdict(done)]}))
    assert journal.read() == ([done], 7.0)
    journal.note(done, [done], 8.0)
    assert not former.exists() and RetrieveJournal(tmp_path, rows).read() == ([done], 8.0)


def test_each_row_once_and_what_is_known_is_not_fetched_again(pacs: Pacs, tmp_path: Path) -> None:
    pacs.listed["3"] = "1.2.1"
    found = pacs.ask(tmp_path, ",1", "P2,2", ",3", "OTHER,4")
    assert states(found) == ["retrieved", "retrieved", "duplicate", "wrong-patient"]
    assert (found[2].expected, found[2].retrieved, found[2].job) == (3, 3, "receiving")
    assert pacs.ask(tmp_path, ",1", "P2,2", ",3", "OTHER,4") == found  # the same list
    assert states(pacs.ask(tmp_path, ",2", ",1")) == ["present", "present"]  # another one
    assert pacs.moved == ["1.2.1", "1.2.2"]
    noted = pacs.catalog.bulk("1.2.1")
    assert noted is not None and noted.keep and noted.ended_at is not None


def test_images_of_another_patient_are_held_and_told(pacs: Pacs, tmp_path: Path) -> None:
    pacs.sends["1.2.1"] = (3, "SOMEBODY")
    found = pacs.ask(tmp_path, "P1,1", ",2")
    assert states(found) == ["wrong-patient", "retrieved"]
    clock = Housekeeping(pacs.config, pacs.catalog, cast(Queue, NoQueue()), clock=lambda: time.time() + 3600)
    clock._since = 0.0
    assert clock.settle() == [("1.2.2", 1)]
    job = pacs.catalog.job("1.2.1", 1)
    assert job is not None and (job.state, job.reason) == ("held", "other-patient")


def test_what_lacks_images_is_told_and_asked_for_again_on_demand(pacs: Pacs, tmp_path: Path) -> None:
    pacs.sends["1.2.1"] = (2, "P1")
    (one,) = pacs.ask(tmp_path, ",1").values()
    assert (one.state, one.retrieved, one.expected) == ("incomplete", 2, 3)
    assert one.reason == "1 of 3 images missing, 1 of which the PACS could not send"
    pacs.sends.clear()
    assert states(pacs.ask(tmp_path, ",1")) == ["incomplete"]
    again = RetrieveOptions(Rate(), again=True)
    assert states(pacs.ask(tmp_path, ",1", options=again)) == ["retrieved"]


def test_one_study_that_fails_holds_up_no_other(pacs: Pacs, tmp_path: Path) -> None:
    pacs.sends["1.2.1"] = (-1, "")
    found = pacs.ask(tmp_path, ",1", ",2", ",3")
    assert states(found) == ["failed", "retrieved", "retrieved"]
    assert pacs.moved == ["1.2.1", "1.2.2", "1.2.3", "1.2.1", "1.2.1"]
    assert pacs.catalog.bulk("1.2.1") is None  # whoever sends it, sends it as any other
    pacs.sends.clear()
    assert states(pacs.ask(tmp_path, ",1", ",2", ",3")) == ["retrieved"] * 3


def test_a_pacs_that_is_away_stops_it_and_nothing_is_lost(pacs: Pacs, tmp_path: Path) -> None:
    pacs.sends |= {f"1.2.{n}": (-1, "") for n in range(2, 9)}
    reported: list[RowReport] = []
    path = tmp_path / "list.csv"
    path.write_text("accession\n" + "\n".join(map(str, range(1, 9))))
    with pytest.raises(PeerError):
        retrieving.run(pacs.config, path, QUICK, report=reported.extend)
    assert [one.state for one in reported] == ["retrieved", *["fetching"] * 3, *["pending"] * 4]
    pacs.sends.clear()
    found = retrieving.run(pacs.config, path, QUICK)
    assert [one.state for one in found] == ["retrieved"] * 8
    assert pacs.moved.count("1.2.1") == 1


def test_what_came_by_itself_stays_everybodys(pacs: Pacs, tmp_path: Path) -> None:
    pacs.catalog.record(Instance("1.2.1.1.0", "1.9", "1.2.1", "1.2.1.1", "/x", "0", 1, 1.0, None, "a" * 32))
    (one,) = pacs.ask(tmp_path, ",1").values()
    assert (one.state, one.retrieved, pacs.moved) == ("present", 1, [])
    assert pacs.catalog.bulk("1.2.1") is None


def test_results_that_stayed_here_are_sent_when_the_list_says_so(pacs: Pacs, tmp_path: Path) -> None:
    pacs.ask(tmp_path, ",1")
    pacs.catalog.settle("1.2.1", time.time(), None)
    pacs.catalog.set_state("1.2.1", 1, "analysed", now=time.time())
    found = pacs.ask(tmp_path, ",1", ",2", options=RetrieveOptions(Rate(), send=True))
    assert states(found) == ["present", "retrieved"]
    noted, study = pacs.catalog.bulk("1.2.1"), pacs.catalog.study("1.2.1")
    assert noted is not None and not noted.keep
    assert study is not None and study.state == "receiving"  # it settles once more, and goes out
    pacs.ask(tmp_path, ",3")
    pacs.ask(tmp_path, ",3", options=RetrieveOptions(Rate(), send=True))  # the same list
    same = pacs.catalog.bulk("1.2.3")
    assert same is not None and not same.keep


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "its results are sent when it has been analysed"),
        ("running", "its results are sent when it has been analysed"),
        ("held", "it is held, and its results are sent once it is released"),
        ("analysed", "its results are sent now"),
        ("ignored", "nothing of it is sent: it is ignored"),
        ("cancelled", "nothing of it is sent: it is cancelled"),
    ],
)
def test_of_results_that_stayed_here_only_what_is_true_is_told(
    pacs: Pacs, tmp_path: Path, state: JobState | None, told: str
) -> None:
    pacs.ask(tmp_path, ",1")
    if state is not None:
        pacs.catalog.settle("1.2.1", time.time(), None)
        pacs.catalog.set_state("1.2.1", 1, state, now=time.time())
    one, _ = pacs.ask(tmp_path, ",1", ",2", options=RetrieveOptions(Rate(), send=True)).values()
    assert one.reason == f"an earlier list, or an import, has brought it; {told}"


def test_a_dry_run_only_asks(pacs: Pacs, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("patient_id,accession\n,1\nX,2\n")
    found = retrieving.run(pacs.config, path, QUICK, dry_run=True)
    assert [(one.state, one.study_uid) for one in found] == [("pending", "1.2.1"), ("wrong-patient", "")]
    assert pacs.moved == [] and not (pacs.config.storage.state / "retrieve").exists()


def test_where_it_cannot_work_it_says_so(pacs: Pacs, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("accession\n1\n")
    with pytest.raises(UsageError, match="no \\[priors\\] table"):
        retrieving.run(pacs.config.model_copy(update={"priors": None}), path, QUICK)
    (pacs.config.storage.state / process_names.SERVE).unlink()
    with pytest.raises(UsageError, match="the node does not run"):
        retrieving.run(pacs.config, path, QUICK)


def test_images_per_second_are_no_rate_of_a_retrieval(pacs: Pacs, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("accession\n1\n")
    asked = ["retrieve", str(path), "--config", str(tmp_path / "node" / "ae_config.toml"), "--rate"]
    with pytest.raises(UsageError, match="--rate: give studies per hour"):
        CliRunner().invoke(app, [*asked, "2/s"], catch_exceptions=False)
    assert pacs.archive.asked == []
    done = CliRunner().invoke(app, [*asked, "0"])
    assert (done.exit_code, pacs.moved) == (0, ["1.2.1"]), done.output


@pytest.mark.parametrize(
    ("name", "why"), [("out.json", "give out.csv"), ("out.JSON", "give out.csv"), ("list.csv", "replace the list")]
)
def test_a_report_that_would_replace_itself_or_the_list_is_refused(
    pacs: Pacs, tmp_path: Path, name: str, why: str
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("accession\n1\n")
    asked = ["retrieve", str(path), "--config", str(tmp_path / "node" / "ae_config.toml")]
    with pytest.raises(UsageError, match=why):
        CliRunner().invoke(app, [*asked, "--report", str(tmp_path / name)], catch_exceptions=False)
    assert pacs.archive.asked == [] and path.read_text() == "accession\n1\n"
