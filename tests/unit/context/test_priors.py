"""Which prior scans are fetched, when, and how long a study waits."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomnode.config import Config, PriorsTable, WorklistTable
from dicomnode.context import prefetch, priors, worklist
from dicomnode.errors import PeerRejectedError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order
from dicomnode.store.identity import patient_hash, whose
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import results_folder
from tests.helpers import report_cases as cases
from tests.helpers.answering import Answering
from tests.helpers.ports import free_port

METHOD = "34" * 32


@pytest.fixture
def archive() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def configured(folder: Path, port: int, **more: object) -> Config:
    table = PriorsTable(ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_s=5.0, **more)  # type: ignore[arg-type]
    return Config(priors=table).resolved(folder)


def series(**attributes: object) -> Dataset:
    made = Dataset()
    made.SeriesInstanceUID, made.Modality, made.SeriesDescription, made.BodyPartExamined = "1.1", "CT", "", ""
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def named(one: Dataset) -> Dataset:
    """A series whose UID is a patient's name."""
    one["SeriesInstanceUID"] = DataElement("SeriesInstanceUID", "UI", "Doe^Jane", validation_mode=IGNORE)
    return one


SUITABLE = [
    ("CT thorax", series(), True),
    ("", series(BodyPartExamined="CHEST"), True),
    ("", series(SeriesDescription="Poumons 1.5"), True),
    ("", series(SeriesDescription="胸部CT"), True),
    ("CT abdomen", series(), False),
    ("", series(), False),
    ("CT thorax", series(Modality="SR"), False),
    ("CT thorax", series(Modality="SEG"), False),
    ("CT thorax", series(SeriesDescription="Dose report"), False),
    ("CT thorax", named(series()), False),
    ("CT thorax", series(SeriesInstanceUID=""), False),
]


@pytest.mark.parametrize(("study", "one", "expected"), SUITABLE)
def test_series_of_the_chest_are_fetched(study: str, one: Dataset, expected: bool) -> None:
    table = PriorsTable(ae_title="A", host="h", port=1, description_exclude=("dose",))
    assert priors.suitable(study, [one], table) == (("1.1",) if expected else ())


def listed(uid: str, day: str, **attributes: object) -> Dataset:
    made = Dataset()
    made.add(DataElement("StudyInstanceUID", "UI", uid, validation_mode=IGNORE))
    made.PatientID, made.IssuerOfPatientID = "PAT-0001", "HOSPITAL"
    made.StudyDate, made.StudyTime, made.StudyDescription = day, "101500", "CT thorax"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def holds(archive: Answering, *studies: Dataset) -> None:
    def answer(event: object) -> Iterator[tuple[int, Dataset]]:
        question = archive.asked[-1]
        if question.QueryRetrieveLevel == "STUDY":
            yield from ((0xFF00, s) for s in studies)
        else:
            yield 0xFF00, series(SeriesInstanceUID=f"{question.StudyInstanceUID}.1")

    archive.find = answer  # type: ignore[assignment]


def test_the_latest_of_this_patient_but_not_the_study_itself(archive: Answering, tmp_path: Path) -> None:
    holds(
        archive,
        listed("1.2.1", "20210301"),
        listed("1.2.3", "20260101"),
        listed("1.2.5", "20250301"),
        listed("1.2.4", "20230301"),
        listed("Doe^Jane", "20250401"),
        listed("1.2.7", "20260101", StudyTime="101112"),  # not earlier: the two would wait for each other
        listed("1.2.9", "20240301", IssuerOfPatientID="ELSEWHERE"),
        listed("1.2.8", "20240302", PatientID="PAT-00010"),
    )
    settings = configured(tmp_path, archive.port, most=2)
    assert settings.priors is not None
    found = priors.search(settings.priors, cases.synthetic(1)[0], "20260101 101112", "1.2.3")
    assert [(s.study_uid, s.series_uids) for s in found] == [("1.2.5", ("1.2.5.1",)), ("1.2.4", ("1.2.4.1",))]
    assert archive.asked[0].StudyDate == "20160102-20260101"
    assert archive.asked[0].ModalitiesInStudy == "CT"


@pytest.mark.parametrize("cut", ["_MOST_STUDIES", "_MOST_SERIES"])
def test_of_a_list_that_was_cut_short_no_prior_is_chosen(
    archive: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    monkeypatch.setattr(priors, cut, 1)
    holds(archive, listed("1.2.1", "20210301"), *([listed("1.2.2", "20220301")] if cut == "_MOST_STUDIES" else []))
    if cut == "_MOST_SERIES":
        whole = archive.find

        def twice(event: object) -> Iterator[tuple[int, Dataset]]:
            yield from whole(event)  # type: ignore[arg-type]
            if archive.asked[-1].QueryRetrieveLevel == "SERIES":
                yield 0xFF00, series(SeriesInstanceUID="1.2.1.2")

        archive.find = twice  # type: ignore[assignment, method-assign]
    settings = configured(tmp_path, archive.port)
    assert settings.priors is not None
    with pytest.raises(PeerRejectedError, match="lists more than 1 "):
        priors.search(settings.priors, cases.synthetic(1)[0], "20260101 101112", "1.2.3")


def test_nobody_is_asked_about_a_patient_without_an_id(archive: Answering, tmp_path: Path) -> None:
    patient = cases.synthetic(1)[0]
    patient.PatientID = ""
    settings = configured(tmp_path, archive.port)
    assert settings.priors is not None
    assert priors.search(settings.priors, cases.reread(patient), "20260101 101112", "1.2.3") == []
    assert archive.asked == []


class Waiting:
    """A study that has settled, and what the node knows of prior ones."""

    def __init__(self, folder: Path, port: int, **more: object) -> None:
        self.config = configured(folder, port, **more)
        self.catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
        path = folder / "image.dcm"
        path.write_bytes(cases.to_bytes(cases.synthetic(1)[0]))
        self.patient = whose(cases.reread(cases.synthetic(1)[0]))
        self.catalog.record(
            Instance("1", "1.2", "1.2.3", "1.3", str(path), "1", 1, 1.0, None, self.patient, modality="CT")
        )
        self.catalog.settle("1.2.3", time.time(), None)

    def look(self, attempt: int = 1, waited: float = 0.0) -> priors.PriorsWait:
        return priors.look(self.config, self.catalog, METHOD, "1.2.3", 1, attempt, waited)

    def doubts(self) -> tuple[str, ...]:
        return priors.doubts(results_folder(self.config.storage.results, "1.2.3", 1))

    def arrives(self, uid: str, patient: str | None = None, digest: str = METHOD) -> None:
        self.catalog.record(Instance(uid, "1.2", uid, f"{uid}.1", "/x", uid, 1, 1.0, None, patient or self.patient))
        generation = self.catalog.settle(uid, 1.0, None).generation
        self.catalog.set_state(uid, generation, "analysed", now=2.0)
        folder = results_folder(self.config.storage.results, uid, generation)
        folder.mkdir(parents=True)
        found = cases.analysed(study_uid=uid)
        assert found.algorithm_digest == METHOD
        (folder / "findings.json").write_text(found.to_json().replace(METHOD, digest), "utf-8")


def test_a_study_waits_until_what_was_wanted_has_been_analysed(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port)
    first = waiting.look()
    assert first.wanted == ("1.2.5",)
    assert 0 < first.pause_s <= 30
    assert waiting.look(2).pause_s > 0
    assert len(archive.asked) == 2  # study and series: the second look asks nobody
    waiting.catalog.mark_prior("1.2.5", "fetched")
    assert waiting.look(3).pause_s > 0
    waiting.arrives("1.2.5")
    assert waiting.look(4) == priors.PriorsWait(0.0)
    assert waiting.doubts() == ()


def test_what_was_analysed_with_this_method_is_not_fetched_again(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port)
    waiting.arrives("1.2.5")
    assert waiting.look() == priors.PriorsWait(0.0)
    assert waiting.catalog.prior("1.2.5") is None


def test_a_scan_that_came_by_itself_is_waited_for_and_stays_what_it_is(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port)
    waiting.catalog.record(Instance("5", "1.2", "1.2.5", "1.3", "/x", "5", 1, 1.0, None, waiting.patient))
    outlook = waiting.look()
    assert (outlook.wanted, outlook.pause_s > 0) == ((), True)
    waiting.catalog.settle("1.2.5", 1.0, None)
    assert waiting.look(2).pause_s > 0
    assert not waiting.catalog.is_prior("1.2.5")  # its results go to the destinations
    waiting.catalog.set_state("1.2.5", 1, "delivered", now=2.0)
    assert waiting.look(3).pause_s == 0
    assert waiting.doubts() == ()


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_a_person_has_to_decide_is_left_alone(archive: Answering, tmp_path: Path, state: str) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port)
    waiting.catalog.record(Instance("5", "1.2", "1.2.5", "1.3", "/x", "5", 1, 1.0, None, waiting.patient))
    waiting.catalog.settle("1.2.5", 1.0, None)
    waiting.catalog.set_state("1.2.5", 1, state, now=2.0)  # type: ignore[arg-type]
    assert waiting.look() == priors.PriorsWait(0.0)
    assert waiting.catalog.awaited("1.2.3") == []


def test_an_answer_that_cannot_be_read_stops_no_study(
    archive: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> tuple[str, ...]:
        raise LookupError("Secret^Name")

    holds(archive, listed("1.2.5", "20250301"))
    monkeypatch.setattr(priors, "suitable", broken)
    waiting = Waiting(tmp_path, archive.port)
    assert waiting.look().pause_s == 0
    assert waiting.doubts() == ("priors-unknown",)


def test_what_was_analysed_with_another_method_is_analysed_once_more(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port)
    waiting.arrives("1.2.5", digest="99" * 32)
    outlook = waiting.look()
    assert (outlook.wanted, outlook.pause_s > 0) == ((), True)
    study = waiting.catalog.study("1.2.5")
    assert study is not None
    assert study.state == "receiving"  # its images are here: it settles again, as a prior scan
    assert waiting.catalog.is_prior("1.2.5")


@pytest.mark.parametrize(
    ("state", "text", "doubt"),
    [
        ("refused", "status 0xA801", "prior-not-retrieved"),
        ("failed", "no connection", "prior-not-retrieved"),
        ("fetching", "no connection", "prior-not-retrieved"),
        ("fetching", None, "priors-late"),
        ("wanted", None, "priors-late"),
        ("fetched", None, "priors-late"),
    ],
)
def test_a_study_that_has_waited_long_enough_says_what_lacks(
    archive: Answering, tmp_path: Path, state: str, text: str | None, doubt: str
) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port, wait_s=10.0)
    assert waiting.look(waited=9.5).pause_s == pytest.approx(0.5)
    waiting.catalog.mark_prior("1.2.5", state, text)  # type: ignore[arg-type]
    assert waiting.look(2, waited=10.0).pause_s == 0
    assert waiting.doubts() == (doubt,)


def test_a_refusal_is_not_waited_for(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301"))
    waiting = Waiting(tmp_path, archive.port, wait_s=3600.0)
    assert waiting.look().pause_s > 0
    waiting.catalog.mark_prior("1.2.5", "refused", "status 0xA801")
    assert waiting.look(2).pause_s == 0
    assert waiting.doubts() == ("prior-not-retrieved",)


def test_a_scan_that_turns_out_to_be_somebody_else_s_is_named(archive: Answering, tmp_path: Path) -> None:
    holds(archive, listed("1.2.5", "20250301", IssuerOfPatientID=None))
    waiting = Waiting(tmp_path, archive.port)
    waiting.look()
    waiting.catalog.mark_prior("1.2.5", "fetched")
    waiting.arrives("1.2.5", patient_hash(b"PAT-0001", b"ELSEWHERE"))
    assert waiting.look(2).pause_s == 0
    assert waiting.doubts() == ("prior-other-patient",)


def test_an_archive_that_is_away_is_asked_again_and_then_named(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, free_port(), wait_s=3600.0)
    assert waiting.look().pause_s > 0
    assert waiting.look(2).pause_s > 0
    (tmp_path / "other").mkdir()
    away = Waiting(tmp_path / "other", free_port(), wait_s=0.0)
    assert away.look().pause_s == 0
    assert away.doubts() == ("priors-unknown",)


def test_a_fetched_scan_waits_for_nobody(archive: Answering, tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, archive.port)
    holds(archive, listed("1.2.5", "20250301"))
    waiting.look()
    waiting.catalog.mark_prior("1.2.5", "fetching")
    waiting.catalog.record(Instance("5", "1.2", "1.2.5", "1.3", "/x", "5", 1, 1.0, None, waiting.patient))
    waiting.catalog.settle("1.2.5", 1.0, None)
    asked = len(archive.asked)
    outlook = priors.look(waiting.config, waiting.catalog, METHOD, "1.2.5", 1, 1, 0.0)
    assert (outlook, len(archive.asked)) == (priors.PriorsWait(0.0), asked)


# The clock


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        ("", "12:00", True),
        ("08:00-10:00", "08:00", True),
        ("08:00-10:00", "10:00", False),
        ("19:00-06:00", "23:30", True),
        ("19:00-06:00", "05:59", True),
        ("19:00-06:00", "06:00", False),
        ("19:00-06:00", "18:59", False),
    ],
)
def test_quiet_hours(hours: str, moment: str, expected: bool) -> None:
    table = PriorsTable(ae_title="A", host="h", port=1, quiet_hours=hours)
    now = datetime.strptime(f"20260102 {moment}", "%Y%m%d %H:%M").astimezone().timestamp()
    assert prefetch.is_quiet(table, now) is expected


def test_today_is_the_ris_s() -> None:
    late = datetime(2026, 1, 2, 23, 30, tzinfo=UTC).timestamp()
    days = {zone: worklist.today(_list(zone), late).day for zone in ("UTC", "Asia/Tokyo", "America/New_York")}
    assert days == {"UTC": 2, "Asia/Tokyo": 3, "America/New_York": 2}


def _list(zone: str = "UTC") -> WorklistTable:
    return WorklistTable(ae_title="RIS", host="h", port=1, time_zone=zone)


@pytest.mark.parametrize(("hours", "expected"), [("", 1), ("00:00-00:01", 0)])
def test_one_look_for_each_expected_patient(tmp_path: Path, hours: str, expected: int) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    now = datetime(2026, 1, 2, 12, 0, tzinfo=UTC).timestamp()
    days = {"1": "20260102", "2": "20260102", "3": "20260105"}
    catalog.remember_orders([Order(k, "a" * 32, f"1.{k}", "", f"{d} 080000", b"", now) for k, d in days.items()])
    table = PriorsTable(ae_title="A", host="h", port=1, quiet_hours=hours)
    assert len(prefetch.due(Config(worklist=_list(), priors=table), catalog, now)) == expected
    assert prefetch.due(Config(priors=table), catalog, now) == []
    catalog.close()


def test_the_broad_query_asks_for_days_modality_and_stations(tmp_path: Path) -> None:
    ris = Answering()
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    try:
        item = Dataset()
        item.PatientID, item.StudyInstanceUID, item.AccessionNumber = "P1", "1.2", "A1"
        step = Dataset()
        step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260102", "101500.00"
        item.ScheduledProcedureStepSequence = [step]
        ris.find = lambda _event: iter([(0xFF00, item)])
        table = WorklistTable(
            ae_title="RIS", host="127.0.0.1", port=ris.port, station_ae_titles=("CT1", "CT2"), time_zone="UTC"
        )
        now = datetime(2026, 1, 2, 12, 0, tzinfo=UTC).timestamp()
        assert worklist.refresh(Config(worklist=table), catalog, now) == 1
        steps = [q.ScheduledProcedureStepSequence[0] for q in ris.asked]
        assert [s.ScheduledStationAETitle for s in steps] == ["CT1", "CT2"]
        assert {(s.ScheduledProcedureStepStartDate, s.Modality) for s in steps} == {("20260101-20260103", "CT")}
        (order,) = catalog.orders_between("20260102", "20260102")
        assert (order.scheduled, order.accession_number) == ("20260102 101500", "A1")
        (row,) = worklist.overview(catalog, date(2026, 1, 2))
        assert (row["patient_id"], row["state"], row["others"]) == ("P1", "not received", [])
    finally:
        ris.close()
        catalog.close()
