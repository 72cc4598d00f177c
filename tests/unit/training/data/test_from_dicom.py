"""A folder of DICOM files becomes a registry: the tables are judged first, and a call that failed may be repeated."""

from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from tests.helpers import registry_node
from tests.helpers.ct_files import ct_series, write
from training.data import from_dicom, registry_folder
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
        ("clinic.csv", OUTCOMES, "SECRET-1,2018-04-01,,\nSECRET-1,2018-04-01,,\n", "row 3, column patient: '"),
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
        ("lung.csv", COVARIATES, "SECRET-1,2015-01-01,fvc,75,l\n", "row 2, column value: '75' is not between"),
        ("clinic.csv", OUTCOMES, "SECRET-1,1018-04-01,,\n", "row 2, column death_date: '1018-04-01' lies before 1900"),
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


@pytest.mark.parametrize(
    ("issuer", "rows", "message"),
    [
        (
            "HOSPITAL",
            ",2018-04-01",
            "row 2, column issuer: '' is empty or not there, .* this Patient ID \\('HOSPITAL'\\): give",
        ),
        (
            "",
            "HOSPITAL,2018-04-01",
            "row 2, column issuer: 'HOSPITAL' is given, and the images name no issuer .*: leave it",
        ),
    ],
)
def test_a_row_that_would_be_passed_over_for_its_issuer_is_refused(
    clinic: Path, issuer: str, rows: str, message: str
) -> None:
    write(ct_series(PatientID="SECRET-1", IssuerOfPatientID=issuer, StudyDate="20150101"), clinic / "dicom")
    (clinic / "clinic.csv").write_text(
        f"patient,issuer,death_date,last_contact_date,transplant_date\nSECRET-1,{rows},,\n"
    )
    with pytest.raises(UsageError, match=message) as refused:
        make_registry(clinic / "dicom", clinic / "new", clinic / "clinic.csv", None, lambda *_: None)
    assert "SECRET" not in str(refused.value)
    assert not (clinic / "new").exists()


def test_rows_of_patients_without_images_are_no_fault(clinic: Path) -> None:
    """Another issuer's patient of the same ID, and the one that the images show."""
    write(ct_series(PatientID="SECRET-1", IssuerOfPatientID="A", StudyDate="20150101"), clinic / "dicom")
    rows = "SECRET-1,A,2018-04-01,,\nSECRET-1,B,2018-04-01,,\nSECRET-1,,2018-04-01,,\nSECRET-2,,2018-04-01,,\n"
    (clinic / "clinic.csv").write_text(f"patient,issuer,{OUTCOMES.partition(',')[2]}{rows}")
    with pytest.raises(Killed):
        make_registry(clinic / "dicom", clinic / "new", clinic / "clinic.csv", None, lambda *_: None)
    assert len((clinic / "new" / "outcomes.csv").read_text().splitlines()) == 5


def test_the_folder_of_an_older_version_is_refused_with_the_cure(clinic: Path) -> None:
    (clinic / "new" / "studies").mkdir(parents=True)
    with pytest.raises(
        UsageError, match=r"begun by an older version, .*: give a new folder \(--registry\), and delete"
    ):
        make(clinic)
    assert not (clinic / "new.key").exists()


@pytest.fixture
def analysed(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clinic's study, whose analysis ends at once with the findings of a phantom."""
    monkeypatch.setattr(from_dicom, "analyse", lambda *_: registry_node.analysis("1.2.3", "20150101"))
    return clinic


def test_a_killed_call_leaves_no_registry_that_looks_whole(analysed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object) -> None:
        raise Killed

    make(analysed)
    assert (analysed / "new" / "registry.toml").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(from_dicom, "write_csv", kill)
        with pytest.raises(Killed):
            make(analysed)
    assert not (analysed / "new" / "registry.toml").exists()
    make(analysed)
    assert len(registry_folder.read(analysed / "new").scans) == 1


@pytest.mark.parametrize("studied", ["", "2020", "00010101", "18991231", "20991231"])
def test_without_a_date_that_can_be_a_study_has_no_place(
    clinic: Path, monkeypatch: pytest.MonkeyPatch, studied: str
) -> None:
    monkeypatch.setattr(from_dicom, "analyse", lambda *_: registry_node.analysis("1.2.3", studied))
    with pytest.raises(UsageError, match="there is no Study Date, or none that can be"):
        make(clinic)
    assert not (clinic / "new" / "volumes").exists()
