"""Reading headers: what is readable, what is truncated, and that elements stay as they came."""

import io
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomnode.analysis.series.headers import (
    ImageHeader,
    Unreadable,
    find_files,
    identifier,
    plain,
    read_headers,
    string,
)
from dicomnode.analysis.series.selection import group, select
from tests.helpers.ct_files import ct_series, write

ODD_FILES = {
    "CT_small.dcm": None,
    "ExplVR_BigEndNoMeta.dcm": None,
    "J2K_pixelrep_mismatch.dcm": None,
    "MR_truncated.dcm": None,
    "no_meta.dcm": "not-dicom",
    "meta_missing_tsyntax.dcm": "missing-uids",
    "empty_charset_LEI.dcm": "missing-uids",
    "rtplan_truncated.dcm": "truncated",
    "LICENSE": "not-dicom",
}


def read(path: Path) -> ImageHeader | Unreadable:
    headers, unreadable = read_headers([path])
    assert len(headers) + len(unreadable) == 1
    return (headers or unreadable)[0]


def code(path: Path) -> str | None:
    found = read(path)
    return found.reason.code if isinstance(found, Unreadable) else None


def test_find_files_is_recursive_sorted_and_skips_hidden_files_and_dicomdir(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "a/IM1", "a/.hidden", ".cache/x.dcm", "DICOMDIR", "b/dicomdir", "z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_files(tmp_path)] == ["a/IM1", "b/2.dcm", "z"]


@pytest.mark.parametrize(("name", "expected"), ODD_FILES.items())
def test_odd_files(data: Path, name: str, expected: str | None) -> None:
    assert code(data / "odd_pydicom" / name) == expected


def test_truncated_pixels_of_a_real_file_are_counted(data: Path) -> None:
    found = read(data / "odd_pydicom" / "MR_truncated.dcm")
    assert isinstance(found, ImageHeader)
    assert found.missing_bytes > 0


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 200, b"\0" * 128 + b"DICM", b"\xff" * 5000])
def test_what_is_no_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert code(path) in ("not-dicom", "missing-uids")


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    assert code(tmp_path / "none.dcm") == "unreadable"


@pytest.mark.parametrize("uid", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_is_named(tmp_path: Path, uid: str) -> None:
    dataset = ct_series()[0]
    [path] = write([dataset], tmp_path)
    del dataset[uid]
    dataset.preamble = b"\0" * 128
    dcmwrite(path, dataset)
    found = read(path)
    assert isinstance(found, Unreadable)
    assert found.reason.code == "missing-uids"
    assert uid in found.reason.text


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
)
def test_every_cut_is_noticed(tmp_path: Path, syntax: str) -> None:
    dataset = ct_series()[0]
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    [path] = write([dataset], tmp_path)
    whole = path.read_bytes()
    complete = read(path)
    assert isinstance(complete, ImageHeader)
    assert complete.missing_bytes == 0

    # An RLE fragment's end, the delimiter (8 bytes) and nothing else: that much may be lost without losing pixels.
    harmless = {len(whole) - 8} if syntax == RLELossless else set()
    # A deflated file may end in a padding byte.
    harmless |= {len(whole) - 1} if syntax == DeflatedExplicitVRLittleEndian else set()
    for length in set(range(len(whole))) - harmless:
        path.write_bytes(whole[:length])
        found = read(path)
        assert isinstance(found, Unreadable) or found.missing_bytes > 0, length


def test_a_header_without_pixel_data_lacks_all_of_them(tmp_path: Path) -> None:
    dataset = ct_series()[0]
    del dataset.PixelData
    found = read(write([dataset], tmp_path)[0])
    assert isinstance(found, ImageHeader)
    assert found.missing_bytes == 4 * 6 * 2


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_an_answer(content: bytes, with_preamble: bool) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" * 128 + b"DICM" + content if with_preamble else content)
        file.flush()
        read(Path(file.name))


def test_elements_stay_raw_through_selection(data: Path) -> None:
    headers, _ = read_headers(find_files(data / "chest_tiny_cip" / "ct-64Dicom"))
    chosen = select(group(headers)).chosen
    assert chosen is not None
    for h in chosen.headers:
        assert all(isinstance(h.dataset.get_item(tag), RawDataElement) for tag in h.dataset.keys())  # noqa: SIM118


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO 2022 IR 87", "NO SUCH SET "])
def test_names_come_through_byte_for_byte_in_any_character_set(tmp_path: Path, charset: str) -> None:
    name = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B \xff!"
    dataset = ct_series(SpecificCharacterSet="X" * len(charset), PatientName="y" * len(name))[0]
    path = tmp_path / "file.dcm"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    raw = buffer.getvalue().replace(b"X" * len(charset), charset.encode()).replace(b"y" * len(name), name)
    path.write_bytes(raw)
    found = read(path)
    assert isinstance(found, ImageHeader)
    assert identifier(found.dataset, "PatientName") == name


def test_compressed_files_keep_no_inflated_pixels_in_memory(tmp_path: Path) -> None:
    dataset = ct_series()[0]
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    found = read(write([dataset], tmp_path)[0])
    assert isinstance(found, ImageHeader)
    assert found.dataset.buffer is None  # type: ignore[attr-defined]
    assert "PixelData" not in found.dataset
    assert string(found.dataset, "SOPInstanceUID") == dataset.SOPInstanceUID


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("S\u0131rt\u00fcst\u00fc YATI\u015e", "sirtustu yatis"),
        ("\u0130YOT", "iyot"),
        ("S\u0131rtu\u0308stu\u0308", "sirtustu"),  # decomposed
        ("Stra\u00dfe \u00f8 \u00e6 \u0153 \u0142", "strasse o ae oe l"),
        ("Lung_1.0", "lung "),
    ],
)
def test_words_are_folded_alike_in_every_language(words: str, expected: str) -> None:
    assert plain(words) == expected
