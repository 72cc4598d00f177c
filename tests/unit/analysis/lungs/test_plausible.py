"""What is no chest is refused, whatever its words; of the whole body the chest is taken."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.analysis.arrays import HuArray, Labels, Mask, Volume
from dicomnode.analysis.lungs import plausible
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom.phantom import chest
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.errors import RefusedError
from tests.helpers.ct_files import ct_series, write

SHAPE, SPACING_MM = (60, 96, 96), (5.0, 4.0, 4.0)


@cache
def phantom() -> Volume:
    return chest(3, shape=SHAPE, spacing_mm=SPACING_MM).volume


def of(hu: HuArray) -> Volume:
    return replace(phantom(), hu=np.ascontiguousarray(hu))


def grid(slices: int) -> tuple[np.ndarray, ...]:
    """Millimetres from the middle: z, y, x."""
    sizes = zip((slices, *SHAPE[1:]), SPACING_MM, strict=True)
    return np.ix_(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in sizes))


def noisy(hu: np.ndarray) -> HuArray:
    noise = np.random.default_rng(1).normal(0, 15, hu.shape)
    return np.clip(np.rint(hu + noise), -1024, 3071).astype(np.int16)


def trunk(slices: int, *holes: tuple[Mask, float]) -> HuArray:
    """A body of fat and muscle with a spine on a hollow table, and what is cut into it."""
    _, y, x = grid(slices)
    hu = np.full((slices, *SHAPE[1:]), -1000.0)
    hu[np.broadcast_to((abs(y - 125) < 12) & (abs(x) < 170), hu.shape)] = 120
    hu[np.broadcast_to((abs(y - 125) < 7) & (abs(x) < 165), hu.shape)] = -1000
    hu[np.broadcast_to((x / 150) ** 2 + (y / 105) ** 2 < 1, hu.shape)] = -100
    hu[np.broadcast_to((x / 130) ** 2 + (y / 85) ** 2 < 1, hu.shape)] = 40
    hu[np.broadcast_to(x**2 + (y - 55) ** 2 < 20**2, hu.shape)] = 400
    for where, value in holes:
        hu[np.broadcast_to(where, hu.shape)] = value
    return noisy(hu)


def bowel(slices: int) -> HuArray:
    """Gas on both sides with folds and crumbs of stool in it."""
    z, y, x = grid(slices)
    tubes = [((abs(x) - 85) ** 2 + (y + 20) ** 2 < 26**2) & (np.sin(z / 9) > -0.7)]
    tubes.append((z - 10) ** 2 + (y + 45) ** 2 < 22**2 * (abs(x) < 80))
    crumbs = ndimage.binary_dilation(np.random.default_rng(2).random((slices, *SHAPE[1:])) > 0.995)
    gas = np.broadcast_to(tubes[0] | tubes[1], crumbs.shape)
    return trunk(slices, (gas, -970.0), (gas & crumbs, -300.0))


def pelvis() -> HuArray:
    z, y, x = grid(50)
    rectum = (x**2 + (y - 5) ** 2 < 28**2) & (z < 60)
    hips = ((abs(x) - 95) ** 2 + (y - 10) ** 2 < 24**2) & (abs(z) < 50)
    return trunk(50, (rectum, -980.0), (hips, 600.0))


def head() -> HuArray:
    z, y, x = grid(44)
    hu = np.full((44, *SHAPE[1:]), -1000.0)
    skull = (x / 75) ** 2 + (y / 95) ** 2 + (z / 105) ** 2
    hu[skull < 1] = 900
    hu[skull < 0.85] = 35
    sinuses = ((abs(x) - 22) ** 2 + (y + 70) ** 2 + (z + 45) ** 2 < 17**2) | (x**2 + (y + 45) ** 2 < 10**2) & (z < -30)
    hu[sinuses & (skull < 0.98)] = -990
    return noisy(hu)


def legs() -> HuArray:
    _, y, x = grid(50)
    hu = np.full((50, *SHAPE[1:]), -1000.0)
    off = np.hypot(abs(x) - 70, y)
    hu[np.broadcast_to(off < 65, hu.shape)] = 50
    hu[np.broadcast_to(off < 14, hu.shape)] = 900
    return noisy(hu)


def arm() -> HuArray:
    hu = legs()
    hu[:, :, : SHAPE[2] // 2] = -1000
    return hu


def whole_body() -> HuArray:
    return np.concatenate([legs(), pelvis(), bowel(40), phantom().hu, head()])


def decide(volume: Volume) -> Labels:
    labels = plausible.in_chest(volume, ClassicalSegmenter()(volume))
    plausible.refuse_unless_chest(volume, labels)
    return labels


NO_CHEST: dict[str, Callable[[], HuArray]] = {
    "abdomen with the bases of the lungs": lambda: phantom().hu[:28],
    "abdomen and pelvis with the bases": lambda: np.concatenate([pelvis(), bowel(40), phantom().hu[:26]]),
    "bowel with stool": lambda: bowel(50),
    "pelvis": pelvis,
    "head": head,
    "head and neck with the apices": lambda: np.concatenate([phantom().hu[47:], head()]),
    "legs": legs,
    "arm": arm,
    "table without a patient": lambda: np.where(np.abs(grid(50)[1] - 125) < 12, trunk(50), np.int16(-1000)),
}


@pytest.mark.parametrize("name", NO_CHEST)
def test_what_is_no_chest_is_refused(name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        decide(of(NO_CHEST[name]()))
    assert refused.value.code in ("no-lungs", "lungs-not-covered")


@pytest.mark.parametrize(("first", "last"), [(0, 0.3), (0.78, 1)])
@pytest.mark.parametrize("real", ["tiny_cip", "lidc0314"])
def test_bases_or_apices_of_a_real_chest_are_refused(
    real: str, first: float, last: float, request: pytest.FixtureRequest
) -> None:
    volume: Volume = request.getfixturevalue(real)
    slices = volume.hu.shape[0]
    part = np.ascontiguousarray(volume.hu[int(first * slices) : int(last * slices), ::2, ::2])
    z, y, x = volume.spacing_mm
    with pytest.raises(RefusedError) as refused:
        decide(replace(volume, hu=part, spacing_mm=(z, 2 * y, 2 * x)))
    assert refused.value.code in ("no-lungs", "lungs-not-covered")


def test_of_the_whole_body_the_chest_is_taken() -> None:
    alone, whole = decide(of(phantom().hu)), decide(of(whole_body()))
    below = 50 + 50 + 40
    assert not whole[: below - 16].any() and not whole[below + 60 + 16 :].any()
    ratio = np.count_nonzero(whole) / np.count_nonzero(alone)
    assert 0.97 < ratio < 1.03


@pytest.mark.parametrize(("first", "last"), [(0, 60), (18, 60), (0, 44)])
def test_a_chest_that_is_cut_is_still_a_chest(first: int, last: int) -> None:
    assert decide(of(phantom().hu[first:last])).any()


def test_one_small_lung_is_a_chest() -> None:
    volume = phantom()
    labels = ClassicalSegmenter()(volume)
    plausible.refuse_unless_chest(volume, np.where(labels == 1, labels, 0).astype(np.uint8))


def test_a_reason_names_what_was_found_and_words_do_not_help(tmp_path: Path) -> None:
    """A scan of the abdomen whose Body Part Examined says otherwise."""
    frames = NO_CHEST["abdomen and pelvis with the bases"]() + np.int16(1024)
    lying = {"BodyPartExamined": "BREAST", "SeriesDescription": "CHEST 5.0", "PixelSpacing": ["4", "4"]}
    segmenter = ClassicalSegmenter()
    found = analyse(write(ct_series(frames, **lying), tmp_path), Method(segmenter, None, None)).findings
    assert found.status == "refused"
    [reason] = [r for s in found.rejected for r in s.reasons]
    assert reason.code == "lungs-not-covered"
    assert "ml" in reason.text and "mm high" in reason.text
