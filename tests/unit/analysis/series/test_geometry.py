"""Planes and stacks."""

import numpy as np
import pytest

from dicomnode.analysis.series import geometry
from dicomnode.analysis.series.headers import ImageHeader
from tests.helpers.ct_files import AXIAL, ct_series

CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def oblique(degrees: float) -> tuple[float, ...]:
    angle = np.radians(degrees)
    return (1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle)))


@pytest.mark.parametrize(
    ("orientation", "degrees"),
    [
        (AXIAL, 0),
        ((-1, 0, 0, 0, -1, 0), 0),
        ((-1, 0, 0, 0, 1, 0), 0),
        ((0, 1, 0, -1, 0, 0), 0),
        (oblique(15), 15),
        (oblique(-30), 30),
        (CORONAL, 90),
        (SAGITTAL, 90),
        ((np.sqrt(0.5), np.sqrt(0.5), 0, -np.sqrt(0.5), np.sqrt(0.5), 0), 45),
    ],
)
def test_degrees_from_axial(orientation: tuple[float, ...], degrees: float) -> None:
    plane = geometry.plane(ct_series(orientation=orientation)[0])
    assert plane is not None
    assert geometry.degrees_from_axial(plane) == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize(
    "orientation",
    [["1", "0", "0", "0", "1"], ["1", "0", "0", "1", "0", "0"], ["2", "0", "0", "0", "1", "0"], ["0"] * 6, []],
)
def test_no_plane_without_two_orthogonal_unit_vectors(orientation: list[str]) -> None:
    dataset = ct_series()[0]
    dataset.ImageOrientationPatient = orientation
    assert geometry.plane(dataset) is None


def test_rounded_orientation_is_made_orthonormal() -> None:
    plane = geometry.plane(ct_series(ImageOrientationPatient=["0.9998", "0.0175", "0", "-0.0174", "0.9999", "0"])[0])
    assert plane is not None
    assert np.linalg.norm(plane.along_row) == pytest.approx(1)
    assert np.linalg.norm(plane.along_column) == pytest.approx(1)
    assert plane.along_row @ plane.along_column == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 0.2, 14.0])
def test_tilt_is_the_angle_between_steps_and_normal(tilt: float) -> None:
    datasets = ct_series(orientation=oblique(tilt))
    for i, d in enumerate(datasets):
        d.ImagePositionPatient = [0, 0, i * 5]
    planes = [p for p in map(geometry.plane, datasets) if p is not None]
    stack = geometry.stack(planes)
    assert stack.tilt_degrees == pytest.approx(tilt, abs=1e-3)
    assert stack.step_mm == pytest.approx(5 * np.cos(np.radians(tilt)))
    assert stack.off_line_mm == pytest.approx(0, abs=1e-9)


def test_positions_are_sorted_from_feet_to_head_and_skip_what_has_none() -> None:
    datasets = ct_series(step_mm=2.5)
    del datasets[7].ImagePositionPatient
    headers = [ImageHeader(None, d) for d in reversed(datasets)]  # type: ignore[arg-type]
    expected = [-300 + 2.5 * i for i in range(40) if i != 7]
    assert geometry.positions_mm(headers) == pytest.approx(expected)
    assert geometry.positions_mm([]) == []
