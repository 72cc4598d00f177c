"""Gas that is not in the lungs, painted into a phantom and into real chests: it must be out of the mask, or flagged."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Labels, Mask, Volume
from dicomnode.analysis.lungs import gas, segmenter
from dicomnode.analysis.lungs.body_air import distance
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom.phantom import chest

pytestmark = pytest.mark.slow
SHAPE, SPACING_MM = (100, 150, 150), (3.0, 2.4, 2.4)
LEVELS_HU = (-940, -963, -990)
FLUID_HU, WALL_HU = 25, 35


@cache
def phantom() -> tuple[Volume, Labels]:
    made = chest(3, shape=SHAPE, spacing_mm=SPACING_MM)
    return made.volume, made.labels


def places(volume: Volume) -> list[np.ndarray]:
    """Coordinates in mm from the middle, that broadcast: z, y, x."""
    sizes = zip(volume.hu.shape, volume.spacing_mm, strict=True)
    return list(np.ix_(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in sizes)))


def ellipsoid(volume: Volume, centre: tuple[float, ...], radii: tuple[float, ...]) -> Mask:
    axes = zip(places(volume), centre, radii, strict=True)
    return np.asarray(sum(((at - c) / r) ** 2 for at, c, r in axes) < 1)


def paint(hu: HuArray, where: Mask, level_hu: float, sd: float = 25.0) -> HuArray:
    """Paint with noise and an edge as soft as a scanner's."""
    (found,) = ndimage.find_objects(where.astype(np.uint8))
    box = tuple(slice(max(0, part.start - 4), part.stop + 4) for part in found)
    part = ndimage.gaussian_filter(where[box].astype(np.float32), 0.6)
    noise = np.random.default_rng(0).normal(level_hu, sd, part.shape)
    painted = hu.copy()
    painted[box] = np.clip(np.rint(hu[box] * (1 - part) + part * noise), -1024, 3071)
    return painted


def depth(mask: Mask, volume: Volume) -> np.ndarray:
    return distance(~mask, volume.spacing_mm)


def stomach(volume: Volume, lungs: Labels, centre: tuple[float, ...], radii: tuple[float, ...]) -> tuple[Mask, Mask]:
    """Stomach behind a wall of 4 mm, and its gas above a fluid level."""
    whole = ellipsoid(volume, centre, radii) & (depth(lungs == 0, volume) > 4)
    return whole, whole & (places(volume)[1] < centre[1] + 0.3 * radii[1])


def in_phantom(kind: str, level_hu: int) -> tuple[Volume, Labels, Mask]:
    """The phantom with painted gas, its lungs without what was painted, and the gas."""
    volume, lungs = phantom()
    z, y, x = places(volume)
    # The phantom's own stomach is full.
    own = (z < -60) & (x > 5) & (y < 20) & (depth(lungs == 0, volume) > 3) & (volume.hu < -100) & (abs(x) < 110)
    volume = replace(volume, hu=np.where(own & (y > -80), np.int16(FLUID_HU), volume.hu))
    if kind == "stomach":
        whole, bubble = stomach(volume, lungs, (-112, -15, 60), (35, 42, 45))
    elif kind == "colon":
        balls = [ellipsoid(volume, at, (r, r, r)) for at, r in (((-92, -30, -85), 19), ((-118, -28, -80), 22))]
        whole = (balls[0] | balls[1]) & (volume.hu > -1000) & (ndimage.gaussian_filter(volume.hu, 1) < 150)
        bubble = depth(whole, volume) > 4
    elif kind == "hernia":
        whole = ellipsoid(volume, (-55, 26, 8), (28, 22, 30)) & (volume.hu < 150)
        bubble = (depth(whole, volume) > 3.5) & (y < 32)
    else:
        whole = np.broadcast_to(((y - 26) ** 2 + (x - 10) ** 2 < 14**2) & (z > -90), SHAPE) & (volume.hu < 150)
        bubble = depth(whole, volume) > 3.5
    fluid = FLUID_HU if kind == "stomach" else WALL_HU
    hu = paint(paint(volume.hu, whole, fluid, 15), bubble, level_hu)
    return replace(volume, hu=hu), np.where(whole, 0, lungs).astype(np.uint8), bubble


def part(volume: Volume, first: int) -> Volume:
    return replace(volume, hu=np.ascontiguousarray(volume.hu[first:]))


def dice(found: Labels, truth: Labels) -> float:
    both = np.count_nonzero((found > 0) & (truth > 0))
    return float(2 * both / (np.count_nonzero(found) + np.count_nonzero(truth)))


def codes(volume: Volume, labels: Labels) -> set[str]:
    return {flag.code for flag in segmenter.check(volume, labels)}


def ml_of(where: Mask, volume: Volume) -> float:
    return np.count_nonzero(where) * volume.voxel_ml


@pytest.mark.parametrize(
    ("kind", "level_hu"),
    [("stomach", -940), ("stomach", -990), ("colon", -963), ("hernia", -940), ("oesophagus", -990)],
)
def test_painted_gas_is_no_lung(kind: str, level_hu: int) -> None:
    volume, lungs, bubble = in_phantom(kind, level_hu)
    assert ml_of(bubble, volume) > 15
    labels = ClassicalSegmenter()(volume)
    assert ml_of(bubble & (labels > 0), volume) <= 10 or "mask-gas" in codes(volume, labels)
    assert dice(labels, lungs) > 0.97


@pytest.mark.parametrize("first", [6, 12, 18])
def test_a_stomach_that_the_scan_cuts_is_no_lung_and_no_uncovered_base(first: int) -> None:
    volume, lungs, bubble = in_phantom("stomach", -963)
    volume, lungs, bubble = part(volume, first), lungs[first:], bubble[first:]
    labels = ClassicalSegmenter()(volume)
    flags = codes(volume, labels)
    assert ml_of(bubble & (labels > 0), volume) <= 10 or "mask-gas" in flags
    lung_cm2 = np.count_nonzero(lungs[0]) * SPACING_MM[1] * SPACING_MM[2] / 100
    assert ("cut-off-base" in flags) == (lung_cm2 > 10) or 5 < lung_cm2 < 15


def test_a_mask_that_holds_the_stomach_is_flagged_for_gas_alone() -> None:
    """As a network might label it; the lowest slice shows nothing but the stomach."""
    volume, lungs, bubble = in_phantom("stomach", -940)
    first = int(np.flatnonzero(lungs.any(axis=(1, 2)))[0]) - 3
    volume, lungs, bubble = part(volume, first), lungs[first:], bubble[first:]
    assert bubble[0].any()
    assert codes(volume, np.where(bubble, LEFT, lungs).astype(np.uint8)) == {"mask-gas", "mask-pieces"}


@pytest.mark.parametrize(
    ("centre", "radius_mm"), [((-50, 30, 75), 35), ((85, 5, 50), 28), ((-20, 40, -85), 45), ((60, -20, -55), 40)]
)
def test_bullae_are_lung(centre: tuple[float, ...], radius_mm: float) -> None:
    volume, lungs = phantom()
    bulla = ellipsoid(volume, centre, (radius_mm,) * 3) & (lungs > 0)
    volume = replace(volume, hu=paint(volume.hu, bulla, -990, 20))
    labels = ClassicalSegmenter()(volume)
    assert ml_of(bulla, volume) > 40
    assert np.mean(labels[bulla] > 0) > 0.98
    assert dice(labels, lungs) > 0.975


@pytest.mark.parametrize("level_hu", LEVELS_HU)
def test_stomach_in_a_real_chest(tiny_cip: Volume, level_hu: int) -> None:
    """Voxels of 4 mm: a wall is one voxel thick, and touches lung through it."""
    lungs = ClassicalSegmenter()(tiny_cip)
    whole, bubble = _real_stomach(tiny_cip, lungs)
    volume = replace(tiny_cip, hu=paint(paint(tiny_cip.hu, whole, FLUID_HU, 15), bubble, level_hu))
    labels = ClassicalSegmenter()(volume)
    assert ml_of(bubble, volume) > 50
    assert ml_of(bubble & (labels > 0), volume) <= 10 or "mask-gas" in codes(volume, labels)
    assert dice(labels, lungs) > 0.98


def test_stomach_in_a_real_chest_at_full_resolution(lidc0314: Volume) -> None:
    lungs = ClassicalSegmenter()(lidc0314)
    assert codes(lidc0314, lungs) == {"lungs-unequal"}
    whole, bubble = _real_stomach(lidc0314, lungs)
    volume = replace(lidc0314, hu=paint(paint(lidc0314.hu, whole, FLUID_HU, 15), bubble, -963, 40))
    first = int(np.flatnonzero(bubble.any(axis=(1, 2)))[0]) + 3
    volume, bubble = part(volume, first), bubble[first:]
    labels = ClassicalSegmenter()(volume)
    assert bubble[0].any()
    assert ml_of(bubble & (labels > 0), volume) <= 10
    assert dice(labels, lungs[first:]) > 0.99


@pytest.mark.parametrize(("side", "share"), [(LEFT, 0.08), (RIGHT, 0.08), (RIGHT, 0.93), (LEFT, 0.93)])
def test_bullae_in_a_real_chest_are_lung(tiny_cip: Volume, side: int, share: float) -> None:
    """At the base and at the apex, as large as fits between the ribs."""
    lungs = ClassicalSegmenter()(tiny_cip)
    filled = np.cumsum(np.count_nonzero(lungs == side, axis=(1, 2)))
    level = int(np.searchsorted(filled, share * filled[-1]))
    inside = depth(np.asarray(lungs == side), tiny_cip)[level]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    centre = [float(axis.ravel()[i]) for axis, i in zip(places(tiny_cip), (level, row, column), strict=True)]
    bulla = ellipsoid(tiny_cip, tuple(centre), (35, 35, 35)) & (lungs == side)
    volume = replace(tiny_cip, hu=paint(tiny_cip.hu, bulla, -990, 20))
    labels = ClassicalSegmenter()(volume)
    assert np.mean(labels[bulla] == side) > 0.97
    assert dice(labels, lungs) > 0.985


def test_healthy_lungs_hold_no_gas() -> None:
    volume, lungs = phantom()
    assert gas.in_mask(volume.hu, lungs > 0, volume.spacing_mm)[1] == 0
    assert codes(volume, ClassicalSegmenter()(volume)) == set()


def _real_stomach(volume: Volume, lungs: Labels) -> tuple[Mask, Mask]:
    """Under the left dome, where the lung's lower border is highest."""
    left = lungs == LEFT
    columns = ndimage.binary_erosion(left.any(axis=0), iterations=2)
    lowest = np.where(columns, left.argmax(axis=0), 0)
    rows, cols = np.nonzero(lowest >= np.percentile(lowest[columns], 90))
    z, y, x = (axis.ravel() for axis in places(volume))
    top = float(z[int(np.median(lowest[rows, cols]))])
    centre = (top - 32, float(y[int(np.median(rows))]) - 10, float(x[int(np.median(cols))]))
    whole, bubble = stomach(volume, lungs, centre, (40, 40, 45))
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in ndimage.binary_opening(volume.hu > -400)])
    inside = depth(body, volume) > 22
    return whole & inside, bubble & inside


def test_gas_beside_a_dense_base_stays_out_and_the_dense_base_in() -> None:
    """A stomach under the left dome, and fibrosis along the surface of both lungs' lower halves."""
    volume, lungs, bubble = in_phantom("stomach", -963)
    levels = np.flatnonzero(lungs.any(axis=(1, 2)))
    lower = np.arange(SHAPE[0])[:, None, None] < levels.mean()
    rim = np.zeros(SHAPE, bool)
    for side in (RIGHT, LEFT):
        rim |= (lungs == side) & (depth(lungs == side, volume) < 12) & lower
    diseased = replace(volume, hu=paint(volume.hu, rim, 45, 20))
    labels = ClassicalSegmenter()(diseased)
    assert ml_of(bubble & (labels > 0), volume) <= 10 or "mask-gas" in codes(diseased, labels)
    assert dice(labels, lungs) > 0.93
    assert np.mean(labels[rim] > 0) > 0.75
    # Nothing grows into liver and spleen: below the lowest lung of a column lies the diaphragm.
    below = np.logical_or.accumulate(lungs[::-1] > 0)[::-1] & ~np.logical_or.accumulate(lungs > 0)
    deep = below & (depth(lungs == 0, volume) > 6)
    assert ml_of(deep & (labels > 0), volume) <= 10
