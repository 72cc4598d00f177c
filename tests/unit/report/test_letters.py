"""Names in every script that there are letters for, and the bytes of the header left as they came."""

import pytest
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
        ("Somchai^Jaidee=สมชาย^ใจดี", "ISO_IR 192", "Somchai Jaidee"),
        ("", "ISO_IR 192", ""),
    ],
)
def test_names_are_shown_in_their_scripts(name: str, charset: str | list[str], shown: str) -> None:
    header = named(name, charset)
    before = header.get_item(Tag("PatientName")).value
    assert letters.person(header) == shown
    assert header.get_item(Tag("PatientName")).value == before


def test_a_name_without_glyphs_is_not_left_out() -> None:
    assert letters.person(named("สมชาย", "ISO_IR 192")) == "?????"


def named(name: str, charset: str | list[str]) -> Dataset:
    """A header as it is read, with nothing but the name."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2.3"
    header.SpecificCharacterSet, header.PatientName = charset, name
    return cases.reread(header)


@pytest.mark.parametrize(
    ("text", "shown"), [("a\u202eb", "a b"), ("x\ny\x00", "x y"), ("≥ 5 mm «B60»", "≥ 5 mm «B60»"), ("a  b", "a b")]
)
def test_signs_that_control_the_layout_are_dropped(text: str, shown: str) -> None:
    assert letters.shown(text) == shown
