"""The same image in another encoding is a resend; anything else under its UID is a conflict."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.store.sameness import same_content

#: program, package, options that re-encode a file without loss
ENCODERS = [
    ("dcmconv", "dcmtk", ("+te",)),
    ("dcmconv", "dcmtk", ("+ti",)),
    ("dcmconv", "dcmtk", ("+tb",)),
    ("dcmconv", "dcmtk", ("+td",)),
    ("dcmconv", "dcmtk", ("+e", "+g=")),
    ("dcmcrle", "dcmtk", ()),
    ("dcmcjpls", "dcmtk", ()),
    ("gdcmconv", "libgdcm-tools", ("--j2k",)),
]


@pytest.fixture(params=["chest_tiny_cip/ct-64Dicom/IMG0040.dcm", "chest_lidc0314_every4th"])
def image(request: pytest.FixtureRequest, data: Path) -> Path:
    path: Path = data / request.param
    return path if path.is_file() else sorted(path.glob("*.dcm"))[30]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: " ".join((e[0], *e[2])))
def test_another_encoding_is_the_same(
    encoder: tuple[str, str, tuple[str, ...]], image: Path, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    program, package, options = encoder
    encoded = tmp_path / "encoded.dcm"
    command = [peer(program, package), *options, str(image), str(encoded)]
    subprocess.run(command, check=True, capture_output=True)
    assert encoded.read_bytes() != image.read_bytes()
    assert same_content(image, encoded)


def test_another_value_is_another_image(image: Path, tmp_path: Path) -> None:
    changed = dcmread(image)
    changed.PatientName = "Somebody^Else"
    changed.save_as(tmp_path / "changed.dcm")
    assert not same_content(image, tmp_path / "changed.dcm")


def test_an_attribute_more_is_another_image(image: Path, tmp_path: Path) -> None:
    changed = dcmread(image)
    changed.ImageComments = "seen"
    changed.save_as(tmp_path / "changed.dcm")
    assert not same_content(image, tmp_path / "changed.dcm")


def test_one_pixel_makes_another_image(image: Path, tmp_path: Path) -> None:
    changed = dcmread(image)
    pixels = changed.pixel_array.copy()
    pixels[3, 4] += 1
    changed.PixelData = pixels.tobytes()
    changed.save_as(tmp_path / "changed.dcm")
    assert not same_content(image, tmp_path / "changed.dcm")


def test_what_cannot_be_read_is_not_the_same(image: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.dcm").write_bytes(image.read_bytes()[:2000])
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert not same_content(image, tmp_path / "torn.dcm")
    assert not same_content(image, tmp_path / "empty.dcm")
