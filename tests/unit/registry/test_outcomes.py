"""Outcomes: shifted like the scans; what training would refuse is refused whole, and names no patient."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.registry.export import export
from tests.helpers.registry_node import Node, analysis
from training.data import cohort, registry_folder
from training.data.follow_up import read_outcomes

HEADER = "patient_id,issuer,death_date,last_contact_date,transplant_date\n"


def test_outcomes_by_patient_id_are_shifted_like_the_scans(node: Node) -> None:
    node.study("1.1", b"PAT-1", b"H")
    node.keep(analysis("1.1", "20200101"))
    done = node.outcomes(
        "patient_id,issuer,death_date,last_contact_date,transplant_date\n"
        "PAT-1,H,2020-02-01,,\n"
        "PAT-9,H,,2021-01-01,2020-06-01\n"
    )
    assert (done.noted, done.with_scan) == (2, 1)
    (scan,) = node.catalog.registry_scans()
    (outcome,) = [o for o in node.catalog.registry_outcomes() if o.patient == scan.patient]
    assert date.fromisoformat(outcome.death_date) - date.fromisoformat(scan.date) == timedelta(31)
    pseudonymous = f"patient,death_date,last_contact_date\n{scan.patient},,2019-01-01\n"
    node.outcomes(pseudonymous)
    assert [o.last_contact_date for o in node.catalog.registry_outcomes() if o.patient == scan.patient] == [
        "2019-01-01"
    ]


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("SECRET,,31/12/2020,,\n", "row 2, column death_date: is not a date: write it as 2024-03-31"),
        ("SECRET,,20210101,,\n", "row 2, column death_date: is not a date: write it as 2024-03-31"),
        ("SECRET,,2021-02-30,,\n", "row 2, column death_date: is not a day of the calendar"),
        ("SECRET,,0001-01-01,,\n", "row 2, column death_date: is before 1900"),
        ("SECRET,,2999-01-01,,\n", "row 2, column death_date: is in the future"),
        ("SECRET,,,,\n", "row 2, column last_contact_date: is empty, as is death_date"),
        ("SECRET,,,,2020-01-01\n", "row 2, column last_contact_date: is empty, as is death_date"),
        (",,2020-01-01,,\n", "row 2, column patient_id: is empty"),
        ("SECRET,,2020-01-01,2020-01-02,\n", "row 2, column last_contact_date: is after death_date"),
        ("SECRET,,2020-01-01,,2020-01-02\n", "row 2, column transplant_date: is after death_date"),
        ("SECRET,,,2020-01-01,2020-01-02\n", "row 2, column transplant_date: is after last_contact_date"),
        ("P,,2020-01-01,,\n\nP,,2020-01-01,,\n", "row 4, the patient occurs in an earlier row"),
        ("PAT-1,H,2019-12-31,,\n", "row 2, column death_date: is before a scan of this patient"),
        ("P,,2020-01-01,,\nSECRET,H,2020-01-01,\n", "row 3: 4 values for 5 columns"),
        ("P,,2020-01-01,,\nSECRET,H,2020-01-01,,,\n", "row 3: 6 values for 5 columns"),
        ('P,,2020-01-01,,\n"SECRET"1,H,2020-01-01,,\n', "line 3: not a CSV file"),
        ("SECRET" * 30_000 + ",,2020-01-01,,\n", "line 2: not a CSV file"),
        ("", "has no rows below its header"),
    ],
)
def test_what_training_would_refuse_is_refused_whole_and_names_no_patient(node: Node, rows: str, wrong: str) -> None:
    node.study("1.1", b"PAT-1", b"H")
    node.keep(analysis("1.1", "20200101"))
    with pytest.raises(UsageError, match=wrong) as raised:
        node.outcomes(HEADER + rows)
    assert "SECRET" not in str(raised.value)
    assert "31/12/2020" not in str(raised.value)
    assert node.catalog.registry_outcomes() == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("patient_id,died\nSECRET,2020-01-01\n", "Missing: death_date, last_contact_date; unknown: column 2"),
        ("SECRET,2020-01-01,,\nP,2020-01-01,,\n", "unknown: column 1, 2, 3, 4"),
        ("patient_id,death_date,death_date,last_contact_date\nP,,,\n", "each once"),
        ("patient,issuer,death_date,last_contact_date\nP,,,\n", "patient_id and optionally issuer"),
        ("patient,death_date,last_contact_date\nSECRET,2020-01-01,\n", "row 2, column patient: is not a pseudonym"),
        ("", "Missing: death_date, last_contact_date"),
    ],
)
def test_a_header_that_is_none_is_not_repeated(node: Node, text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong) as raised:
        node.outcomes(text)
    assert "SECRET" not in str(raised.value)
    assert node.catalog.registry_outcomes() == []


def test_a_scan_after_the_last_contact_blocks_no_export(node: Node, tmp_path: Path) -> None:
    for uid, studied in (("1.1", "20200101"), ("1.2", "20210301")):
        node.study(uid, b"PAT-1", b"H")
        node.keep(analysis(uid, studied))
        if uid == "1.1":
            node.outcomes(HEADER + "PAT-1,H,,2020-06-01,\n")
    export(node.catalog, tmp_path / "out")
    made = cohort.build(registry_folder.read(tmp_path / "out"), read_outcomes(tmp_path / "out" / "outcomes.csv"))
    assert made.frame["time_years"].to_list() == pytest.approx([425 / 365.25])
    assert not made.frame["event"].any()
