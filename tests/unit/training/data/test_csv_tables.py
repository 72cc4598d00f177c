"""Every fault in a table is named with file, row, column, value and cure."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from training.data import csv_tables

COLUMNS = {
    "patient": csv_tables.name,
    "seen": csv_tables.maybe(csv_tables.day),
    "age": csv_tables.number(0, 120),
    "sex": csv_tables.one_of("F", "M"),
}
HEADER = "patient,seen,age,sex\n"
SOON = (date.today() + timedelta(days=2)).isoformat()  # the tests may run past midnight


def test_values_are_parsed_and_empty_ones_are_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + HEADER + "P1, 2020-02-29 ,55.5,F\nP2,,0,M\n", encoding="utf-8")
    table = csv_tables.read(path, COLUMNS)
    assert table.columns == {
        "patient": ["P1", "P2"], "seen": [date(2020, 2, 29), None], "age": [55.5, 0.0], "sex": ["F", "M"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "P1,2020-13-01,5,F\n", "t.csv, row 2, column seen: '2020-13-01' is not a valid date: write"),
        (
            HEADER + "P1,,5,F\nP2,1.2.2020,5,F\n",
            "row 3, column seen: '1.2.2020' is not a date (day and month cannot be told apart): write it as YYYY-MM-DD",
        ),
        (HEADER + f"P1,{SOON},5,F\n", f"row 2, column seen: '{SOON}' is in the future: correct"),
        (
            HEADER + "P1,,130,F\n",
            "row 2, column age: '130' is not between 0 and 120: correct the value or check the unit",
        ),
        (HEADER + "P1,,nan,F\n", "row 2, column age: 'nan' is not between"),
        (HEADER + "P1,,x,F\n", "row 2, column age: 'x' is not a number: write it with a decimal point"),
        (HEADER + "P1,,5,W\n", "row 2, column sex: 'W' is not allowed: use 'F', 'M'"),
        (HEADER + "../x,,5,F\n", "row 2, column patient: '../x' is not a valid pseudonym"),
        (HEADER + "P1,5,F\n", "row 2: 3 values for 4 columns: give one per column"),
        (HEADER, "has a header but no rows"),
        ("patient,seen,sex\nP1,,F\n", "row 1: missing column age: the columns are patient, seen, age, sex"),
        ("patient,seen,age,sex,agee\n", "row 1: unknown column 'agee': perhaps you meant 'age'"),
        ("patient,seen,age,sex,sex\n", "row 1: the column 'sex' occurs twice"),
        ("", "row 1: missing column patient"),
        ('patient,seen,age,sex\n"P1,,5,F\n', "is not a CSV file in UTF-8"),
    ],
)
def test_a_fault_is_named_with_its_place_and_cure(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        csv_tables.read(tmp_path / "t.csv", COLUMNS)
    assert message in str(refused.value)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"t\.csv does not exist: provide a CSV file with the columns patient, seen"):
        csv_tables.read(tmp_path / "t.csv", COLUMNS)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00P")
    with pytest.raises(UsageError, match="is not a CSV file in UTF-8"):
        csv_tables.read(tmp_path / "t.csv", COLUMNS)
