"""A folder of DICOM files becomes a registry: the tables are judged first, and a call that failed may be repeated."""

from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from tests.ct_files import ct_series, write
from training.data import from_dicom
from training.data.from_dicom import make_registry

OUTCOMES = "patient,death_date,last_contact_date,transplant_date\n"
COVARIATES = "patient,date,name,value,unit\n"


class Killed(Exception):
    """The process ends here."""


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, good tables, and an analysis that is killed."""

    def kill(*_: object) -> None:
        raise Killed

    write(ct_series(PatientID="SECRET-1", StudyDate="20150101"), tmp_path / "dicom")
    (tmp_path / "clinic.csv").write_text(f"{OUTCOMES}SECRET-1,2018-04-01,,\n")
    (tmp_path / "lung.csv").write_text(f"{COVARIATES}SECRET-1,2015-01-01,fvc,81,percent_predicted\n")
    monkeypatch.setattr(from_dicom, "analyse", kill)
    return tmp_path


def make(clinic: Path) -> None:
    make_registry(clinic / "dicom", clinic / "new", clinic / "clinic.csv", clinic / "lung.csv", lambda *_: None)


@pytest.mark.parametrize(
    ("name", "header", "rows", "message"),
    [
        ("clinic.csv", OUTCOMES, "SECRET-1,2018-04-01,,\nSECRET-1,2018-04-01,,\n", "row 3, column patient: 'P"),
        ("clinic.csv", OUTCOMES, "SECRET-1,,,\n", "row 2, column last_contact_date: '' is empty"),
        (
            "clinic.csv",
            OUTCOMES,
            "SECRET-1,2018-04-01,2018-05-01,\n",
            "'2018-05-01' is after the death on 2018-04-01",
        ),
        (
            "lung.csv",
            COVARIATES,
            "SECRET-1,2015-01-01,fvc,2.5,litre\n",
            "row 2, column unit: 'litre' is not a unit of fvc",
        ),
        ("lung.csv", COVARIATES, "SECRET-1,2015-01-01,fvc,75,l\n", "row 2, column value: '75.0' is not between"),
    ],
)
def test_the_clinics_tables_are_judged_before_any_scan(
    clinic: Path, name: str, header: str, rows: str, message: str
) -> None:
    """By their own name, rows and dates, and without a Patient ID."""
    (clinic / name).write_text(header + rows)
    with pytest.raises(UsageError) as refused:
        make(clinic)
    said = str(refused.value)
    assert said.startswith(f"{clinic / name}, ") and message in said and "SECRET" not in said
    assert not (clinic / "new").exists()


def test_a_call_that_was_killed_may_be_repeated(clinic: Path) -> None:
    for _ in range(2):
        with pytest.raises(Killed):
            make(clinic)


def test_a_folder_of_something_else_is_left_alone(clinic: Path) -> None:
    (clinic / "new").mkdir()
    (clinic / "new" / "letter.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        make(clinic)


def test_a_thickness_that_the_registry_would_refuse_is_none() -> None:
    kept = [from_dicom._readable("slice_thickness_mm", v) for v in (0.0, -1.0, None, 1.25, 500.0)]
    assert kept == ["", "", "", 1.25, ""]
