"""Names in every script that there are letters for, and the bytes of the header left as they came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from dicomnode.report import letters
from tests.helpers import report_cases as cases


@pytest.mark.parametrize(
    ("name", "charset", "shown"),
    [
        ("Müller^Änne", "ISO_IR 100", "Müller Änne"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"], "Yamada Tarou, 山田 太郎, やまだ たろう"),
        ("محمد^علي", "ISO_IR 192", "محمد علي"),
        ("Иванов^Иван", "ISO_IR 144", "Иванов Иван"),
        ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"], "Hong Gildong, 洪 吉洞, 홍 길동"),
        ("Somchai^Jaidee=สมชาย^ใจดี", "ISO_IR 192", "Somchai Jaidee, สมชาย ใจดี"),
        ("शर्मा^राम कुमार", "ISO_IR 192", "शर्मा राम कुमार"),
        ("ශ්\u200dරී", "ISO_IR 192", "ශ්\u200dරී"),  # without the joiner it would be spelt wrongly
        ("葛\U000e0100城^x", "ISO_IR 192", "葛城 x"),  # of the letter two forms are in use: no letter of its own
        ("Tenzin^X=བསྟན^འཛིན", "ISO_IR 192", "Tenzin X, [6 Tibetan letters: no font]"),
        ("Takahashi=\ue000橋", "ISO_IR 192", "Takahashi, [1 private-use letter: no font] 橋"),
        ("", "ISO_IR 192", ""),
    ],
)
def test_names_are_shown_in_their_scripts(name: str, charset: str | list[str], shown: str) -> None:
    header = named(name, charset)
    before = header.get_item(Tag("PatientName")).value
    assert letters.person(header) == shown
    assert header.get_item(Tag("PatientName")).value == before


@pytest.mark.parametrize("name", ["བསྟན", "\ue000", "\U00012000", "\u0378"])
def test_of_a_name_without_glyphs_the_script_is_named_and_no_question_mark_stands_for_it(name: str) -> None:
    said = letters.person(named(name, "ISO_IR 192"))
    assert "no font" in said and "?" not in said
    assert not letters.can_show(name)


@given(st.text(max_size=60))
def test_whatever_comes_is_written_in_letters_that_there_are(text: str) -> None:
    said = letters.shown(text)
    assert letters.can_show(said)
    assert letters.shown(said) == said
    assert all(any(ord(c) in letters._letters()[family] for family in letters.families(said)) for c in said)


def test_urdu_joins_in_one_font() -> None:
    assert letters.families("پاکستان ہے")[0] == letters.ARABIC


def test_signs_upon_one_letter_do_not_climb_over_the_line_above() -> None:
    assert len(letters.shown("x" + 50 * "\u0301")) == 5


def named(name: str, charset: str | list[str]) -> Dataset:
    """A header as it is read, with nothing but the name."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2.3"
    header.SpecificCharacterSet, header.PatientName = charset, name
    return cases.reread(header)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("x\u200dy", "xy"), ("a\u202eb", "a b"), ("x\ny\x00", "x y"), ("≥ 5 mm «B60»", "≥ 5 mm «B60»"), ("a  b", "a b")],
)
def test_signs_that_control_the_layout_are_dropped(text: str, shown: str) -> None:
    assert letters.shown(text) == shown
