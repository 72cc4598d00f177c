"""Dense lung, fluid and healthy lung between aerated lung and ribs: painted into a phantom whose lungs are known."""

from collections.abc import Callable

import numpy as np
import pytest

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask
from dicomnode.analysis.findings import VolumeMl
from dicomnode.analysis.lungs import gap, segmenter
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.measures.quantify import quantify
from tests.helpers import painted

pytestmark = pytest.mark.slow


def dice(a: Mask, b: Mask) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def flagged(case: painted.Painted, labels: Labels) -> set[str]:
    left_out = gap.left_out(case.volume, labels)
    return {f.code for f in gap.flags(left_out, segmenter.volumes(case.volume, labels))}


@pytest.mark.parametrize(
    ("paint", "at_least"),
    [
        pytest.param(painted.rim(10, 0, 0.5), 0.93, id="rim-of-the-attenuation-of-fluid"),
        pytest.param(painted.lobe(LEFT, 40), 0.93, id="lower-lobe"),
    ],
)
def test_dense_disease_belongs_to_the_lung(paint: Callable[[painted.Known], painted.Painted], at_least: float) -> None:
    case = paint(painted.known("phantom-3"))
    labels = ClassicalSegmenter()(case.volume)
    assert dice(labels > 0, case.truth > 0) >= at_least


def test_fluid_stays_out_and_is_told() -> None:
    case = painted.effusion(800, (RIGHT,))(painted.known("phantom-3"))
    labels = ClassicalSegmenter()(case.volume)
    assert np.mean(labels[case.fluid] > 0) <= 0.05
    assert flagged(case, labels) == {"lung-left-out"}


def test_any_mask_that_leaves_dense_lung_out_is_flagged_and_a_whole_one_is_not() -> None:
    known = painted.known("phantom-3")
    case = painted.rim(15, 40, 0.5)(known)
    aerated = np.where(case.paint, 0, case.truth).astype(np.uint8)
    assert flagged(case, aerated) == {"lung-left-out"}
    assert gap.left_out(known.volume, known.truth).total < 0.01 * segmenter.volumes(known.volume, known.truth).total


def test_the_flag_names_the_volumes() -> None:
    (flag,) = gap.flags(VolumeMl(300.0, 0.0, 300.0), VolumeMl(4000.0, 2000.0, 2000.0))
    assert "300 ml" in flag.text and "15 and 0 %" in flag.text
    assert gap.flags(VolumeMl(110.0, 10.0, 100.0), VolumeMl(4000.0, 2000.0, 2000.0)) == ()


def test_much_dense_lung_in_the_mask_is_flagged() -> None:
    healthy, dense = (quantify(np.repeat(np.array([-850, 40], np.int16), counts)) for counts in ((95, 5), (75, 25)))
    assert gap.dense_flags(healthy, healthy) == gap.dense_flags(None, healthy) == gap.dense_flags(None, None) == ()
    (flag,) = gap.dense_flags(healthy, dense)
    assert flag.code == "lung-dense-share"
    assert "right 5 %, left 25 %" in flag.text
