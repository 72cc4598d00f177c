"""The classical segmenter on phantoms whose lungs are known, and on two real chests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Labels, Mask, Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.errors import RefusedError

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True)
class Chest:
    """A drawn chest and its voxels' coordinates in mm: z up, y to the back, x to the left, 0 in the middle."""

    volume: Volume
    truth: Labels
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def draw(self, where: Mask, hu: int) -> "Chest":
        """The same chest with something drawn into it; the truth stays."""
        return replace(self, volume=replace(self.volume, hu=np.where(where, np.int16(hu), self.volume.hu)))

    def cylinder(self, y: float, x: float, radius: float, bottom: float, top: float) -> Mask:
        return ((self.y - y) ** 2 + (self.x - x) ** 2 < radius**2) & (self.z >= bottom) & (self.z < top)

    def ball(self, z: float, y: float, x: float, radius: float) -> Mask:
        return (self.z - z) ** 2 + (self.y - y) ** 2 + (self.x - x) ** 2 < radius**2


def chest(spacing_mm: tuple[float, float, float] = (5.0, 4.0, 4.0), lungs_at_mm: float = 72.0) -> Chest:
    """A body 360 mm wide in a 420 x 300 mm field, 320 mm high, on a table; lungs of about 4 litres; noise of 25 HU."""
    ends = (160, 150, 210)
    z, y, x = np.ogrid[tuple(slice(-e + s / 2, e, s) for e, s in zip(ends, spacing_mm, strict=True))]
    body = np.broadcast_to((x / 180) ** 2 + (y / 115) ** 2 < 1, (z.size, y.size, x.size))
    truth = np.zeros(body.shape, dtype=np.uint8)
    for side, centre in ((RIGHT, -lungs_at_mm), (LEFT, lungs_at_mm)):
        truth[(z / 125) ** 2 + (y / 90) ** 2 + ((x - centre) / 62) ** 2 < 1] = side
    hu = np.where(body, 40, -1000)
    hu[np.broadcast_to((y > 120) & (y < 126) & (abs(x) < 190), hu.shape)] = 150
    hu[truth > 0] = -850
    hu += np.random.default_rng(0).normal(0, 25, hu.shape).astype(int)
    return Chest(Volume(hu.astype(np.int16), spacing_mm, (0.0, 0.0, 0.0), AXES, ()), truth, z, y, x)


def dice(a: Mask, b: Mask) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def segment(volume: Volume) -> Labels:
    return ClassicalSegmenter()(volume)


@pytest.mark.parametrize("spacing_mm", [(5.0, 4.0, 4.0), (3.0, 2.0, 2.0), (1.5, 1.1, 1.1), (10.0, 1.3, 1.7)])
def test_finds_both_lungs_on_their_sides(spacing_mm: tuple[float, float, float]) -> None:
    drawn = chest(spacing_mm)
    labels = segment(drawn.volume)
    assert labels.dtype == np.uint8
    assert labels.shape == drawn.truth.shape
    for side in (RIGHT, LEFT):
        assert dice(labels == side, drawn.truth == side) > 0.98


@pytest.mark.parametrize("spacing_mm", [(5.0, 4.0, 4.0), (2.5, 1.2, 1.2)])
def test_touching_lungs_part_at_the_septum(spacing_mm: tuple[float, float, float]) -> None:
    """The lungs meet over a wide area at the midline, with a thin, faint septum between them."""
    drawn = chest(spacing_mm, lungs_at_mm=58.0)
    drawn = drawn.draw((abs(drawn.x) < 3) & (drawn.truth > 0), -600)
    labels = segment(drawn.volume)
    sided = np.where(drawn.x < 0, RIGHT, LEFT)
    found = labels > 0
    assert np.mean(labels[found] == np.broadcast_to(sided, labels.shape)[found]) > 0.99
    assert dice(found, drawn.truth > 0) > 0.98


def test_airways_are_left_out() -> None:
    drawn = chest((3.0, 2.0, 2.0))
    trachea = drawn.cylinder(0, 0, 9, 20, 160)
    bronchi = [
        ((drawn.y**2 + (drawn.z - 20 + 0.5 * abs(drawn.x)) ** 2) < 6**2) & (drawn.x * side >= 0) & (abs(drawn.x) < 30)
        for side in (-1, 1)
    ]
    walls = drawn.cylinder(0, 0, 12, 14, 160)
    lumen = trachea | bronchi[0] | bronchi[1]
    labels = segment(drawn.draw(walls & (drawn.truth == 0), 20).draw(lumen & (drawn.truth == 0), -980).volume)
    assert not labels[trachea].any()
    assert np.mean(labels[lumen & (drawn.truth == 0)] > 0) < 0.05
    assert dice(labels > 0, drawn.truth > 0) > 0.97


@pytest.mark.parametrize(
    "gas",
    [
        pytest.param(lambda c: c.ball(-120, -30, 60, 45), id="stomach-below-left-lung"),
        pytest.param(lambda c: c.cylinder(-60, -40, 15, -160, -130), id="bowel"),
        pytest.param(lambda c: (abs(c.y - 132) < 6) & (abs(c.x) < 150) & (c.z < 500), id="hollow-table"),
    ],
)
def test_other_gas_is_left_out(gas: Callable[[Chest], Mask]) -> None:
    drawn = chest((4.0, 3.0, 3.0))
    wall = ndimage.binary_dilation(drawn.truth > 0, iterations=2)
    where = gas(drawn) & ~wall
    table = np.broadcast_to((abs(drawn.y - 132) < 12) & (abs(drawn.x) < 190), wall.shape)
    labels = segment(drawn.draw(table, 150).draw(where, -1000).volume)
    assert where.any()
    assert not labels[where].any()
    assert dice(labels > 0, drawn.truth > 0) > 0.97


def test_pocket_between_arm_and_chest_is_left_out() -> None:
    """An arm beside the body closes a ring in some slices; the pocket in it opens to the room above and below."""
    drawn = chest((4.0, 3.0, 3.0))
    ring = (((drawn.x + 185) / 24) ** 2 + (drawn.y / 45) ** 2 < 1) & (abs(drawn.z) < 60)
    pocket = (((drawn.x + 185) / 14) ** 2 + (drawn.y / 30) ** 2 < 1) & (abs(drawn.z) < 60)
    labels = segment(drawn.draw(ring & (drawn.truth == 0), 40).draw(pocket, -1000).volume)
    assert not labels[pocket].any()
    assert dice(labels > 0, drawn.truth > 0) > 0.97


def test_vessels_nodules_and_subpleural_disease_are_closed_in() -> None:
    drawn = chest((2.5, 1.8, 1.8))
    vessel = drawn.cylinder(0, -80, 4, -80, 80)
    nodule = drawn.ball(0, -40, 80, 12)
    subpleural = drawn.ball(0, 88, 72, 5) & (drawn.truth > 0)
    labels = segment(drawn.draw(vessel | nodule | subpleural, 30).volume)
    assert (labels[vessel] == RIGHT).all()
    assert (labels[nodule] == LEFT).all()
    assert np.mean(labels[subpleural] == LEFT) > 0.7


def test_the_heart_is_not_closed_in() -> None:
    drawn = chest((4.0, 3.0, 3.0))
    heart = drawn.ball(-20, -20, 20, 45)
    labels = segment(drawn.draw(heart, 40).volume)
    assert np.mean(labels[heart] > 0) < 0.05


def test_one_lung_keeps_its_side() -> None:
    drawn = chest()
    labels = segment(drawn.draw(drawn.truth == RIGHT, 30).volume)
    assert set(np.unique(labels)) == {0, LEFT}
    assert dice(labels == LEFT, drawn.truth == LEFT) > 0.97


def water(shape: tuple[int, int, int] = (20, 40, 40)) -> HuArray:
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[:, 5:-5, 5:-5] = 0
    return hu


@pytest.mark.parametrize(
    "hu",
    [
        pytest.param(water(), id="water"),
        pytest.param(np.full((20, 40, 40), -1024, dtype=np.int16), id="air"),
        pytest.param(np.zeros((20, 40, 40), dtype=np.int16), id="constant"),
        pytest.param(np.where(water() == 0, np.int16(-1000), np.int16(40)), id="gas-in-a-frame"),
        pytest.param(np.zeros((1, 2, 2), dtype=np.int16), id="almost-nothing"),
    ],
)
def test_refuses_what_shows_no_lungs(hu: HuArray) -> None:
    with pytest.raises(RefusedError, match="no lungs found") as refused:
        segment(Volume(hu, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0), AXES, ()))
    assert refused.value.code == "no-lungs"


def test_agrees_with_a_reference_mask(tiny_cip: Volume, data: Path) -> None:
    """The Chest Imaging Platform's label: vessels within; trachea, main bronchi and hilar vessels without."""
    reference = sitk.GetArrayFromImage(
        sitk.DICOMOrient(sitk.ReadImage(str(data / "chest_tiny_cip" / "wholeLung-64.nrrd")), "LPS")
    )
    labels = segment(tiny_cip)
    assert np.count_nonzero(reference) * tiny_cip.voxel_ml == pytest.approx(4554, abs=1)
    assert np.count_nonzero(labels) * tiny_cip.voxel_ml == pytest.approx(4554, rel=0.03)
    assert dice(labels > 0, reference > 0) > 0.98


def test_sides_of_a_scan_made_feet_first(lidc0314: Volume) -> None:
    """Anatomy decides: the liver lifts the base of the lung on its side, and that must be the right one."""
    labels = segment(lidc0314)
    right, left = labels == RIGHT, labels == LEFT
    assert np.nonzero(right)[2].mean() < np.nonzero(left)[2].mean()
    millilitres = [np.count_nonzero(lung) * lidc0314.voxel_ml for lung in (right, left)]
    assert millilitres == pytest.approx([928, 1912], rel=0.03)
    base = [np.flatnonzero(lung.any(axis=(1, 2)))[0] * lidc0314.spacing_mm[0] for lung in (right, left)]
    assert base[0] - base[1] > 30, "the right hemidiaphragm of this patient is raised"

    lowest_right = int(np.flatnonzero(right.any(axis=(1, 2)))[0])
    below = lidc0314.hu[lowest_right - 4]
    half = int(np.nonzero(labels)[2].mean())
    liver = np.count_nonzero((below[:, :half] > 0) & (below[:, :half] < 200))
    other = np.count_nonzero((below[:, half:] > 0) & (below[:, half:] < 200))
    assert liver > other, "liver lies below the right lung"
