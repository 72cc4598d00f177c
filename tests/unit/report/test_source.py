"""Patient, study and order come back byte for byte, in any character set and with any value, valid or not."""

import io
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.report import source
from tests.helpers import report_cases as cases

CHARSET_FILES = [
    *("chrArab", "chrFren", "chrFrenMulti", "chrGerm", "chrGreek", "chrH31", "chrH32", "chrHbrw", "chrI2"),
    *("chrJapMulti", "chrJapMultiExplicitIR6", "chrKoreanMulti", "chrRuss", "chrX1", "chrX2"),
]
NAME, PATIENT_ID = Tag("PatientName"), Tag("PatientID")


def raw(dataset: Dataset, tag: int) -> bytes:
    element = dataset.get_item(tag)
    assert isinstance(element, RawDataElement)
    return element.value


def with_raw(header: Dataset, **values: bytes) -> Dataset:
    """The header read from a file in which these elements hold exactly these bytes."""
    for keyword, value in values.items():
        tag = Tag(keyword)
        header[tag] = RawDataElement(tag, pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True)
    character_set = header.get("SpecificCharacterSet")
    header.set_original_encoding(False, True, convert_encodings(character_set) if character_set else None)
    return cases.reread(header)


def carried(header: Dataset, extra: tuple[str, ...] = ()) -> Dataset:
    target = Dataset()
    target.PatientComments = "invented"
    source.carry_over(header, target, extra)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, target, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer, force=True)


@pytest.mark.parametrize("name", CHARSET_FILES)
@pytest.mark.parametrize("implicit", [False, True])
def test_names_in_any_character_set(data: Path, name: str, implicit: bool) -> None:
    file = pydicom.dcmread(data / "odd_pydicom" / "charset_files" / f"{name}.dcm", stop_before_pixels=True)
    patient_name = raw(file, NAME)
    header = cases.synthetic(1)[0]
    # Only what is in this file's character set may stay: the rest of the header is UTF-8.
    for keyword in ("StudyDescription", "ReferringPhysicianName", "RequestAttributesSequence", "ProcedureCodeSequence"):
        del header[keyword]
    header.Manufacturer = "plain"
    header.SpecificCharacterSet = file.SpecificCharacterSet
    header = with_raw(header, PatientName=patient_name)
    result = carried(cases.reread_as_implicit(header) if implicit else header)
    assert result.SpecificCharacterSet == file.SpecificCharacterSet
    assert raw(result, NAME) == patient_name
    assert result.PatientName == file.PatientName


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", b"A^B^C^D^E^F^G^H=I=J=K=L "),
        ("PatientName", b"  ^^  "),
        ("PatientName", b"Padded^Name   "),
        ("PatientID", b"an identifier far longer than the sixty-four characters that the VR allows, " * 2),
        ("PatientBirthDate", b"1960.13.45"),
        ("PatientSex", b"unknown "),
        ("PatientAge", b"sixty "),
        ("PatientWeight", b"70,5"),
        ("StudyDate", b"today "),
        ("AccessionNumber", b"\xff\xfe broken "),
        ("StudyID", b"seventeen letters "),
    ],
)
def test_invalid_values_stay_as_they_came(keyword: str, value: bytes) -> None:
    header = with_raw(cases.synthetic(1)[0], **{keyword: value})
    assert raw(carried(header), Tag(keyword)) == value


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=2, max_size=80).filter(lambda b: len(b) % 2 == 0))
def test_any_bytes_come_back(value: bytes) -> None:
    header = with_raw(cases.synthetic(1)[0], PatientName=value, PatientID=value)
    result = carried(header)
    # A NUL at the end is padding, and padding of text is a space.
    expected = value[:-1] + b" " if value.endswith(b"\0") else value
    assert raw(result, NAME) == expected
    assert raw(result, PATIENT_ID) == expected


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientName", b"Anonymous\0", b"Anonymous "),
        ("PatientName", b"Odd^Length", b"Odd^Length"),
        ("PatientName", b"Odd^Lengt", b"Odd^Lengt "),
        ("StudyInstanceUID", b"1.2.3\0", b"1.2.3\0"),
    ],
)
def test_padding_is_what_the_standard_asks_for(keyword: str, value: bytes, expected: bytes) -> None:
    header = cases.synthetic(1)[0]
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True)
    assert raw(carried(header), tag) == expected


def test_nothing_is_invented() -> None:
    header = cases.synthetic(1)[0]
    for keyword in ("SpecificCharacterSet", "StudyID", "AccessionNumber", "PatientBirthDate", "StudyDescription"):
        header.pop(Tag(keyword), None)
    result = carried(header)
    assert "PatientComments" not in result
    assert "StudyDescription" not in result
    assert "SpecificCharacterSet" not in result
    assert all(keyword in result and not result[keyword].value for keyword in ("StudyID", "AccessionNumber"))


@pytest.mark.parametrize("implicit", [False, True])
def test_nested_values_come_back_and_empty_sequences_do_not(implicit: bool) -> None:
    header = cases.synthetic(1)[0]
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "KLINIK"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "Zweit-Ä", "ÄMTER"
    other.IssuerOfPatientIDQualifiersSequence = [issuer]
    other.add_new(0x00110010, "LO", "PRIVATE CREATOR")
    header.OtherPatientIDsSequence = [other]
    header.ReferencedStudySequence = []
    result = carried(
        cases.reread_as_implicit(header) if implicit else cases.reread(header), ("RequestAttributesSequence",)
    )
    item = result.OtherPatientIDsSequence[0]
    assert raw(item, PATIENT_ID) == "Zweit-Ä".encode()
    assert 0x00110010 not in item
    assert item.IssuerOfPatientIDQualifiersSequence[0].LocalNamespaceEntityID == "KLINIK"
    assert "ReferencedStudySequence" not in result
    order = result.RequestAttributesSequence[0]
    assert "ReferencedStudySequence" not in order
    assert raw(order, Tag("RequestedProcedureDescription")).rstrip() == "CT Thorax hochauflösend".encode()


def test_the_source_is_left_as_it_was() -> None:
    header = cases.synthetic(1)[0]
    before = cases.to_bytes(header)
    carried(header, ("RequestAttributesSequence",))
    source.placeholder(header)
    source.requests(header)
    source.patient_key(header)
    assert isinstance(header.get_item(NAME), RawDataElement)
    assert cases.to_bytes(header) == before


def test_a_value_that_was_read_before_is_written_again() -> None:
    header = cases.synthetic(1)[0]
    assert str(header.PatientName) == "Müller^Änne"
    assert raw(carried(header), NAME) == "Müller^Änne".encode() + b" "


def test_the_placeholder_tells_nobody_who_the_patient_is() -> None:
    text = str(source.placeholder(cases.synthetic(1)[0], "1.2.3"))
    assert "PAT-0001" not in text
    assert "ller" not in text
    assert "ACC0001" not in text


def test_a_missing_frame_of_reference_is_filled_in() -> None:
    header = cases.synthetic(1)[0]
    assert source.placeholder(header, "2.25.1").FrameOfReferenceUID == "1.2.3.5"
    del header.FrameOfReferenceUID
    assert source.placeholder(header, "2.25.1").FrameOfReferenceUID == "2.25.1"
    assert "FrameOfReferenceUID" not in header


def test_the_order_is_the_request_and_what_the_image_adds() -> None:
    header = cases.synthetic(1)[0]
    header.FillerOrderNumberImagingServiceRequest = "F-1"
    (request,) = source.requests(header)
    assert request.AccessionNumber == "ACC0001"
    assert request.RequestedProcedureID == "RP-1"
    assert request.FillerOrderNumberImagingServiceRequest == "F-1"
    assert request.StudyInstanceUID == "1.2.3"
    # Type 2 within an item: present though there is nothing to say.
    assert request.PlacerOrderNumberImagingServiceRequest is None or not request.PlacerOrderNumberImagingServiceRequest
    assert len(request.RequestedProcedureCodeSequence) == len(request.ReferencedStudySequence) == 0


def test_an_image_without_order_gives_none() -> None:
    header = cases.synthetic(1)[0]
    del header.RequestAttributesSequence, header.AccessionNumber
    assert source.requests(header) == []
    header.AccessionNumber = "A"
    assert len(source.requests(header)) == 1


def test_procedures_prefer_what_was_performed() -> None:
    header = cases.synthetic(1)[0]
    assert source.procedures(header)[0].CodeValue == "CTTHX"
    requested = Dataset()
    requested.CodeValue, requested.CodingSchemeDesignator, requested.CodeMeaning = "24627-2", "LN", "CT Chest"
    header.RequestedProcedureCodeSequence = [requested]
    assert source.procedures(header)[0].CodeValue == "CTTHX"
    del header.ProcedureCodeSequence[0].CodeMeaning
    assert source.procedures(header)[0].CodeValue == "24627-2"
    del header.RequestedProcedureCodeSequence
    assert source.procedures(header) == []


def test_patients_are_told_apart_by_id_and_issuer() -> None:
    header = cases.synthetic(1)[0]
    assert source.patient_key(header) == (b"patient", b"PAT-0001", b"HOSPITAL")
    padded = with_raw(cases.synthetic(1)[0], PatientID=b"PAT-0001  ")
    assert source.patient_key(padded) == source.patient_key(header)
    # Read before or not, the key is the same.
    assert header.PatientID == "PAT-0001"
    assert source.patient_key(header) == (b"patient", b"PAT-0001", b"HOSPITAL")


def test_without_an_id_the_study_stands_for_the_patient() -> None:
    header = cases.synthetic(1)[0]
    del header.PatientID
    assert source.patient_key(header) == (b"study", b"1.2.3")


def test_a_header_without_charset_and_without_patient(data: Path) -> None:
    file = pydicom.dcmread(data / "lungmask_2slices" / "0.dcm", stop_before_pixels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = carried(file)
    assert result.PatientName == ""


@pytest.mark.parametrize(
    "code",
    [
        {"CodeValue": "X\\1"},
        {"CodeValue": None, "LongCodeValue": "X\\1"},
        {"CodingSchemeDesignator": "99\\L"},
        {"CodingSchemeVersion": "1\\2"},
    ],
)
def test_a_code_of_which_any_part_reads_as_two_is_none(code: dict[str, str]) -> None:
    header, item = cases.synthetic(1)[0], pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "X1", "99LOCAL", "CT"
    header.ProcedureCodeSequence = [item]
    assert source.procedures(cases.reread(header))
    for keyword, value in code.items():
        setattr(item, keyword, value)
    assert source.procedures(cases.reread(header)) == []


@pytest.mark.parametrize("meaning", [b"CT\\Thorax", b"CT\x82\\"])
def test_a_code_whose_meaning_reads_as_two_is_none(meaning: bytes) -> None:
    """Also where the backslash is half a character (GB18030): readers that look at bytes see two values."""
    header = cases.synthetic(1)[0]
    header.SpecificCharacterSet = "GB18030"
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "X1", "99LOCAL"
    tag = Tag("CodeMeaning")
    item[tag] = RawDataElement(tag, "LO", len(meaning), meaning, 0, False, True)
    item.set_original_encoding(False, True, "gb18030")
    header.ProcedureCodeSequence = [item]
    request = pydicom.Dataset()
    request.RequestedProcedureID, request.RequestedProcedureCodeSequence = "R1", [item]
    header.RequestAttributesSequence = [request]
    assert source.procedures(header) == []
    (asked,) = source.requests(header)
    assert not asked.RequestedProcedureCodeSequence
    made = carried(header, ("RequestAttributesSequence",))
    assert "ProcedureCodeSequence" not in made
    assert "RequestedProcedureCodeSequence" not in made.RequestAttributesSequence[0]
