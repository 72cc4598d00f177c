"""The header from raw bytes: every uncompressed encoding, real files, and rubbish."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode

from dicomnode.reception.header import HeaderError, InstanceHeader, parse

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def ct(**changes: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientID = "KOELN"
    dataset.ImagePositionPatient = [-200.5, -100, -567.25]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    # A sequence in front of the wanted elements must be stepped over in every encoding.
    dataset.ReferencedStudySequence = [Dataset()]
    dataset.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "9.9.9"
    dataset.Rows = 512  # behind the last wanted element: there the reading by hand ends
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    data = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert data is not None
    return data


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_encoding_gives_the_same_header(syntax: UID) -> None:
    header = parse(encoded(ct(), syntax), syntax)
    assert header == parse(encoded(ct()), ExplicitVRLittleEndian)
    assert header == InstanceHeader(
        sop_class_uid=CTImageStorage,
        sop_instance_uid="1.2.3.4",
        study_uid="1.2",
        series_uid="1.2.3",
        modality="CT",
        patient_hash=header.patient_hash,
        image_type="ORIGINAL\\PRIMARY\\AXIAL",
        orientation="1.000\\0.000\\0.000\\0.000\\1.000\\0.000",
        slice_position=-567.25,
    )


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=lambda syntax: syntax.name)
def test_sequences_of_undefined_length(syntax: UID) -> None:
    dataset = ct()
    dataset["ReferencedStudySequence"].is_undefined_length = True
    dataset.ReferencedStudySequence[0].is_undefined_length_sequence_item = True
    assert parse(encoded(dataset, syntax), syntax).series_uid == "1.2.3"


def test_oblique_slices_are_measured_along_their_normal() -> None:
    header = parse(encoded(ct(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])), ExplicitVRLittleEndian)  # sagittal
    assert header.slice_position == pytest.approx(200.5)


@pytest.mark.parametrize(
    "change",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": [1, 0, 0]},
    ],
)
def test_no_usable_geometry_is_no_error(change: dict[str, object]) -> None:
    header = parse(encoded(ct(**change)), ExplicitVRLittleEndian)
    assert (header.orientation, header.slice_position) == ("", None)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"PatientID": "KOELN "}, True),
        ({"PatientID": "P2"}, False),
        ({"PatientID": ""}, False),
        ({"IssuerOfPatientID": "HOSPITAL"}, False),
        ({"PatientID": "P", "IssuerOfPatientID": "1"}, False),
        ({"PatientName": "Doe^Jane"}, True),
    ],
)
def test_patients_are_told_apart_by_id_and_issuer(other: dict[str, object], same: bool) -> None:
    first = parse(encoded(ct()), ExplicitVRLittleEndian).patient_hash
    assert (parse(encoded(ct(**other)), ExplicitVRLittleEndian).patient_hash == first) is same
    assert "KOELN" not in first


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_is_named_by_its_tag_without_its_value(keyword: str) -> None:
    dataset = ct()
    delattr(dataset, keyword)
    with pytest.raises(HeaderError, match="no value for the UID"):
        parse(encoded(dataset), ExplicitVRLittleEndian)


def test_real_files(data: Path) -> None:
    """Implicit VR from a real scanner: the same as pydicom reads."""
    for path in sorted((data / "chest_lidc0314_every4th").glob("*.dcm"))[:5]:
        dataset = dcmread(path, stop_before_pixels=True)
        raw = path.read_bytes()
        start = 132 + 12 + dataset.file_meta.FileMetaInformationGroupLength
        header = parse(raw[start:], dataset.file_meta.TransferSyntaxUID)
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        assert header.series_uid == dataset.SeriesInstanceUID
        assert header.slice_position == pytest.approx(float(dataset.ImagePositionPatient[2]))
        assert header.image_type == "\\".join(dataset.ImageType)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@given(data=st.binary(max_size=300))
def test_rubbish_is_a_header_error_and_nothing_else(syntax: UID, data: bytes) -> None:
    with pytest.raises(HeaderError):
        parse(data, syntax)


@given(cut=st.integers(0, 200), syntax=st.sampled_from(SYNTAXES))
def test_truncated_datasets(cut: int, syntax: UID) -> None:
    whole = encoded(ct(), syntax)
    try:
        header = parse(whole[: len(whole) - cut], syntax)
    except HeaderError:
        return
    assert header.sop_instance_uid == "1.2.3.4"
