"""A clinic's tables become the registry's: pseudonyms by Patient ID and issuer, dates on the patient's own calendar."""

from datetime import date
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.registry_format.pseudonyms import Pseudonyms
from training.data import follow_up
from training.data.clinic_tables import TABLES, pseudonymise, text_hash

KEY = Pseudonyms(b"k" * 32)


def test_the_clinics_table_becomes_the_registrys(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "patient,death_date,last_contact_date,transplant_date\n007 A,2020-05-01,2020-04-01,\nü/2,,2019-01-01,\n"
    )
    out = pseudonymise(tmp_path / "in.csv", tmp_path / "out.csv", TABLES["outcomes"], KEY)
    assert "007 A" not in out.read_text() and "ü" not in out.read_text()
    table = follow_up.read_outcomes(out)
    patient = KEY.patient(text_hash("007 A", ""))
    assert table.columns["patient"] == [patient, KEY.patient(text_hash("ü/2", ""))]
    assert table.columns["death_date"] == [KEY.shifted(date(2020, 5, 1), patient), None]


def test_the_issuer_tells_patients_apart_and_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "issuer,patient,death_date,last_contact_date,transplant_date\nA,1,2020-05-01,,\nB,1,2020-05-01,,\n,1,2020-05-01,,\n"
    )
    out = pseudonymise(tmp_path / "in.csv", tmp_path / "out.csv", TABLES["outcomes"], KEY)
    table = follow_up.read_outcomes(out)
    assert table.columns["patient"] == [KEY.patient(text_hash("1", issuer)) for issuer in ("A", "B", "")]
    assert len(set(table.columns["death_date"])) == 3
    assert "issuer" not in out.read_text()


def test_a_row_without_a_patient_is_refused_and_no_message_names_one(tmp_path: Path) -> None:
    header = "patient,death_date,last_contact_date,transplant_date\n"
    for rows, message in (
        (",2020-05-01,,\n", "row 2, column patient: '' is empty: give the Patient ID"),
        ("SECRET,2020-05-99,,\n", "row 2, column death_date: '2020-05-99' is not a valid date"),
        ("SECRET,1020-05-09,,\n", "row 2, column death_date: '1020-05-09' lies before 1900: correct it"),
    ):
        (tmp_path / "in.csv").write_text(header + rows)
        with pytest.raises(UsageError) as refused:
            pseudonymise(tmp_path / "in.csv", tmp_path / "out.csv", TABLES["outcomes"], KEY)
        assert message in str(refused.value) and "SECRET" not in str(refused.value)
