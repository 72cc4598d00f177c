"""Which study a row means: exactly one, or none and the reason."""

from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset

from dicomnode.config import PriorsTable
from dicomnode.context import cohort
from dicomnode.context.cohort import AskedStudy, look_up
from tests.helpers.answering import Answering

ROW = AskedStudy("P-1", "", "", "20240331", "")


@pytest.fixture
def archive() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def study(uid: str, **values: str) -> Dataset:
    made = Dataset()
    made.StudyInstanceUID, made.PatientID, made.StudyDate, made.AccessionNumber = uid, "P-1", "20240331", "A1"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def series(uid: str, modality: str, images: int | None, description: str = "") -> Dataset:
    made = Dataset()
    made.SeriesInstanceUID, made.Modality, made.SeriesDescription = uid, modality, description
    if images is not None:
        made.NumberOfSeriesRelatedInstances = images
    return made


def holds(archive: Answering, studies: list[Dataset], of_study: dict[str, list[Dataset]] | None = None) -> PriorsTable:
    def answer(_event: object) -> Iterator[tuple[int, Dataset]]:
        asked = archive.asked[-1]
        if asked.QueryRetrieveLevel == "STUDY":
            found = studies
        else:
            uid = asked.StudyInstanceUID
            found = (of_study or {}).get(uid, [series(f"{uid}.1", "CT", 60)])
        yield from ((0xFF00, one) for one in found)

    archive.find = answer  # type: ignore[assignment]
    return PriorsTable(
        ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, timeout_s=5.0, description_exclude=("dose",)
    ).called_as("NODE")


def test_one_study_with_the_images_of_its_wanted_series(archive: Answering) -> None:
    listed = [series("1.2.1", "CT", 60), series("1.2.2", "CT", 2, "Dose report"), series("1.2.3", "SR", 1)]
    table = holds(archive, [study("1.2"), study("1.2")], {"1.2": [*listed, series("1.2.4", "CT", 40)]})
    found = look_up(table, ROW)
    assert found.found == 1 and found.study is not None
    assert (found.study.study_uid, found.study.series_uids, found.study.images) == ("1.2", ("1.2.1", "1.2.4"), 100)
    assert (archive.asked[0].PatientID, archive.asked[0].StudyDate) == ("P-1", "20240331")


def test_a_pacs_that_does_not_count_is_not_guessed_for(archive: Answering) -> None:
    table = holds(archive, [study("1.2")], {"1.2": [series("1.2.1", "CT", 60), series("1.2.2", "CT", None)]})
    found = look_up(table, ROW).study
    assert found is not None and found.images is None


@pytest.mark.parametrize(
    ("row", "answers", "state", "count"),
    [
        (ROW, [], "not-found", 0),
        (ROW, [study("1.2", PatientID="P-10")], "wrong-patient", 0),
        (ROW, [study("1.2", PatientID="")], "wrong-patient", 0),
        (ROW, [study("1.2", PatientID="p-1")], "wrong-patient", 0),
        (ROW, [study("1.2", StudyDate="20240401")], "not-found", 0),
        (ROW, [study("1.2"), study("1.3")], "ambiguous", 2),
        (ROW, [study(f"1.2.{n}") for n in range(11)], "ambiguous", 11),
        (AskedStudy("P-1", "HOSP1", "", "20240331", ""), [study("1.2", IssuerOfPatientID="HOSP2")], "wrong-patient", 0),
        (AskedStudy("P-1", "", "A1", "", ""), [study("1.2", PatientID="P-2")], "wrong-patient", 0),
        (AskedStudy("", "", "A1", "", ""), [study("1.2", AccessionNumber="A10")], "not-found", 0),
        (AskedStudy("P-1", "", "", "", "1.2"), [study("1.3")], "not-found", 0),
        (AskedStudy("P-2", "", "", "", "1.2"), [study("1.2")], "wrong-patient", 0),
    ],
)
def test_no_study_is_guessed(
    archive: Answering, row: AskedStudy, answers: list[Dataset], state: str, count: int
) -> None:
    found = look_up(holds(archive, answers), row)
    assert (found.study, found.state, found.found) == (None, state, count)
    assert found.reason and "P-" not in found.reason


def test_of_several_the_only_one_with_a_wanted_series_is_meant(archive: Answering) -> None:
    table = holds(archive, [study("1.2"), study("1.3")], {"1.2": [series("1.2.1", "MR", 9)]})
    found = look_up(table, ROW)
    assert found.found == 2 and found.study is not None and found.study.study_uid == "1.3"
    without = holds(archive, [study("1.2")], {"1.2": [series("1.2.1", "MR", 9)]})
    assert look_up(without, ROW).state == "no-series"


def test_another_patients_answer_beside_the_right_one_is_left_out(archive: Answering) -> None:
    found = look_up(holds(archive, [study("1.3", PatientID="P-9"), study("1.2")]), ROW)
    assert found.found == 1 and found.study is not None and found.study.study_uid == "1.2"


@pytest.mark.parametrize(
    "answers",
    [
        [study("1.2"), *(study(f"1.3.{n}", StudyDate="20240401") for n in range(61))],
        [study(f"1.3.{n}", StudyDate="20240401") for n in range(62)],
        [study(f"1.3.{n}", PatientID="P-9") for n in range(62)],
    ],
)
def test_of_an_answer_that_was_cut_short_nothing_is_chosen(archive: Answering, answers: list[Dataset]) -> None:
    found = look_up(holds(archive, answers), ROW)
    assert (found.study, found.state) == (None, "ambiguous")
    assert found.reason == "the PACS lists more than 50 studies for the row: name it by study_uid"


def test_a_study_that_was_named_is_meant_whatever_else_is_listed(archive: Answering) -> None:
    row = AskedStudy("P-1", "", "", "", "1.2")
    others = [study(f"1.3.{n}") for n in range(61)]
    named = look_up(holds(archive, [study("1.2"), *others]), row)
    assert named.found == 1 and named.study is not None and named.study.study_uid == "1.2"
    unlisted = look_up(holds(archive, others), row)
    assert (unlisted.state, "it does not search by study_uid" in unlisted.reason) == ("ambiguous", True)


def test_of_series_that_were_cut_short_none_are_chosen(archive: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_MOST_SERIES", 5)
    many = [series(f"1.2.{n}", "CT" if n == 0 else "MR", 1) for n in range(7)]
    found = look_up(holds(archive, [study("1.2"), study("1.3")], {"1.2": many}), ROW)
    assert (found.study, found.state, found.found) == (None, "ambiguous", 2)
    assert found.reason.startswith("the PACS lists more than 5 series of study 1.2: ")
