"""The codes: known to the standard's dictionaries where they claim to be, within the lengths, and published."""

import re

import pytest
from pydicom.sr import _concepts_dict
from pydicom.sr.coding import Code

from dicomnode.report import codes
from tests.conftest import ROOT

ALL = [value for value in vars(codes).values() if isinstance(value, Code)]
ALL += [
    code
    for table in (codes.REGIONAL_HIGH_ATTENUATION, codes.REGIONAL_LOW_ATTENUATION, codes.REGIONAL_MEAN)
    for code in table.values()
]
ALL += [code for entry in codes.CHANGE.values() for code in entry]
ALL += [code for triple in codes.MORTALITY.values() for code in triple]
STANDARD = [code for code in ALL if code.scheme_designator in {"DCM", "SCT"}]


@pytest.mark.parametrize("code", STANDARD, ids=lambda code: code.meaning)
def test_standard_codes_are_in_pydicoms_dictionary(code: Code) -> None:
    known = {
        meaning.casefold()
        for concept in _concepts_dict.concepts[code.scheme_designator].values()
        for value, (meaning, _) in concept.items()
        if value == code.value
    }
    assert code.meaning.casefold() in known


@pytest.mark.parametrize("code", ALL, ids=lambda code: code.meaning)
def test_codes_keep_within_their_vr(code: Code) -> None:
    assert len(code.value) <= 16
    assert len(code.scheme_designator) <= 16
    assert len(code.meaning) <= 64
    assert (code.value + code.meaning).isascii()


def test_private_codes_are_unique_and_all_published() -> None:
    private = {code.value for code in ALL if code.scheme_designator == codes.SCHEME}
    assert private == {code.value for code in codes.PRIVATE}
    assert len(private) == len(codes.PRIVATE)


def test_the_published_list_is_the_table() -> None:
    path = ROOT / "docs" / "radiologist" / "private-codes.md"
    assert path.read_text(encoding="utf-8") == codes.published(), f"write dicomnode.report.codes.published() to {path}"


@pytest.mark.parametrize("code", codes.PRIVATE, ids=lambda code: code.value)
def test_a_name_is_understood_alone(code: Code) -> None:
    """Viewers, HL7 and FHIR show a number by its name, without the group that it stands in."""
    leaning = r"\b(same (?!patient)|these|those|there|above(?! -250)|below(?! -950)|this scan)\b"
    assert not re.search(leaning, code.meaning)
    if code.value.startswith(("CHG_HAA", "CHY_HAA")):
        assert "rim" in code.meaning or "of lungs" in code.meaning
