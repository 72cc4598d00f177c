"""Labels of every slice from labels of some."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.lungs.steps import between, chosen
from dicomnode.analysis.phantom import phantom


@given(st.integers(1, 400), st.floats(0.3, 8), st.floats(0, 5))
def test_slices_are_no_further_apart_than_the_step(slices: int, spacing_mm: float, step_mm: float) -> None:
    at = chosen(slices, spacing_mm, step_mm)
    assert at[0] == 0 and at[-1] == slices - 1
    apart = np.diff(at)
    assert (apart > 0).all()
    assert apart.max(initial=1) * spacing_mm <= max(spacing_mm, step_mm + 0.002 * spacing_mm)
    if step_mm < spacing_mm * 0.99:
        assert len(at) == slices


def test_a_step_is_taken_as_far_as_it_goes() -> None:
    assert list(chosen(10, 1.0, 3.0)) == [0, 3, 6, 9]
    assert list(chosen(9, 0.49999, 1.0)) == [0, 2, 4, 6, 8]
    assert list(chosen(1, 1.0, 3.0)) == [0]


def test_a_cone_is_cut_straight() -> None:
    """Discs whose radius grows by two pixels a slice."""
    y, x = np.mgrid[:120, :120] - 60.0
    radius = 10 + 2 * np.arange(13)[:, None, None]
    cone = (np.hypot(y, x)[None] <= radius).astype(np.uint8)
    at = chosen(13, 1.0, 3.0)
    found = between(cone[at], at, 13)
    assert (found[at] == cone[at]).all()
    assert (found != cone).sum() / cone.sum() < 0.01


def test_both_labels_meet_without_a_gap() -> None:
    labels = np.zeros((3, 60, 60), np.uint8)
    for z, edge in enumerate((27, 30, 33)):
        labels[z, 2:58, 2:edge], labels[z, 2:58, edge:58] = 1, 2
    found = between(labels[[0, 2]], np.array([0, 2]), 3)
    assert (found[:, 6:54] > 0).all(where=labels[:, 6:54] > 0)
    assert (found != labels).sum() <= 60


def test_what_is_empty_stays_empty() -> None:
    at = np.array([0, 3, 6])
    assert not between(np.zeros((3, 20, 20), np.uint8), at, 7).any()
    one = np.zeros((3, 20, 20), np.uint8)
    one[1, 5:15, 5:15] = 1
    found = between(one, at, 7)
    assert [int(plane.any()) for plane in found] == [0, 0, 0, 1, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("step_mm", [2.5, 3.0])
def test_a_lung_of_thin_slices_loses_nothing(step_mm: float) -> None:
    chest = phantom.chest(3, shape=(280, 192, 192), spacing_mm=(1.0, 1.9, 1.9))
    labels = ClassicalSegmenter()(chest.volume)
    at = chosen(len(labels), 1.0, step_mm)
    found = between(labels[at], at, len(labels))
    for side in (1, 2):
        a, b = labels == side, found == side
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.995
