"""A second segmenter beside the first."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.analysis.arrays import LEFT, Labels, Volume
from dicomnode.analysis.findings import SegmenterFamily
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.errors import RefusedError


class Second:
    """The classical segmenter, less of the left lung."""

    name = "second"
    family: SegmenterFamily = "network"

    def __init__(self, kept: float, version: str = "1") -> None:
        self.kept, self.version = kept, version

    def __call__(self, volume: Volume) -> Labels:
        if self.kept < 0:
            raise RefusedError("no-lungs", "no lungs found by second.")
        labels = ClassicalSegmenter()(volume)
        levels = np.flatnonzero((labels == LEFT).any(axis=(1, 2)))
        below = labels[: levels[0] + round((1 - self.kept) * len(levels))]
        below[below == LEFT] = 0
        return labels

    def lobes(self, volume: Volume, lungs: Labels) -> NDArray[np.uint8] | None:
        return None


@pytest.mark.parametrize(
    ("kept", "words"),
    [(1.0, ""), (0.5, "left "), (-1.0, "refused the scan"), (0.0, "left 0 ml instead of")],
)
def test_disagreement_is_a_flag_and_changes_no_number(data: Path, kept: float, words: str) -> None:
    files = sorted((data / "chest_tiny_cip" / "ct-64Dicom").iterdir())
    alone = analyse(files, Method(ClassicalSegmenter(), None, None)).findings
    both = analyse(files, Method(ClassicalSegmenter(), None, None, second=Second(kept))).findings
    flags = [f for f in both.flags if f.code == "segmenters-disagree"]
    assert len(flags) == bool(words)
    assert all(words in f.text and "right" not in f.text and "second" in f.text for f in flags)
    assert both.quantities == alone.quantities and both.lungs == alone.lungs
    assert both.algorithm_digest != alone.algorithm_digest, "another flag: another version of the result"


def test_the_second_segmenters_version_makes_another_method() -> None:
    one, two = (Method(ClassicalSegmenter(), None, None, second=Second(1, v)) for v in "12")
    assert one.digest != two.digest
