"""Volumes and plausibility of a lung mask, on boxes whose sizes are known."""

import numpy as np
import pytest

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Volume
from dicomnode.analysis.lungs import segmenter
from dicomnode.analysis.lungs.classical import ClassicalSegmenter

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
#: 1 cm voxels: one voxel is 1 ml, one pixel 1 cm².
CM = (10.0, 10.0, 10.0)


def boxes(
    right: tuple[int, int, int] = (20, 10, 10),
    left: tuple[int, int, int] = (20, 10, 9),
    bottom: int = 5,
    hu: int = -850,
) -> tuple[Volume, Labels]:
    """A body of 30 x 30 x 40 cm in air; a box for each lung, sizes (z, y, x) in cm."""
    labels = np.zeros((30, 34, 44), dtype=np.uint8)
    labels[bottom : bottom + right[0], 5 : 5 + right[1], 5 : 5 + right[2]] = RIGHT
    labels[bottom : bottom + left[0], 5 : 5 + left[1], 25 : 25 + left[2]] = LEFT
    array = np.full(labels.shape, -1000, dtype=np.int16)
    array[:, 2:-2, 2:-2] = 40
    array[labels > 0] = hu
    return Volume(array, CM, (0.0, 0.0, 0.0), AXES, ()), labels


def flagged(volume: Volume, labels: Labels) -> dict[str, str]:
    return {flag.code: flag.severity for flag in segmenter.check(volume, labels)}


def test_volumes_are_voxels_times_voxel_volume() -> None:
    found = segmenter.volumes(*boxes())
    assert (found.right, found.left, found.total) == (pytest.approx(2000), pytest.approx(1800), pytest.approx(3800))


def test_a_plausible_mask_has_no_flags() -> None:
    assert flagged(*boxes()) == {}


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (boxes((10, 7, 7), (10, 7, 7)), {"lung-volume-low": "warning"}),
        (boxes((8, 5, 6), (8, 5, 6)), {"lung-volume-low": "error"}),
        (boxes((20, 10, 10), (20, 10, 4)), {"lungs-unequal": "warning"}),
        (boxes((20, 8, 6), (20, 10, 10)), {"lungs-unequal": "warning"}),
        (boxes((20, 12, 10), (0, 0, 0)), {"one-lung": "warning"}),
        (boxes((3, 4, 4), (20, 10, 10)), {"one-lung": "warning"}),
        (boxes(bottom=0), {"cut-off-base": "error"}),
        (boxes(bottom=10), {"cut-off-apex": "error"}),
        (boxes((28, 20, 19), (28, 20, 18), bottom=1), {"lung-volume-high": "warning"}),
        (boxes((20, 9, 8), (20, 9, 8), hu=-700), {"low-inspiration": "info"}),
        (boxes(hu=-450), {"lungs-dense": "warning"}),
        (boxes((0, 0, 0), (0, 0, 0)), {"lung-volume-low": "error"}),
    ],
)
def test_what_is_doubtful_is_flagged_and_nothing_else(drawn: tuple[Volume, Labels], expected: dict[str, str]) -> None:
    assert flagged(*drawn) == expected


def test_small_aerated_lungs_are_not_called_shallow_inspiration() -> None:
    assert flagged(*boxes((20, 9, 8), (20, 9, 8), hu=-850)) == {}


def test_a_sliver_in_the_last_slice_is_not_cut_off() -> None:
    volume, labels = boxes()
    labels[-1, 5:7, 5:10] = RIGHT
    assert flagged(volume, labels) == {}


def test_swapped_sides_are_an_error() -> None:
    volume, labels = boxes()
    swapped = np.choose(labels, np.array([0, LEFT, RIGHT], dtype=np.uint8))
    assert flagged(volume, swapped) == {"sides-swapped": "error"}


def test_holes_are_flagged() -> None:
    volume, labels = boxes()
    labels[8:12, 8:12, 8:12] = 0
    assert flagged(volume, labels) == {"mask-holes": "warning"}


@pytest.mark.parametrize("lung", [(20, 28, 19), (20, 3, 8)])
def test_a_mask_that_fills_the_body_or_hardly_any_of_it_is_flagged(lung: tuple[int, int, int]) -> None:
    assert flagged(*boxes(lung, lung))["lung-share-of-body"] == "warning"


def test_texts_name_the_values() -> None:
    (flag,) = segmenter.check(*boxes((10, 7, 7), (10, 7, 7)))
    assert "980 ml" in flag.text
    assert "1000 ml" in flag.text


def test_the_real_chest_is_plausible(tiny_cip: Volume) -> None:
    assert flagged(tiny_cip, ClassicalSegmenter()(tiny_cip)) == {}


def test_the_raised_hemidiaphragm_is_flagged_and_cut_volumes_too(lidc0314: Volume) -> None:
    labels = ClassicalSegmenter()(lidc0314)
    assert flagged(lidc0314, labels) == {"lungs-unequal": "warning"}
    middle = slice(30, 45)
    part = Volume(lidc0314.hu[middle], lidc0314.spacing_mm, lidc0314.origin_mm, AXES, ())
    assert {"cut-off-base", "cut-off-apex"} <= flagged(part, labels[middle]).keys()
