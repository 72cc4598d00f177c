"""What a person sees of two versions of an object."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.store.differences import UNREADABLE, Difference, differences


def write(path: Path, implicit: bool = False, **attributes: object) -> Path:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID, made.PatientID = CTImageStorage, "1.2.3", "A"
    item = Dataset()
    item.AccessionNumber = "1"
    made.RequestAttributesSequence = [item]
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    made.add_new(0x7FE00010, "OW", b"\1\0\2\0")
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)
    return path


def test_attributes_are_named_and_their_values_shown(tmp_path: Path) -> None:
    a = write(tmp_path / "a", InstitutionName="X" * 64)
    b = write(tmp_path / "b", PatientID="B", PatientName="C")
    assert differences(a, b) == (
        Difference("InstitutionName", "X" * 64, "(absent)"),
        Difference("PatientName", "(absent)", "C"),
        Difference("PatientID", "A", "B"),
    )


def test_another_encoding_differs_in_nothing(tmp_path: Path) -> None:
    assert differences(write(tmp_path / "a"), write(tmp_path / "b", implicit=True)) == ()


def test_sequences_and_pixels_are_compared_by_content(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    other = pydicom.dcmread(b)
    other.RequestAttributesSequence[0].AccessionNumber = "2"
    other.PixelData = b"\1\0\3\0"
    other.Rows, other.Columns, other.BitsAllocated, other.BitsStored, other.HighBit = 1, 2, 16, 16, 15
    other.SamplesPerPixel, other.PhotometricInterpretation, other.PixelRepresentation = 1, "MONOCHROME2", 0
    other.save_as(tmp_path / "c")
    only = pydicom.dcmread(tmp_path / "c")
    only.PixelData = b"\1\0\2\0"
    only.save_as(a)
    found = {d.attribute: (d.before, d.after) for d in differences(a, tmp_path / "c")}
    assert found == {"PixelData": ("(4 bytes)", "(4 bytes)")}
    assert "RequestAttributesSequence" in {d.attribute for d in differences(b, tmp_path / "c")}


@pytest.mark.parametrize("content", [b"", b"no DICOM file", b"\0" * 128 + b"DICM"])
def test_a_version_that_cannot_be_read_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken").write_bytes(content)
    named = {d.attribute for d in differences(write(tmp_path / "a"), tmp_path / "broken")}
    assert UNREADABLE in named or "PatientID" in named
