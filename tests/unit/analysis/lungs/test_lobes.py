"""Lobes are believed where they fit the anatomy, and only there."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT, Labels
from dicomnode.analysis.lungs.lobes import check


def chest() -> tuple[Labels, NDArray[np.uint8]]:
    """Two boxes of lung, cut into lobes as fissures cut them: z to the head, y to the back, x to the left."""
    labels = np.zeros((20, 12, 24), np.uint8)
    labels[2:18, 2:10, 2:10], labels[2:18, 2:10, 14:22] = RIGHT, LEFT
    z, y, _ = np.indices(labels.shape)
    low = z + y < 15
    lobes = np.select(
        [(labels == LEFT) & low, labels == LEFT, (labels == RIGHT) & (z > 11), (labels == RIGHT) & (y < 5)],
        [LOBES["left_lower_lobe"], LOBES["left_upper_lobe"], LOBES["right_upper_lobe"], LOBES["right_middle_lobe"]],
        np.where(labels == RIGHT, LOBES["right_lower_lobe"], 0),
    )
    return labels, lobes.astype(np.uint8)


def test_lobes_in_their_places_are_believed() -> None:
    assert check(*chest()) == ()


@pytest.mark.parametrize("gone", LOBES)
def test_a_lobe_that_was_removed_is_no_contradiction(gone: str) -> None:
    labels, lobes = chest()
    lobes[lobes == LOBES[gone]] = 0
    assert check(labels, lobes) == ()


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("left_upper_lobe", "left_lower_lobe", "left lower lobe is not below the left upper lobe"),
        ("right_upper_lobe", "right_lower_lobe", "right lower lobe is not below the right upper lobe"),
        ("right_middle_lobe", "right_lower_lobe", "right middle lobe is not in front of the right lower lobe"),
        ("right_upper_lobe", "right_middle_lobe", "right middle lobe is not below the right upper lobe"),
        ("right_upper_lobe", "left_upper_lobe", "most of the right upper lobe is in the other lung"),
    ],
)
def test_numbers_that_mean_other_lobes_are_found_out(one: str, other: str, says: str) -> None:
    labels, lobes = chest()
    swapped = np.where(lobes == LOBES[one], LOBES[other], np.where(lobes == LOBES[other], LOBES[one], lobes))
    (flag,) = check(labels, swapped.astype(np.uint8))
    assert (flag.code, flag.severity) == ("lobes-contradict", "warning")
    assert says in flag.text
