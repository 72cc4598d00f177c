"""Whether labels of lobes can be believed: the network that made them must mean the lobes that we name.

lungmask's repository says of LTRCLobes' labels only that 1 and 2 are of the left lung and 3 to 5 of the right one (its
issue 25). Which is which stands in what uses it: 3D Slicer's Lung CT Segmenter names 1 to 5 left upper, left lower,
right upper, right middle, right lower (Slicer/SlicerLungCTAnalyzer, LungCTSegmenter/LungCTSegmenter.py). So each result
is held against the anatomy, and lobes that contradict it are not reported.
"""

from collections.abc import Iterator
from itertools import starmap

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT, Labels
from dicomnode.analysis.findings import Flag

#: At least this share of a lobe lies in the lung of its side.
IN_ITS_LUNG = 0.5
_Z, _Y = 0, 1
#: (a lobe, another, axis): the first one's centre lies at the smaller index. z grows to the head, y to the back.
ORDER = (
    ("left_lower_lobe", "left_upper_lobe", _Z),
    ("right_lower_lobe", "right_upper_lobe", _Z),
    ("right_middle_lobe", "right_upper_lobe", _Z),
    ("right_middle_lobe", "right_lower_lobe", _Y),
)
_WORDS = {_Z: "below", _Y: "in front of"}


def check(labels: Labels, lobes: NDArray[np.uint8]) -> tuple[Flag, ...]:
    """One flag where the lobes contradict the anatomy: each in its own lung, and in order. A missing lobe is none.

    Args:
        labels: (z, y, x) with axes as `arrays` says; 0 background, 1 right, 2 left.
        lobes: same shape, numbers as in `arrays.LOBES`.
    """
    present = {name: number for name, number in LOBES.items() if (lobes == number).any()}
    centres = {name: ndimage.center_of_mass(lobes == number) for name, number in present.items()}
    wrong = [*_in_the_other_lung(labels, lobes, present), *starmap(_sentence, _out_of_order(centres))]
    if not wrong:
        return ()
    text = f"The lobe model's labels contradict the anatomy ({'; '.join(wrong)}): no lobes are reported."
    return (Flag("lobes-contradict", "warning", text),)


def _in_the_other_lung(labels: Labels, lobes: NDArray[np.uint8], present: dict[str, int]) -> Iterator[str]:
    for name, number in present.items():
        inside = labels[lobes == number]
        side = LEFT if name.startswith("left") else RIGHT
        if np.count_nonzero(inside == side) < IN_ITS_LUNG * np.count_nonzero(inside):
            yield f"most of the {_plain(name)} is in the other lung"


def _out_of_order(centres: dict[str, tuple[float, ...]]) -> Iterator[tuple[str, str, int]]:
    for first, second, axis in ORDER:
        if first in centres and second in centres and centres[first][axis] >= centres[second][axis]:
            yield first, second, axis


def _sentence(first: str, second: str, axis: int) -> str:
    return f"the {_plain(first)} is not {_WORDS[axis]} the {_plain(second)}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
