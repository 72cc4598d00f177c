"""The classical segmenter where disease, gas and the field of view make lungs hard to find: phantoms with a truth."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.lungs import segmenter
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom.phantom import Disease, chest

pytestmark = pytest.mark.slow
SHAPE, SPACING_MM = (120, 200, 200), (2.5, 1.8, 1.8)


@dataclass(frozen=True)
class Scene:
    """A phantom, its true lungs, and the voxels' places in mm from the middle."""

    volume: Volume
    truth: Labels
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def paint(self, where: Mask, hu: float, sd: float = 15.0) -> "Scene":
        """The same with noisy tissue of `hu` drawn into it; the truth stays."""
        array = self.volume.hu.copy()
        noise = np.random.default_rng(1).normal(hu, sd, int(where.sum()))
        array[where] = np.clip(noise, -1024, 3071).astype(np.int16)
        return replace(self, volume=replace(self.volume, hu=array))

    def part(self, *box: slice) -> "Scene":
        """What a scanner with a smaller field of view would have shown."""
        hu = np.ascontiguousarray(self.volume.hu[box])
        return replace(self, volume=replace(self.volume, hu=hu), truth=np.ascontiguousarray(self.truth[box]))


@cache
def scene(severity: float = 0.0) -> Scene:
    """Shared by the tests, which change copies of it."""
    disease = Disease.of_severity(severity) if severity else None
    phantom = chest(3, shape=SHAPE, spacing_mm=SPACING_MM, disease=disease)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]
    return Scene(phantom.volume, phantom.labels, *np.ix_(*axes))


@cache
def segmented(severity: float = 0.0) -> Labels:
    return ClassicalSegmenter()(scene(severity).volume)


def dice(found: Labels, truth: Labels) -> tuple[float, float]:
    """Of the right and of the left lung."""
    right, left = (
        float(2 * np.count_nonzero((found == s) & (truth == s)) / np.count_nonzero(np.r_[found == s, truth == s]))
        for s in (RIGHT, LEFT)
    )
    return right, left


def codes(volume: Volume, labels: Labels) -> dict[str, str]:
    return {flag.code: flag.severity for flag in segmenter.check(volume, labels)}


def dorsobasal(s: Scene, side: int, depth_mm: float) -> Mask:
    """The outer layer of a lung in its lower half, from the flank to the back."""
    depth = ndimage.distance_transform_edt(s.truth == side, SPACING_MM)
    where = (depth > 0) & (depth < depth_mm) & (s.z < 0) & (s.z > -70) & (s.y > 20) & (np.abs(s.x) > 45)
    return np.asarray(where)


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_fibrosis_of_any_severity(severity: float) -> None:
    s = scene(severity)
    assert min(dice(segmented(severity), s.truth)) > 0.975


@pytest.mark.parametrize(
    ("severity", "side", "depth_mm", "hu"),
    [
        pytest.param(0.9, RIGHT, 30, 45, id="consolidation-in-fibrosis"),
        pytest.param(0.0, LEFT, 30, 45, id="consolidation-in-a-healthy-lung"),
        pytest.param(1.0, RIGHT, 15, 45, id="thin-consolidation-in-severe-fibrosis"),
        pytest.param(1.0, RIGHT, 25, -200, id="dense-fibrosis"),
    ],
)
def test_dense_lung_along_the_ribs_belongs_to_the_lung(severity: float, side: int, depth_mm: float, hu: float) -> None:
    s = scene(severity)
    dense = dorsobasal(s, side, depth_mm)
    s = s.paint(dense, hu)
    assert dense.sum() * s.volume.voxel_ml > 100
    labels = ClassicalSegmenter()(s.volume)
    assert min(dice(labels, s.truth)) >= 0.95
    # Of thin layers along the diaphragm much is lost; Dice tells what that means for the lung.
    assert np.mean(labels[dense] == side) > (0.6 if depth_mm > 20 else 0.4)


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_an_effusion_is_not_lung(side: int) -> None:
    s = scene(0.3)
    fluid = np.asarray((s.truth == side) & (s.y > 35) & (s.z < 20))
    s = replace(s.paint(fluid, 10), truth=np.where(fluid, 0, s.truth).astype(np.uint8))
    labels = ClassicalSegmenter()(s.volume)
    assert np.mean(labels[fluid] > 0) < 0.05
    assert min(dice(labels, s.truth)) > 0.98


def test_a_healthy_chest_gains_nothing_at_the_ribs_heart_or_liver() -> None:
    s, labels = scene(), segmented()
    far = ndimage.distance_transform_edt(s.truth == 0, SPACING_MM) > 6
    trachea = (np.abs(s.x) < 15) & (s.volume.hu < -900)
    assert np.count_nonzero((labels > 0) & far & ~trachea) * s.volume.voxel_ml < 2


def test_the_emptiest_lungs_are_lungs() -> None:
    """Emphysema with a median below the -965 HU under which a solid bubble is gas."""
    s = scene()
    empty = (s.truth > 0) & (s.volume.hu < -700)
    hu = np.where(empty, -985 + 0.3 * (s.volume.hu + 860.0), s.volume.hu)
    volume = replace(s.volume, hu=np.clip(hu, -1024, 3071).astype(np.int16))
    assert np.median(volume.hu[s.truth > 0]) < -975
    labels = ClassicalSegmenter()(volume)
    assert min(dice(labels, s.truth)) > 0.98
    assert codes(volume, labels) == {"mask-gas": "warning"}


def test_bowel_gas_and_a_chest_drain() -> None:
    s = scene(0.2)
    apart = (ndimage.distance_transform_edt(s.truth == 0, SPACING_MM) > 5) & (s.volume.hu > -300)
    colon = (((s.z + 105) / 30) ** 2 + ((s.y + 10) / 40) ** 2 + ((s.x - 60) / 50) ** 2 < 1) & apart
    drain = np.broadcast_to(((s.y - 40) ** 2 + (s.z + 20 + 0.3 * s.x) ** 2 < 36) & (s.x < -60), SHAPE)
    lumen = np.broadcast_to(((s.y - 40) ** 2 + (s.z + 20 + 0.3 * s.x) ** 2 < 12) & (s.x < -60), SHAPE)
    drawn = s.paint(colon, -995, 10).paint(drain, 300).paint(lumen, -1000)
    labels = ClassicalSegmenter()(drawn.volume)
    assert colon.sum() * s.volume.voxel_ml > 100
    assert not labels[colon].any()
    assert min(dice(labels, s.truth)) > 0.98


@pytest.mark.parametrize(("columns", "severity"), [(35, "warning"), (55, "error")])
def test_lungs_cut_by_a_narrow_image(columns: int, severity: str) -> None:
    s = scene(0.3).part(slice(None), slice(None), slice(columns, -columns))
    labels = ClassicalSegmenter()(s.volume)
    assert min(dice(labels, s.truth)) > 0.98
    assert codes(s.volume, labels)["cut-off-side"] == severity


@pytest.mark.parametrize(("radius_mm", "severity"), [(125, "warning"), (110, "error")])
def test_lungs_cut_by_a_round_field_of_view(radius_mm: float, severity: str) -> None:
    s = scene(0.3)
    outside = np.broadcast_to(s.x**2 + s.y**2 > radius_mm**2, SHAPE)
    hu = np.where(outside, np.int16(-1024), s.volume.hu)
    s = replace(s, volume=replace(s.volume, hu=hu), truth=np.where(outside, 0, s.truth).astype(np.uint8))
    labels = ClassicalSegmenter()(s.volume)
    assert min(dice(labels, s.truth)) > 0.98
    assert codes(s.volume, labels)["cut-off-side"] == severity


@pytest.mark.parametrize(
    ("box", "code"), [(slice(0, 85), "cut-off-apex"), (slice(45, None), "cut-off-base")], ids=["apices", "bases"]
)
def test_lungs_cut_at_an_end_are_segmented_and_stop_the_risk(box: slice, code: str) -> None:
    s = scene(0.3).part(box)
    labels = ClassicalSegmenter()(s.volume)
    assert min(dice(labels, s.truth)) > 0.98
    assert codes(s.volume, labels) == {code: "error"}


def test_leaks_are_flagged() -> None:
    """A mask that took the skin, the trachea or stomach gas for lung."""
    s = scene()
    whole = s.truth.copy()
    skin = ndimage.binary_dilation(s.volume.hu > -400, iterations=2) & (s.volume.hu < -900) & (np.abs(s.y) > 90)
    whole[skin] = RIGHT
    assert "mask-leak" in codes(s.volume, whole)
    apart = (ndimage.distance_transform_edt(s.truth == 0, SPACING_MM) > 5) & (s.volume.hu > -300)
    stomach = (((s.z + 105) / 30) ** 2 + ((s.y + 10) / 40) ** 2 + ((s.x - 60) / 50) ** 2 < 1) & apart
    filled = np.where(stomach, LEFT, s.truth).astype(np.uint8)
    assert "mask-gas" in codes(s.paint(stomach, -995, 10).volume, filled)


def test_pieces_apart_are_flagged() -> None:
    s = scene()
    parted = np.where(np.abs(s.z + 20) < 6, 0, s.truth).astype(np.uint8)
    assert codes(s.volume, parted) == {"mask-pieces": "warning"}
