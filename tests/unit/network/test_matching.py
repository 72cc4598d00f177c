"""Attribute matching, PS3.4 C.2.2.2, as a table."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.network.matching import matches, text

CASES = [
    # keyword, key, value, matches
    ("PatientID", "", "A", True),
    ("PatientID", "", None, True),
    ("PatientID", "*", None, True),
    ("PatientID", "A", None, False),
    ("PatientID", "A", "A", True),
    ("PatientID", "a", "A", False),
    ("PatientID", "A*", "ABC", True),
    ("PatientID", "A?", "ABC", False),
    ("PatientID", "A?C", "ABC", True),
    ("PatientID", "A.C", "ABC", False),
    ("PatientID", "[AB]", "A", False),
    ("PatientName", "müller*", "Müller^Änne", True),
    ("PatientName", "Müller^Änne^^", "Müller^Änne", True),
    ("PatientName", "Müller", "Müller^Änne", False),
    ("PatientName", "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
    ("PatientName", "yamada^tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
    ("StudyDate", "20240110", "20240110", True),
    ("StudyDate", "20240101-20241231", "20240110", True),
    ("StudyDate", "20240111-", "20240110", False),
    ("StudyDate", "-20240110", "20240110", True),
    ("StudyDate", "20240101-20241231", None, False),
    ("StudyDate", "2024.01.10", "20240110", True),
    ("StudyTime", "1015", "101530.250", True),
    ("StudyTime", "1000-1015", "101530.250", True),
    ("StudyTime", "1000-101529", "101530.250", False),
    ("StudyTime", "101530-", "101530", True),
    ("StudyInstanceUID", "1.2\\1.3", "1.3", True),
    ("StudyInstanceUID", "1.2\\1.3", "1.4", False),
    ("StudyInstanceUID", "1.2*", "1.2.3", False),
    ("ModalitiesInStudy", "SR", "CT\\SR", True),
    ("ModalitiesInStudy", "MR", "CT\\SR", False),
    ("ModalitiesInStudy", "MR\\CT", "CT\\SR", True),
    ("InstanceNumber", "7", "7 ", True),
    ("InstanceNumber", "7", "17", False),
    ("Rows", 512, 512, True),
    ("Rows", 512, 256, False),
]


def dataset(keyword: str, value: str | int | None) -> Dataset:
    values = value.split("\\") if isinstance(value, str) and "\\" in value else value
    made = Dataset()
    # As they come, also where pydicom would warn.
    made.add(DataElement(Tag(keyword), dictionary_VR(keyword), values, validation_mode=IGNORE))
    return made


@pytest.mark.parametrize(("keyword", "key", "value", "expected"), CASES)
def test_a_key_matches_a_value(keyword: str, key: str | int, value: str | int | None, expected: bool) -> None:
    entity = Dataset() if value is None else dataset(keyword, value)
    assert matches(list(dataset(keyword, key)), entity) is expected


def test_all_keys_must_match_and_a_sequence_asks_for_nothing() -> None:
    entity = dataset("PatientID", "A")
    keys = dataset("PatientID", "A")
    keys.RequestAttributesSequence = [dataset("RequestedProcedureID", "1")]
    assert matches(list(keys), entity)
    keys.StudyID = "1"
    assert not matches(list(keys), entity)


@given(st.text("ABab*?.[]()+^$|", min_size=1, max_size=12))
def test_a_value_without_wild_cards_matches_itself_alone(text: str) -> None:
    entity = dataset("StudyID", text)
    assert matches(list(dataset("StudyID", text)), entity)
    assert matches(list(dataset("StudyID", "*" + text[1:])), entity)
    if not set(text) & set("*?"):
        assert not matches(list(dataset("StudyID", text)), dataset("StudyID", text + "X"))


def naive(pattern: str, value: str) -> bool:
    """PS3.4 C.2.2.2.4, letter by letter and slowly."""
    if not pattern:
        return not value
    if pattern[0] == "*":
        return naive(pattern[1:], value) or (bool(value) and naive(pattern, value[1:]))
    return bool(value) and pattern[0] in ("?", value[0]) and naive(pattern[1:], value[1:])


@given(st.text("AB*?", min_size=1, max_size=8), st.text("AB", min_size=1, max_size=8))
def test_wild_cards_match_as_a_naive_matcher_does(pattern: str, value: str) -> None:
    assert matches(list(dataset("StudyID", pattern)), dataset("StudyID", value)) is naive(pattern, value)


@pytest.mark.parametrize("between", ["*A", "*?", "**", "*A?"])
def test_a_thousand_stars_cost_one_pass_over_the_value(between: str) -> None:
    key = list(dataset("StudyDescription", between * 1000 + "B"))
    entity = dataset("StudyDescription", "A" * 5000)

    def steps() -> int:
        """Lines of Python that the matching takes."""
        count = 0

        def count_line(_frame: object, event: str, _argument: object) -> object:
            nonlocal count
            count += event == "line"
            return count_line

        before = sys.gettrace()
        sys.settrace(count_line)  # type: ignore[arg-type]
        try:
            assert not matches(key, entity)
        finally:
            sys.settrace(before)
        return count

    assert steps() < 50_000


def test_a_text_with_a_backslash_is_one_text() -> None:
    item = Dataset()
    item.PatientName, item.PatientID, item.AccessionNumber = "Doe\\Jane^A", "A\\1 ", ""
    assert [text(item, k) for k in ("PatientName", "PatientID", "AccessionNumber", "Modality")] == [
        "Doe\\Jane^A",
        "A\\1",
        "",
        "",
    ]
