"""Values of headers are read once: a valid one stays, what a person can read is written as the standard wants it."""

import io

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from dicomnode.analysis.series import repeatable, values
from dicomnode.analysis.series.headers import number, string, strings
from dicomnode.analysis.series.modules import PATIENT, STUDY

READ = {
    ("SliceThickness", b"3,98"): "3.98",
    ("SliceThickness", b"1.0\\1.0"): "1.0",
    ("SliceThickness", b" 1.5 "): "1.5",
    ("SliceThickness", b"1.0\\2.0"): "",
    ("SliceThickness", b"1.234,5"): "",
    ("SliceThickness", b"1e400"): "",
    ("SliceThickness", b"nan"): "",
    ("SliceThickness", b"1_0"): "",
    ("SliceThickness", b"\xd9\xa1"): "",
    ("SliceThickness", b"0.12345678901234567890"): "0.12345678901235",
    ("SeriesNumber", b"3.0"): "3",
    ("SeriesNumber", b"99999999999"): "",
    ("StudyDate", b"2020.02.03"): "20200203",
    ("StudyDate", b"2020-02-03"): "20200203",
    ("StudyDate", b"03.02.2020"): "",
    ("StudyDate", b"20201301"): "",
    ("StudyTime", b"12:30:15,5"): "123015.5",
    ("StudyTime", b"101112.12345678"): "101112.123456",
    ("StudyTime", b"250000"): "",
    ("PatientAge", b"46y "): "046Y",
    ("PatientAge", b"46"): "",
    ("PatientSex", b"f "): "F",
    ("PatientSex", b"weiblich"): "",
    ("Modality", b"ct"): "CT",
    ("Modality", b"CT\\CT "): "CT",
    ("FrameOfReferenceUID", b"1.2.3\0"): "1.2.3",
    ("FrameOfReferenceUID", b"1..2"): "",
    ("FrameOfReferenceUID", b"1." * 40 + b"1"): "",
    ("SpecificCharacterSet", b"ISO IR 100"): "ISO_IR 100",
    ("SpecificCharacterSet", b"latin1"): "",
    ("TimezoneOffsetFromUTC", b"+01:00"): "+0100",
    ("TimezoneOffsetFromUTC", b"+9900"): "",
}


def header(vr: str | None = None, implicit: bool = True, **given: bytes) -> Dataset:
    made = Dataset()
    for keyword, value in given.items():
        tag = pydicom.tag.Tag(keyword)
        made[tag] = RawDataElement(tag, vr, len(value), value, 0, implicit, True)
    return made


@pytest.mark.parametrize("keyword", ["PatientSex", "AdmissionID", "ConsultingPhysicianName", "SeriesDescription"])
@pytest.mark.parametrize("padded", [b"M\0", b"M\0\0", b"M\0\0 ", b"M \0 ", b"\0M", b" \0M\0 "])
def test_nul_around_a_value_is_no_part_of_it(keyword: str, padded: bytes) -> None:
    """What goes into our objects holds none: validators report it."""
    dataset = header(**{keyword: padded})
    assert values.settle(dataset) == ()
    element = dataset.get_item(keyword)
    assert element.value == b"M "


@pytest.mark.parametrize("value", [b"\\ ", b"\\", b"  ", b" \\ \\ "])
def test_values_without_a_word_are_none(value: bytes) -> None:
    dataset = header(DeidentificationMethod=value, PatientComments=b"\\ ", PatientName=b"  ")
    assert values.settle(dataset) == ()
    assert "DeidentificationMethod" not in dataset
    assert dataset.get_item("PatientComments").value == b"\\ "  # a text of one value, which is a backslash
    assert dataset.get_item("PatientName").value == b"  "  # as it came


@pytest.mark.parametrize("keyword", sorted(values.ENUMERATED))
@pytest.mark.parametrize("value", [b" ", b"  ", b"\0", b" \0"])
def test_a_code_string_of_blanks_is_none(keyword: str, value: bytes) -> None:
    """Written as it came it would be none of the values that the standard names."""
    dataset = header(**{keyword: value})
    assert values.settle(dataset) == ()
    assert keyword not in dataset


@pytest.mark.parametrize(
    ("keyword", "padded", "kept"),
    [
        ("PatientAge", b"046Y", b"046Y"),
        ("PatientAge", b"046Y ", None),
        ("PatientAge", b" 046Y", None),
        ("PatientBirthDate", b"20200101  ", None),
        ("PatientBirthDate", b"20200101", b"20200101"),
        ("DateOfSecondaryCapture", b"20200101", b"20200101"),
        ("FrameOfReferenceUID", b"1.2.3 ", None),
        ("FrameOfReferenceUID", b"1.2.3\0", b"1.2.3\0"),
        ("StudyTime", b" 101112", None),
        ("StudyTime", b"101112  ", b"101112  "),
        ("SliceThickness", b" 1.5 ", b" 1.5 "),
        ("AcquisitionDateTime", b" 20200101", None),
        ("AcquisitionDateTime", b"20200101  ", b"20200101  "),
    ],
)
def test_spaces_stay_where_the_vr_has_them(keyword: str, padded: bytes, kept: bytes | None) -> None:
    dataset = header(**{keyword: padded})
    assert values.settle(dataset) in ((), (values.Doubt(keyword, "repaired"),))
    element = dataset.get_item(keyword)
    assert string(dataset, keyword) == padded.decode().strip(" \0")
    if kept is None:
        assert isinstance(element, DataElement)  # it is written anew
    else:
        assert element.value == kept


def test_what_pydicom_converts_by_itself_has_its_own_vr_too() -> None:
    dataset = header("ST", implicit=False, SpecificCharacterSet=b"ISO_IR 100")
    assert dataset.SpecificCharacterSet == "ISO_IR 100"  # as it is looked at while a file is read
    values.settle(dataset)
    assert dataset["SpecificCharacterSet"].VR == "CS"


@pytest.mark.parametrize(("stated", "read"), READ.items(), ids=str)
def test_a_value_is_read_or_is_none(stated: tuple[str, bytes], read: str) -> None:
    keyword, value = stated
    dataset = header(**{keyword: value})
    values.settle(dataset)
    assert string(dataset, keyword) == read


def test_a_valid_value_stays_the_bytes_that_it_was_without_a_doubt() -> None:
    given = {"PatientName": b"M\xfcller^\xc4nne ", "PatientBirthDate": b"19600102", "SliceThickness": b"1.50"}
    dataset = header(SpecificCharacterSet=b"ISO_IR 100", **given)
    assert values.settle(dataset) == ()
    assert {k: dataset.get_item(k).value for k in given} == given


def test_doubts_tell_what_was_read_and_what_was_not() -> None:
    dataset = header(SliceThickness=b"3,98", StudyDate=b"today ", PatientName=b"a\x01b ", AccessionNumber=b"9" * 18)
    assert values.settle(dataset) == (
        values.Doubt("AccessionNumber", "unusable"),
        values.Doubt("PatientName", "unusable"),
        values.Doubt("SliceThickness", "repaired"),
        values.Doubt("StudyDate", "unusable"),
    )


@pytest.mark.parametrize(
    ("vr", "value", "read"),
    [
        ("US", b"\x00\x02", 512),
        ("US", b"\x00\x02\x00\x02", 512),
        ("US", b"\x00\x02\x01\x02", None),
        ("US", b"\x00", None),
        ("UL", b"\x00\x02\x00\x00", 512),
        ("SS", b"\xff\xff", None),
        ("IS", b"512 ", 512),
        ("LO", b"many", None),
    ],
)
def test_numbers_under_another_vr(vr: str, value: bytes, read: int | None) -> None:
    dataset = header(vr, implicit=False, Rows=value)
    values.settle(dataset)
    assert number(dataset, "Rows") == read


def test_a_sequence_where_text_should_be_and_text_where_a_sequence_should_be() -> None:
    dataset = header("LO", implicit=False, ProcedureCodeSequence=b"CT Thorax ")
    dataset.add(DataElement(0x00080020, "SQ", [Dataset()]))
    doubts = {d.keyword for d in values.settle(dataset)}
    assert "StudyDate" in doubts
    assert "StudyDate" not in dataset
    repeatable.keep(dataset)
    assert "ProcedureCodeSequence" not in dataset


def test_what_no_valid_object_may_repeat_is_not_in_a_report_s_header() -> None:
    whole, half = Dataset(), Dataset()
    whole.CodeValue, whole.CodingSchemeDesignator, whole.CodeMeaning = "1", "99X", "CT"
    half.CodeValue = "2"
    dataset = header(StudyDescription=b"x" * 65, PatientID=b"P1", PatientIdentityRemoved=b"YES ")
    dataset.ProcedureCodeSequence = [whole, half]
    values.settle(dataset)
    assert string(dataset, "StudyDescription"), "its words still tell what the study is"
    repeatable.keep(dataset)
    assert "StudyDescription" not in dataset
    assert "PatientIdentityRemoved" not in dataset, "without its method"
    assert [item.CodeValue for item in dataset.ProcedureCodeSequence] == ["1"]


@pytest.mark.parametrize("value", [b"P" * 65, b"P1\\P2", b"P\x011"])
def test_what_names_the_patient_or_the_order_stays_as_it_came_and_is_named(value: bytes) -> None:
    item = header(RequestedProcedureID=value, AccessionNumber=b"A1")
    dataset = header(PatientID=value, AccessionNumber=b"A1")
    dataset.RequestAttributesSequence = [item]
    dataset.OtherPatientIDsSequence = [header(PatientID=value, TypeOfPatientID=b"TEXT")]
    doubts = [(d.keyword, d.kind) for d in values.settle(dataset)]
    assert doubts == [(k, "unusable") for k in ("OtherPatientIDsSequence", "PatientID", "RequestedProcedureID")]
    assert repeatable.keep(dataset) == ("PatientID", "RequestedProcedureID")
    assert dataset.get_item("PatientID").value == value
    assert dataset.RequestAttributesSequence[0].get_item("RequestedProcedureID").value == value
    assert "OtherPatientIDsSequence" not in dataset


LATIN, UTF8 = "Grün^Änne".encode("latin-1"), "Grün^Änne".encode()


@pytest.mark.parametrize(
    ("name", "stated", "read_as", "fine"),
    [
        (LATIN, None, "ISO_IR 100", True),
        (LATIN, b"ISO_IR 6", "ISO_IR 100", True),
        (UTF8, None, "ISO_IR 192", True),
        ("王^小东".encode("gb18030"), None, "", False),
        ("Иванов^Пётр".encode("iso8859_5"), None, "", False),
        (LATIN, b"ISO_IR 192", "ISO_IR 192", False),
        (UTF8, b"ISO_IR 192", "ISO_IR 192", True),
        ("王^小东".encode("gb18030"), b"GB18030", "GB18030", True),
        ("Иванов^Пётр".encode("iso8859_5"), b"ISO_IR 144", "ISO_IR 144", True),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", b"\\ISO 2022 IR 87", "\\ISO 2022 IR 87", True),
        (b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", b"\\ISO 2022 IR 149", "\\ISO 2022 IR 149", True),
        ("山田^太郎".encode("shift_jis"), b"\\ISO 2022 IR 87", "\\ISO 2022 IR 87", False),
    ],
)
def test_names_in_declared_and_undeclared_character_sets(
    name: bytes, stated: bytes | None, read_as: str, fine: bool
) -> None:
    dataset = header(PatientName=name, **({} if stated is None else {"SpecificCharacterSet": stated}))
    doubts = {d.keyword for d in values.settle(dataset) if d.kind == "unusable"}
    assert ("PatientName" not in doubts) == fine
    assert "\\".join(strings(dataset, "SpecificCharacterSet")) == read_as
    assert repeatable.keep(dataset) == (() if fine else ("PatientName",))
    assert dataset.get_item("PatientName").value == name


ATTRIBUTES = sorted({
    *PATIENT, *STUDY, "SliceThickness", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "Rows",
    "BitsStored", "RescaleSlope", "PixelPaddingValue", "ImageType", "SeriesNumber", "FrameOfReferenceUID", "Modality",
    "SpecificCharacterSet", "RequestAttributesSequence", "SharedFunctionalGroupsSequence", "AcquisitionDateTime",
})  # fmt: skip
VRS = [None, "DS", "IS", "US", "UL", "FD", "LO", "PN", "CS", "UI", "DA", "TM", "DT", "AS", "SQ", "UN", "OB", "AT", "ZZ"]
TEXT = ("LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE", "UR")
LIKELY = st.sampled_from([b"1,5", b"1.5\\1.5", b"", b"\\", b"\0", b"20200203", b"046Y", b"A^B", b"1.2.3", b"\x00\x02"])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(ATTRIBUTES), st.tuples(st.sampled_from(VRS), LIKELY | st.binary(max_size=80)), max_size=6
    ),
    st.booleans(),
)
def test_whatever_stands_there_every_value_can_be_used_afterwards(
    given: dict[str, tuple[str | None, bytes]], implicit: bool
) -> None:
    dataset = Dataset()
    for keyword, (vr, value) in given.items():
        tag = pydicom.tag.Tag(keyword)
        dataset[tag] = RawDataElement(tag, None if implicit else vr, len(value), value, 0, implicit, True)
    values.settle(dataset)
    assert {doubt.kind for doubt in values.settle(dataset)} <= {"unusable"}, "text alone is still in doubt"
    assert all(dictionary_VR(d.keyword) in TEXT or d.keyword == "SpecificCharacterSet" for d in values.settle(dataset))
    if repeatable.keep(dataset):
        return
    for element in list(dataset):  # converts each
        if element.VR != "SQ":
            strings(dataset, element.keyword)
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, False
    write_dataset(written, dataset)
    again = read_dataset(io.BytesIO(written.getvalue()), is_implicit_VR=False, is_little_endian=True)
    assert {e.keyword: dictionary_VR(e.tag) for e in again if tag_for_keyword(e.keyword)}.keys() <= set(ATTRIBUTES)
