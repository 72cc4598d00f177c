"""Pixels to a canonical volume in HU, in any orientation and order, and back to the source images."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.series.selection import group, read_headers
from dicomnode.analysis.volume import decode
from dicomnode.analysis.volume import load as volume
from dicomnode.errors import RefusedError
from tests.helpers.ct_files import AXIAL, ct_series, write

#: Every axial orientation by quarter turns and flips: rows run along ±x or ±y, columns along the other.
X, Y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
TURNS = [
    tuple(a * v for v in row) + tuple(b * v for v in column)
    for (row, column), a, b in itertools.product([(X, Y), (Y, X)], (1, -1), (1, -1))
]


def load(datasets: list[Dataset], folder: Path) -> Volume:
    headers, unreadable = read_headers(write(datasets, folder))
    assert not unreadable
    return volume.load(group(headers)[0])


def rotation(degrees: float, axis: int) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    plane = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[np.ix_(plane, plane)] = [[c, -s], [s, c]]
    return matrix


def world_of_voxel(v: Volume, z: int, y: int, x: int) -> NDArray[np.float64]:
    steps = np.array([z, y, x]) * v.spacing_mm
    return np.array(v.origin_mm) + steps @ np.array(v.axes)


def world_of_pixel(d: Dataset, row: int, column: int) -> NDArray[np.float64]:
    """PS3.3 equation C.7.6.2.1-1."""
    position, orientation = np.array(d.ImagePositionPatient, float), np.array(d.ImageOrientationPatient, float)
    between_rows, between_columns = (float(v) for v in d.PixelSpacing)
    return position + orientation[:3] * between_columns * column + orientation[3:] * between_rows * row


@settings(max_examples=60, deadline=None)
@given(
    turn=st.sampled_from(TURNS),
    order=st.permutations(range(5)),
    degrees=st.floats(-18, 18),
    axis=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_pixel_lands_at_its_place_and_comes_back(
    turn: tuple[float, ...], order: list[int], degrees: float, axis: int, seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(-1000, 4000, (5, 3, 4)).astype(np.int16)
    oriented = (rotation(degrees, axis) @ np.array(turn).reshape(2, 3).T).T.ravel()
    datasets = ct_series(stored, step_mm=1.25, orientation=oriented)
    with tempfile.TemporaryDirectory() as folder:
        v = load([datasets[i] for i in order], Path(folder))

    assert v.spacing_mm[0] == pytest.approx(1.25, abs=1e-5)
    assert all(v.axes[i][2 - i] > 0.9 for i in range(3)), "axes point to head, back and left"
    assert np.allclose(np.array(v.axes) @ np.array(v.axes).T, np.eye(3), atol=1e-6)
    assert [f.sop_instance_uid for f in v.frames] == [d.SOPInstanceUID for d in datasets]

    # A voxel's address, pushed through to_source, says which source pixel it came from.
    address = np.arange(v.hu.size, dtype=np.uint8).reshape(v.hu.shape)
    back = v.to_source(address)
    assert back.shape == stored.shape
    for z, row, column in np.ndindex(stored.shape):
        [(_, y, x)] = np.argwhere(address == back[z, row, column])
        assert v.hu[z, y, x] == stored[z, row, column] - 1024
        assert world_of_voxel(v, z, y, x) == pytest.approx(world_of_pixel(datasets[z], row, column), abs=1e-4)


@pytest.mark.parametrize("turn", TURNS)
def test_the_same_anatomy_gives_the_same_volume_in_any_posture(tmp_path: Path, turn: tuple[float, ...]) -> None:
    """Decubitus, prone and feet first are quarter turns and flips of the images, not of the patient."""
    canonical = np.random.default_rng(1).integers(0, 3000, (6, 4, 4)).astype(np.int16)
    transposed = abs(turn[0]) < 0.5
    frames = canonical.transpose(0, 2, 1) if transposed else canonical
    flips = [sum(turn[3:]) < 0, sum(turn[:3]) < 0]
    frames = frames[:, :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    v = load(ct_series(frames, orientation=turn), tmp_path)
    assert np.array_equal(v.hu, canonical - 1024)
    assert np.array_equal(v.to_source((v.hu % 251).astype(np.uint8)), ((frames - 1024) % 251).astype(np.uint8))
    assert v.spacing_mm == pytest.approx((5.0, 0.7, 0.8) if transposed else (5.0, 0.8, 0.7))


@pytest.mark.parametrize(
    ("attributes", "stored", "hu"),
    [
        ({}, [0, 1, 1024], [-1024, -1023, 0]),
        ({"RescaleIntercept": "0"}, [-2000, 5, 32767], [-2000, 5, 32767]),
        ({"RescaleSlope": "2.5", "RescaleIntercept": "-1000.4"}, [0, 1, 3], [-1000, -998, -993]),
        ({"RescaleSlope": "30"}, [-2000, 0, 2000], [-32768, -1024, 32767]),
        ({"PixelPaddingValue": -2000}, [-2000, -1999, 0], [-3024, -3023, -1024]),
        ({"PixelPaddingValue": 0, "RescaleIntercept": "0"}, [0, 1, 2], [-1024, 1, 2]),
        ({"PixelPaddingValue": 7, "PixelPaddingRangeLimit": 5, "RescaleIntercept": "0"}, [4, 5, 7], [4, -1024, -1024]),
        ({"PixelPaddingValue": 63536, "RescaleIntercept": "0"}, [-2000, 0, 1], [-2000, 0, 1]),
        ({"PixelPaddingValue": 65535, "RescaleIntercept": "0"}, [-1, 0, 1], [-1024, 0, 1]),
    ],
)
def test_hounsfield(attributes: dict[str, object], stored: list[int], hu: list[int]) -> None:
    dataset = ct_series(**attributes)[0]
    found = decode.hounsfield(dataset, np.array(stored, np.int16))
    assert found.dtype == np.int16
    assert found.tolist() == hu


@given(
    st.sampled_from((np.int16, np.uint16)),
    st.lists(st.integers(0, 65535), min_size=1, max_size=6),
    st.integers(-70_000, 70_000),
)
def test_hounsfield_of_16_bits_is_that_of_wide_arithmetic(
    kind: type[np.int16 | np.uint16], bits: list[int], intercept: int
) -> None:
    stored = np.array(bits, np.uint16).view(kind)
    dataset = ct_series(RescaleIntercept=str(intercept))[0]
    expected = np.clip(stored.astype(np.int64) + intercept, -32768, 32767)
    assert decode.hounsfield(dataset, stored).tolist() == expected.tolist()


def test_padding_of_unsigned_pixels_given_as_a_negative_number() -> None:
    dataset = ct_series(PixelRepresentation=0, PixelPaddingValue=-1, RescaleIntercept="0")[0]
    assert decode.hounsfield(dataset, np.array([65535, 7], np.uint16)).tolist() == [-1024, 7]


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    datasets = ct_series(np.full((4, 2, 2), 100, np.int16))
    for i, d in enumerate(datasets):
        d.RescaleSlope, d.RescaleIntercept = str(i + 1), str(-i)
    assert load(datasets, tmp_path).hu[:, 0, 0].tolist() == [100, 199, 298, 397]


@pytest.mark.parametrize("signed", [0, 1])
def test_unused_bits_are_no_part_of_the_value(tmp_path: Path, signed: int) -> None:
    """Old scanners put overlays into the bits above High Bit (PS3.5 8.1.1)."""
    stored = np.array([[[5, 0xF00 - 0x1000 if signed else 0xF00]]] * 3, np.int16)
    datasets = ct_series(stored & 0x0FFF | 0x5000, BitsStored=12, HighBit=11, PixelRepresentation=signed)
    assert np.array_equal(load(datasets, tmp_path).hu, stored - 1024)


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
def test_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    stored = np.random.default_rng(3).integers(-1000, 4000, (4, 5, 6)).astype(np.int16)
    datasets = ct_series(stored)
    for d in datasets:
        if syntax == RLELossless:
            d.compress(RLELossless, generate_instance_uid=False)
        if syntax == ExplicitVRBigEndian:
            d.PixelData = np.frombuffer(d.PixelData, "<i2").astype(">i2").tobytes()
        d.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(load(datasets, tmp_path).hu, stored - 1024)


@pytest.mark.parametrize("size", [768, 1024])
def test_oversized_matrices(tmp_path: Path, size: int) -> None:
    stored = np.random.default_rng(4).integers(-1000, 4000, (2, size, size)).astype(np.int16)
    assert np.array_equal(load(ct_series(stored), tmp_path).hu, stored - 1024)


@pytest.mark.parametrize(
    ("bits", "signed", "values", "intercept"),
    [
        (12, 0, [0, 1024, 4095], -1024),
        (12, 1, [-2048, 0, 2047], 0),
        (16, 0, [0, 32768, 65535], -32768),
        (16, 1, [-32768, 0, 32767], 0),
    ],
)
def test_depths_and_signs(tmp_path: Path, bits: int, signed: int, values: list[int], intercept: int) -> None:
    stored = np.tile(np.array(values), (3, 2, 1))
    pixels = (stored % (1 << bits)).astype(np.uint16).astype(np.int16)
    datasets = ct_series(pixels, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed)
    for d in datasets:
        d.RescaleIntercept = str(intercept)
    assert np.array_equal(load(datasets, tmp_path).hu, stored + intercept)


def test_a_file_without_file_meta_information_is_read(tmp_path: Path) -> None:
    datasets = ct_series()
    for i, d in enumerate(datasets):
        del d.file_meta
        d.save_as(tmp_path / f"{i}", implicit_vr=True, little_endian=True)
    headers, unreadable = read_headers(sorted(tmp_path.iterdir()))
    assert not unreadable
    expected = np.stack([np.frombuffer(d.PixelData, "<i2").reshape(4, 6) for d in datasets])
    assert np.array_equal(volume.load(group(headers)[0]).hu, expected - 1024)


def test_progress_counts_up_to_the_number_of_slices(tmp_path: Path) -> None:
    headers, _ = read_headers(write(ct_series(), tmp_path))
    calls: list[tuple[int, int]] = []
    volume.load(group(headers)[0], lambda done, total: calls.append((done, total)))
    assert calls == [(i, 40) for i in range(1, 41)]


def refusal(datasets: list[Dataset], folder: Path) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        load(datasets, folder)
    assert "SECRET" not in caught.value.text.upper()
    return caught.value


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    assert refusal(ct_series()[:1], tmp_path).code == "too-few-slices"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("ImagePositionPatient", ["-10", "-20", "-295"], "duplicate-positions"),
        ("ImagePositionPatient", ["-10", "-20", "-291.5"], "non-uniform"),
        ("ImageOrientationPatient", [-v for v in AXIAL], "mixed-orientation"),
        ("RescaleSlope", "", "no-rescale"),
        ("PixelSpacing", ["0.8", "0.8"], "mixed-size"),
        ("PhotometricInterpretation", "MONOCHROME1", "not-monochrome2"),
    ],
)
def test_what_is_no_regular_stack_is_refused(tmp_path: Path, keyword: str, value: object, code: str) -> None:
    datasets = ct_series()
    setattr(datasets[2], keyword, value)
    assert refusal(datasets, tmp_path).code == code


def test_damaged_pixels_name_the_image_and_not_the_patient(tmp_path: Path) -> None:
    datasets = ct_series()
    for d in datasets:
        d.compress(RLELossless, generate_instance_uid=False)
    damaged = bytearray(datasets[7].PixelData)
    damaged[20:24] = b"\xff" * 4  # the number of RLE segments (PS3.5 G.5)
    datasets[7].PixelData = bytes(damaged)
    error = refusal(datasets, tmp_path)
    assert error.code == "undecodable"
    assert datasets[7].SOPInstanceUID in error.text


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    headers, _ = read_headers(write(ct_series(), tmp_path))
    headers[3].path.unlink()
    with pytest.raises(RefusedError, match=str(headers[3].dataset.SOPInstanceUID)) as caught:
        volume.load(group(headers)[0])
    assert caught.value.code == "unreadable"
