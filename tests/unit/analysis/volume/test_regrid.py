"""Tilted and unevenly spaced stacks: a linear ramp comes out exactly, and labels return to the source voxels."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.series.selection import Selection, group, read_headers, select
from dicomnode.analysis.volume import load as volume
from tests.helpers.ct_files import ct_series, write

#: HU per mm along the patient's x, y, z: linear interpolation of a linear function is exact (up to rounding).
SLOPE = np.array([2.0, -3.0, 1.5])


def world(d: Dataset) -> NDArray[np.float64]:
    """Patient coordinates of every pixel, (row, column, xyz): PS3.3 equation C.7.6.2.1-1."""
    position, orientation = np.array(d.ImagePositionPatient, float), np.array(d.ImageOrientationPatient, float)
    rows, columns = np.mgrid[: d.Rows, : d.Columns][..., None].astype(float)
    between_rows, between_columns = (float(v) for v in d.PixelSpacing)
    return position + orientation[:3] * between_columns * columns + orientation[3:] * between_rows * rows


def ramp(datasets: list[Dataset]) -> list[Dataset]:
    """Pixels that hold the ramp at their places."""
    for d in datasets:
        values = np.rint(world(d) @ SLOPE) + 1024
        d.PixelData = values.astype(np.int16).tobytes()
        d["PixelData"].VR = "OW"
    return datasets


def tilted(degrees: float, slices: int = 12, step_mm: float = 4.0, turn: int = 1) -> list[Dataset]:
    """Slices turned about the patient's x axis, while the table moves along z. `turn` -1: rows run upwards."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    datasets = ct_series(np.zeros((slices, 20, 6), np.int16), ImageOrientationPatient=[1, 0, 0, 0, turn * c, turn * s])
    for i, d in enumerate(datasets):
        d.ImagePositionPatient = [-10, -20, f"{-30 + i * step_mm:.4f}"]
    return ramp(datasets)


def uneven(positions_mm: list[float]) -> list[Dataset]:
    datasets = ct_series(np.zeros((len(positions_mm), 5, 6), np.int16))
    for d, z in zip(datasets, positions_mm, strict=True):
        d.ImagePositionPatient = [-10, -20, f"{z:.4f}"]
    return ramp(datasets)


def load(datasets: list[Dataset]) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        headers, _ = read_headers(write(datasets, Path(folder)))
        return volume.load(group(headers)[0])


def check_ramp(v: Volume, least_inside: float) -> None:
    """What is not padding is the ramp at its place."""
    z, y, x = np.indices(v.hu.shape, dtype=float)
    steps = np.stack([z, y, x], axis=-1) * v.spacing_mm
    expected = (np.array(v.origin_mm) + steps @ np.array(v.axes)) @ SLOPE
    inside = v.hu > -1024
    assert inside.mean() >= least_inside
    assert np.abs(v.hu[inside] - expected[inside]).max() <= 1.6  # rounded in the source, along y and along z


def check_way_back(v: Volume, datasets: list[Dataset]) -> None:
    """Each source voxel takes the label of the voxel that holds its centre."""
    labels = np.random.default_rng(0).integers(0, 3, v.hu.shape).astype(np.uint8)
    back = v.to_source(labels)
    by_uid = {d.SOPInstanceUID: d for d in datasets}
    compared = 0.0
    for frame, image in zip(v.frames, back, strict=True):
        from_origin = world(by_uid[frame.sop_instance_uid]) - np.array(v.origin_mm)
        index = from_origin @ np.array(v.axes).T / v.spacing_mm
        # Where a centre lies half way between two voxels, rounding of the header's decimals decides: leave these out.
        clear = (np.abs(np.abs(index - np.floor(index)) - 0.5) > 1e-3).all(axis=-1)
        nearest = np.rint(index).astype(int)
        assert (nearest >= 0).all()
        assert np.array_equal(image[clear], labels[tuple(nearest[clear].T)])
        compared += clear.mean() / len(v.frames)
    # Where a tilt moves each slice by half a pixel more, every other one lies between two rows.
    assert compared > 0.45


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.floats(0.6, 19).map(lambda v: round(v, 3)), sign=st.sampled_from([1, -1]), turn=st.sampled_from([1, -1])
)
def test_gantry_tilt(degrees: float, sign: int, turn: int) -> None:
    datasets = tilted(sign * degrees, turn=turn)
    v = load(datasets)
    assert v.source is not None
    assert np.allclose(np.array(v.axes) @ np.array(v.axes).T, np.eye(3), atol=1e-6)
    assert v.spacing_mm[0] == pytest.approx(4 * np.cos(np.radians(degrees)), abs=1e-3)
    shift = 11 * 4 * np.sin(np.radians(degrees)) / 0.8
    assert v.hu.shape[1] in (20 + int(np.floor(shift)), 20 + int(np.ceil(shift)))
    check_ramp(v, 0.9 * 19 / v.hu.shape[1])
    check_way_back(v, datasets)


UNEVEN = {
    "a step 20 % longer": [0, 2, 4, 6.4, 8.4, 10.4, 12.4],
    "steps that wander": [0, 2.4, 4.2, 6.4, 8.4, 10.6, 12.4, 14.7],
    "one slice of thin ones is missing": [0, 1, 2, 4, 5, 6, 7],
    "two slices are missing": [0, 1, 2, 5, 6, 7, 8],
}


@pytest.mark.parametrize("positions_mm", UNEVEN.values(), ids=UNEVEN.keys())
def test_uneven_steps(positions_mm: list[float]) -> None:
    datasets = uneven(positions_mm)
    v = load([datasets[i] for i in np.random.default_rng(2).permutation(len(datasets))])
    assert v.source is not None
    assert len(v.frames) == len(positions_mm)
    assert v.origin_mm[2] == 0
    assert v.origin_mm[2] + (v.hu.shape[0] - 1) * v.spacing_mm[0] == pytest.approx(positions_mm[-1])
    check_ramp(v, 1.0)
    check_way_back(v, datasets)


def test_tilted_and_uneven() -> None:
    datasets = tilted(10, step_mm=2)
    del datasets[5]
    for d in datasets:
        d.ImagePositionPatient[2] = float(d.ImagePositionPatient[2]) * 0.7
    ramp(datasets)
    v = load(datasets)
    assert (len(v.frames), v.hu.shape[0]) == (11, 12)
    check_ramp(v, 0.5)
    check_way_back(v, datasets)


def test_an_even_stack_is_not_touched() -> None:
    datasets = ramp(ct_series())
    v = load(datasets)
    assert v.source is None
    check_way_back(v, datasets)


def chosen(datasets: list[Dataset], folder: Path) -> Selection:
    return select(group(read_headers(write(datasets, folder))[0]))


@pytest.mark.parametrize(
    ("datasets", "code"),
    [
        (tilted(12, slices=40), "tilt-resampled"),
        (uneven([2.0 * i + (0.4 if i == 50 else 0) for i in range(100)]), "spacing-resampled"),
        (uneven([1.0 * i for i in range(200) if i != 50]), "gaps-filled"),
    ],
)
def test_the_reader_is_told(tmp_path: Path, datasets: list[Dataset], code: str) -> None:
    selection = chosen(datasets, tmp_path)
    assert selection.chosen is not None
    assert {"tilt-resampled", "spacing-resampled", "gaps-filled"} & {f.code for f in selection.flags} == {code}
