"""Our volume against SimpleITK's reader: real chests, made orientations, other people's encodings."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless
from scipy.ndimage import binary_erosion

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.series.selection import find_files, group, read_headers, select
from dicomnode.analysis.volume import decode, load


def ours(folder: Path) -> Volume:
    headers, unreadable = read_headers(find_files(folder))
    chosen = select(group(headers), unreadable).chosen
    assert chosen is not None
    return load.load(chosen)


def theirs(folder: Path) -> sitk.Image:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.DICOMOrient(sitk.ReadImage(names), "LPS")


def assert_same(mine: Volume, image: sitk.Image) -> None:
    assert np.array_equal(mine.hu, np.rint(sitk.GetArrayFromImage(image)))
    assert mine.spacing_mm[::-1] == pytest.approx(image.GetSpacing(), abs=1e-3)
    assert mine.origin_mm == pytest.approx(image.GetOrigin(), abs=1e-3)
    # SimpleITK's direction has the axes x, y, z as columns; ours has z, y, x as rows.
    assert np.array(mine.axes)[::-1].T.ravel() == pytest.approx(image.GetDirection(), abs=1e-3)


@pytest.fixture
def chest(data: Path, tmp_path: Path) -> Path:
    """The tiny chest under shuffled file names, to be changed."""
    folder = tmp_path / "chest"
    folder.mkdir()
    files = find_files(data / "chest_tiny_cip" / "ct-64Dicom")
    names = list(range(len(files)))
    random.Random(0).shuffle(names)
    for name, file in zip(names, files, strict=True):
        shutil.copy(file, folder / f"{name}.dcm")
    return folder


@pytest.mark.parametrize("folder", ["chest_tiny_cip/ct-64Dicom", "chest_lidc0314_every4th"])
def test_real_chests(data: Path, folder: str) -> None:
    assert_same(ours(data / folder), theirs(data / folder))


def test_shuffled_file_names(chest: Path) -> None:
    assert_same(ours(chest), theirs(chest))


@pytest.mark.parametrize(
    ("posture", "orientation"),
    [
        ("HFP", [-1, 0, 0, 0, -1, 0]),
        ("FFS", [-1, 0, 0, 0, 1, 0]),
        ("FFP", [1, 0, 0, 0, -1, 0]),
        ("HFDR", [0, 1, 0, -1, 0, 0]),
        ("HFDL", [0, -1, 0, 1, 0, 0]),
        ("FFDR", [0, 1, 0, 1, 0, 0]),
        ("FFDL", [0, -1, 0, -1, 0, 0]),
        ("HFS", [0.9961946981, 0.0871557427, 0, -0.0871557427, 0.9961946981, 0]),
    ],
)
def test_postures(chest: Path, posture: str, orientation: list[float]) -> None:
    for path in chest.iterdir():
        dataset = dcmread(path)
        dataset.ImageOrientationPatient, dataset.PatientPosition = orientation, posture
        dataset.PixelSpacing = ["4.2", "3.9"]
        dataset.save_as(path)
    assert_same(ours(chest), theirs(chest))


ENCODERS: dict[str, Callable[[str, str], list[str]]] = {
    "gdcmconv --j2k": lambda a, b: ["--j2k", a, b],
    "gdcmconv --jpegls": lambda a, b: ["--jpegls", a, b],
    "gdcmconv --jpeg": lambda a, b: ["--jpeg", a, b],
    "gdcmconv --rle": lambda a, b: ["--rle", a, b],
    "dcmcjpls": lambda a, b: [a, b],
    "dcmcjpeg": lambda a, b: [a, b],
    "dcmcrle": lambda a, b: [a, b],
    "dcmconv +td": lambda a, b: ["+td", a, b],
    "dcmconv +tb": lambda a, b: ["+tb", a, b],
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_other_peoples_encodings(data: Path, tmp_path: Path, peer: Callable[[str, str], str], encoder: str) -> None:
    """Lossless: the same HU as from the files as they were. Real 512x512 images, a few of them."""
    name, *_ = encoder.split()
    program = peer(name, "libgdcm-tools" if name == "gdcmconv" else "dcmtk")
    files = find_files(data / "chest_lidc0314_every4th")
    headers, _ = read_headers(files)
    some = sorted(headers, key=lambda h: float(h.dataset.ImagePositionPatient[2]))[:6]
    for i, h in enumerate(some):
        subprocess.run([program, *ENCODERS[encoder](str(h.path), str(tmp_path / f"{i}.dcm"))], check=True)
    encoded, unreadable = read_headers(find_files(tmp_path))
    assert not unreadable
    assert all(h.missing_bytes == 0 for h in encoded)
    expected = load.load(group(some)[0])
    found = load.load(group(encoded)[0])
    assert np.array_equal(found.hu, expected.hu)
    assert found.origin_mm == expected.origin_mm


def test_high_throughput_jpeg_2000(data: Path, tmp_path: Path, peer: Callable[[str, str], str]) -> None:
    """Encoded by OpenJPH, which is not the decoder's library (OpenJPEG)."""
    program = peer("ojph_compress", "openjph-tools")
    headers, _ = read_headers(find_files(data / "chest_lidc0314_every4th")[:60:20])
    some = sorted(headers, key=lambda h: float(h.dataset.ImagePositionPatient[2]))
    for i, h in enumerate(some):
        dataset = dcmread(h.path)
        size = f"{{{dataset.Columns},{dataset.Rows}}}"
        raw, stream = tmp_path / "image.yuv", tmp_path / "image.j2c"
        raw.write_bytes(dataset.PixelData)
        options = ["-num_comps", "1", "-signed", "false", "-bit_depth", "12", "-downsamp", "{1,1}"]
        arguments = ["-i", str(raw), "-o", str(stream), "-dims", size, *options, "-reversible", "true"]
        subprocess.run([program, *arguments], check=True, capture_output=True)
        dataset.PixelData = encapsulate([stream.read_bytes()])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.save_as(tmp_path / f"{i}.dcm")
        stream.unlink()
        raw.unlink()
    encoded, unreadable = read_headers(find_files(tmp_path))
    assert not unreadable
    for before, after in zip(some, encoded, strict=True):
        assert after.missing_bytes == 0
        assert np.array_equal(decode.image(after), decode.image(before))


@pytest.mark.parametrize("folder", ["nonstandard_ct_dicom2nifti/gantrytilting"])
def test_real_gantry_tilt_against_simpleitk(data: Path, folder: str) -> None:
    """Real tilted slices: at each of our voxels, what SimpleITK interpolates linearly within the slice there."""
    headers, _ = read_headers(find_files(data / folder))
    mine = load.load(group(headers)[0])
    assert mine.source is not None
    for z, frame in enumerate(mine.frames):
        image = sitk.ReadImage(str(frame.path))
        corner = np.array(mine.origin_mm) + z * mine.spacing_mm[0] * np.array(mine.axes[0])
        grid = sitk.Image(mine.hu.shape[2], mine.hu.shape[1], 1, sitk.sitkFloat32)
        grid.SetOrigin(corner.tolist())
        grid.SetSpacing(mine.spacing_mm[::-1])
        grid.SetDirection(np.array(mine.axes)[::-1].T.ravel().tolist())
        resampled = sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), grid, defaultPixelValue=-5000)
        expected = sitk.GetArrayFromImage(resampled)[0]
        # SimpleITK goes on for half a pixel beyond the centres of the outermost ones.
        inside = binary_erosion(expected > -4000)
        assert inside.mean() > 0.5
        assert np.abs(mine.hu[z][inside] - expected[inside]).max() <= 1.0
