"""No cell of an exported table is a formula to a spreadsheet; numbers stay numbers."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.registry_format.tables import harmless, write_csv


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "=1", "-", "-1-1", "- 1"]
)
def test_a_formula_becomes_text(text: str) -> None:
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("value", ["-1.5", "+3", "-1e-7", "B30f", "", "2.5", "1-2", -3, -0.5, 0])
def test_numbers_and_words_stay(value: object) -> None:
    assert harmless(value) == value
    assert harmless(None) == ""


@given(text=st.text())
def test_no_text_begins_a_formula(text: str) -> None:
    found = str(harmless(text))
    try:
        float(found)
    except ValueError:
        assert not found.lstrip().startswith(("=", "+", "-", "@"))


def test_the_table_says_so(tmp_path: Path) -> None:
    write_csv(tmp_path / "scans.csv", ("model", "age_years"), [{"model": "=HYPERLINK(1)", "age_years": -1.0}])
    with (tmp_path / "scans.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["model", "age_years"], ["'=HYPERLINK(1)", "-1.0"]]
    assert (tmp_path / "scans.csv").stat().st_mode & 0o077 == 0
