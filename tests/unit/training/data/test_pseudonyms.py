"""Pseudonyms hang on the key alone, keep intervals, and the clinic's tables follow."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.errors import UsageError
from training.data import follow_up
from training.data.pseudonyms import LONGEST_SHIFT_DAYS, TABLES, Pseudonyms, of_file, pseudonymise

KEY = Pseudonyms(b"k" * 32)


@given(patient=st.text(min_size=1, max_size=20), days=st.integers(0, 20000))
def test_dates_move_into_the_past_and_intervals_stay(patient: str, days: int) -> None:
    first, later = date(1960, 1, 1), date(1960, 1, 1) + timedelta(days=days)
    moved = KEY.shifted(patient, first), KEY.shifted(patient, later)
    assert 1 <= (first - moved[0]).days <= LONGEST_SHIFT_DAYS and (moved[1] - moved[0]).days == days


def test_names_hang_on_the_key_and_tell_patients_apart() -> None:
    other = Pseudonyms(b"l" * 32)
    names = {p.patient(i) for p in (KEY, other) for i in ("1", "2", "01")} | {KEY.scan("1", ""), KEY.scan("1", "a")}
    assert len(names) == 8 and all(len(n) == 17 and n.isalnum() for n in names)
    assert KEY.patient("1") == Pseudonyms(b"k" * 32).patient("1")


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = of_file(tmp_path / "a.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert of_file(tmp_path / "a.key") == first != of_file(tmp_path / "b.key")
    (tmp_path / "a.key").write_text("short")
    with pytest.raises(UsageError, match="holds no key of 64 hexadecimal digits"):
        of_file(tmp_path / "a.key")


def test_the_clinics_table_becomes_the_registrys(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "patient,death_date,last_contact_date,transplant_date\n007 A,2020-05-01,2020-04-01,\nü/2,,2019-01-01,\n"
    )
    out = pseudonymise(tmp_path / "in.csv", tmp_path / "out.csv", TABLES["outcomes"], KEY)
    assert "007" not in out.read_text() and "ü" not in out.read_text()
    table = follow_up.read_outcomes(out)
    assert table.columns["patient"] == [KEY.patient("007 A"), KEY.patient("ü/2")]
    assert table.columns["death_date"] == [KEY.shifted("007 A", date(2020, 5, 1)), None]


def test_a_row_without_a_patient_is_refused_and_no_message_names_one(tmp_path: Path) -> None:
    header = "patient,death_date,last_contact_date,transplant_date\n"
    for rows, message in (
        (",2020-05-01,,\n", "row 2, column patient: '' is empty: give the Patient ID"),
        ("SECRET,2020-05-99,,\n", "row 2, column death_date: '2020-05-99' is not a valid date"),
    ):
        (tmp_path / "in.csv").write_text(header + rows)
        with pytest.raises(UsageError) as refused:
            pseudonymise(tmp_path / "in.csv", tmp_path / "out.csv", TABLES["outcomes"], KEY)
        assert message in str(refused.value) and "SECRET" not in str(refused.value)
