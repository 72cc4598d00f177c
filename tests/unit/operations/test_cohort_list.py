"""A cohort's list as spreadsheets write it: what can be read in one way only is taken, all else is named by its row."""

from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.operations.cohort_list import CohortRow, read

HEADER = "patient_id,study_date,accession_number\n"


def rows(folder: Path, content: str | bytes) -> tuple[CohortRow, ...]:
    path = folder / "cohort.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path)


@pytest.mark.parametrize(
    "content",
    [
        "patient_id,study_date,accession_number\nP-1,2024-03-31,A1\n",
        "\ufeffPatient ID;Study Date;Accession\r\nP-1;31.03.2024;A1\r\n",
        "PatientID\tStudyDate\tAccessionNumber\tgroup\nP-1\t20240331\tA1\tcontrol\n",
        "\ufeffPatient ID\tDate\tAccession\r\nP-1\t2024-03-31 00:00:00\tA1\r\n".encode("utf-16-le"),
        'accession,patient_id,date\n"A1","=""P-1""",45382\n\n,,\n',
        'patient_id,study_date,accession_number\nP-1,"45382.0",\'A1\n',
    ],
)
def test_one_row_however_it_was_saved(tmp_path: Path, content: str | bytes) -> None:
    assert rows(tmp_path, content) == (CohortRow(2, "P-1", "", "A1", "20240331"),)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("P-1,03/04/2024,", "may be two dates"),
        ("P-1,2024-02-30,", "not a day of the calendar"),
        ("P-1,yesterday,", "is not a date"),
        ("P-1,1850-01-01,", "before 1970"),
        ("P-1,2999-01-01,", "in the future"),
        ("P-1,,", "give accession_number, or study_uid, or patient_id and study_date"),
        (",2024-01-01,", "give accession_number, or study_uid, or patient_id and study_date"),
        ("P*,2024-01-01,", "patient_id holds a wild card"),
        ("P\\Q,2024-01-01,", "patient_id holds a wild card, a backslash"),
        (",,A?", "accession_number holds a wild card"),
        (",,1.23457E+12", "shortened"),
        (f",,{'9' * 65}", "longer than 64"),
        ("P-1,2024-01-01,A,B", "more values than row 1 has columns"),
    ],
)
def test_what_may_have_been_spoilt_is_named_by_its_row(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(UsageError, match="nothing was asked for") as refused:
        rows(tmp_path, f"{HEADER}SECRET-7,2024-01-01,\n{row}\n")
    assert "row 3: " in str(refused.value) and said in str(refused.value)
    assert "row 2" not in str(refused.value)


def test_no_message_repeats_whose_row_it_is(tmp_path: Path) -> None:
    for content in (
        f"{HEADER}SECRET*ID,03/04/2024,SECRET?ACC\n",
        "SECRET-ID,2024-01-01,SECRET-ACC\n",  # no header
        'patient_id,study_date\n"SECRET-ID,2024-01-01\n',
    ):
        with pytest.raises(UsageError) as refused:
            rows(tmp_path, content)
        assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04rest", "a workbook"),
        (b"\xd0\xcf\x11\xe0rest", "a workbook"),
        ("patient_id,date\nM\xfcller,2024-01-01\n".encode("latin-1"), "not UTF-8 text"),
        (b"patient_id,date\nA\0B,2024-01-01\n", "zero bytes"),
        ("name,comment\nx,y\n", "it must name the columns"),
        ("patient_id,date,Study Date\nP,2024-01-01,2024-01-01\n", "two columns are called study_date"),
        (HEADER, "no rows below its first"),
        ("", "it must name the columns"),
        ("study_uid\n../../etc/passwd\n", "study_uid is not a UID"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rows(tmp_path, content)


def test_a_list_that_is_not_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.csv")
