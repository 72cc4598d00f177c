"""Our loops against stock PyRadiomics, called as its manual says: random regions, and a whole chest CT."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.radiomics import extract as radiomics
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract, extract_image
from dicomnode.analysis.radiomics.itk_grid import ItkGrid
from dicomnode.analysis.series.selection import find_files, group, read_headers, select
from dicomnode.analysis.volume.load import load
from dicomnode.config import AnalysisTable
from dicomnode.errors import RefusedError
from dicomnode.models.build import method

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from radiomics.featureextractor import RadiomicsFeatureExtractor


def stock(image: sitk.Image, mask: sitk.Image, settings: Mapping[str, Any]) -> dict[str, float] | None:
    """The features; None where PyRadiomics refuses the region."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = RadiomicsFeatureExtractor(json.loads(json.dumps(settings))).execute(image, mask)
        except ValueError:
            return None
    return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics_")}


def assert_same(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Of a flat region PyRadiomics finds axes of 1e-8 mm where the whole-numbered sums say 0.
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True), name


@pytest.fixture
def no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the own loops should have covered this")

    monkeypatch.setattr(radiomics, "_stock", refuse)


@st.composite
def regions(draw: st.DrawFn) -> tuple[sitk.Image, sitk.Image]:
    """Noise, steps or a constant, in a box, a flat box, or scattered voxels."""
    # ITK's splines do not repeat themselves on images of two voxels: 1 of 100 gives other values in the next run.
    size = draw(st.tuples(*[st.integers(3, 9)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 20, 200, 1500]))
    values = (-700 + spread * random.normal(size=size)).clip(-1024, 3071).astype(np.int16)
    mask = np.zeros(size, np.uint8)
    starts = [draw(st.integers(0, n // 2)) for n in size]
    box = tuple(slice(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, size, strict=True))
    mask[box] = random.random(mask[box].shape) < draw(st.sampled_from([0.3, 0.6, 0.9, 1.0]))
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 3.0])] * 3))
    grid = ItkGrid(size[::-1], spacing, (-12.3, 4.5, 100.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    return grid.image(values), grid.image(mask)


SETTINGS = st.fixed_dictionaries(
    {"resampledPixelSpacing": st.sampled_from([None, [1, 1, 1], [0, 0, 2], [2, 2, 2]])},
    optional={
        "resegmentRange": st.sampled_from([[-1000, 400], [-800], [-750, -650]]),
        "resegmentShape": st.booleans(),
        "binWidth": st.sampled_from([10, 25, 100.5]),
        "interpolator": st.sampled_from(["sitkLinear", "sitkBSpline", "sitkNearestNeighbor"]),
        "padDistance": st.integers(0, 8),
        "minimumROISize": st.integers(1, 20),
        "minimumROIDimensions": st.integers(2, 3),
        "voxelArrayShift": st.just(1000),
        "gldm_a": st.integers(0, 2),
    },
)


@given(region=regions(), setting=SETTINGS)
@effort(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_regions(no_fallback: None, region: tuple[sitk.Image, sitk.Image], setting: dict[str, Any]) -> None:
    image, mask = region
    settings = {**DEFAULT_SETTINGS, "setting": {"label": 1, "additionalInfo": False, **setting}}
    expected = stock(image, mask, settings)
    if expected is None:
        with pytest.raises(RefusedError):
            extract_image(image, mask, settings)
    else:
        assert_same(extract_image(image, mask, settings), expected)


@pytest.fixture(scope="module")
def chest(data: Path) -> tuple[Volume, NDArray[np.bool_]]:
    """69 slices, of which every second row and column is enough: stock compares every two points of a surface."""
    selection = select(group(read_headers(find_files(data / "chest_lidc0314_every4th"))[0]), ())
    assert selection.chosen is not None
    whole = load(selection.chosen)
    dz, dy, dx = whole.spacing_mm
    volume = replace(whole, hu=np.ascontiguousarray(whole.hu[:, ::2, ::2]), spacing_mm=(dz, 2 * dy, 2 * dx))
    return volume, ClassicalSegmenter()(volume) > 0


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [None, [2, 2, 2]])
def test_a_whole_chest(chest: tuple[Volume, NDArray[np.bool_]], no_fallback: None, spacing: list[int] | None) -> None:
    """All 107 features of both lungs."""
    volume, mask = chest
    settings = {**DEFAULT_SETTINGS, "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": spacing}}
    grid = ItkGrid(
        volume.hu.shape[::-1],
        volume.spacing_mm[::-1],
        volume.origin_mm,
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    expected = stock(grid.image(volume.hu), grid.image(mask.astype(np.uint8)), settings)
    assert expected is not None
    assert len(expected) == 107
    found = extract(volume, mask, settings)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(
    "change",
    [
        {"imageType": {"LoG": {"sigma": [2.0]}}},
        {"imageType": {"Original": {}, "Wavelet": {}}},
        {"featureClass": {"shape2D": []}},
        {"featureClass": {"firstorder": ["StandardDeviation"]}},
        {"setting": {"normalize": True}},
        {"setting": {"weightingNorm": "euclidean"}},
        {"setting": {"distances": [1, 2]}},
        {"setting": {"force2D": True}},
        {"setting": {"symmetricalGLCM": False}},
        {"setting": {"resegmentRange": [-3, 3], "resegmentMode": "sigma"}},
        {"setting": {"minimumROIDimensions": 1}},
        {"setting": {"binWidth": 1}},
    ],
    ids=str,
)
def test_other_settings_go_to_stock(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiomics, "_stock", lambda *_: {"stock": 1.0})
    image, mask = sitk.Image(8, 8, 8, sitk.sitkInt16), sitk.Image(8, 8, 8, sitk.sitkUInt8)
    mask[2:6, 2:6, 2:6] = 1
    assert "stock" not in extract_image(image, mask, DEFAULT_SETTINGS)
    assert extract_image(image, mask, {**DEFAULT_SETTINGS, **change}) == {"stock": 1.0}
    assert extract_image(sitk.Cast(image, sitk.sitkFloat32), mask, DEFAULT_SETTINGS) == {"stock": 1.0}


@pytest.mark.slow
def test_filtered_images_as_the_configuration_asks_for_them() -> None:
    """LoG and wavelets beside the original image, from the keys of ae_config.toml to the numbers of one region."""
    table = AnalysisTable(radiomics_filters=("LoG", "Wavelet"), radiomics_log_sigma_mm=(1.5, 3.0))
    settings = method(table).radiomics_settings
    assert settings is not None
    random = np.random.default_rng(5)
    hu = random.integers(-950, -500, (16, 18, 20), dtype=np.int16)
    mask = np.zeros(hu.shape, bool)
    mask[4:12, 5:14, 4:15] = random.random((8, 9, 11)) < 0.9
    grid = ItkGrid(hu.shape[::-1], (0.8, 0.8, 1.5), (1.0, 2.0, 3.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    shares: list[float] = []
    found = extract(Volume(hu, (1.5, 0.8, 0.8), (1.0, 2.0, 3.0), axes, ()), mask, settings, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0], "the original image, each width, the wavelets: who waits sees it go on"
    expected = stock(grid.image(hu), grid.image(mask.astype(np.uint8)), settings)
    assert expected is not None
    assert len(expected) == 107 + 2 * 93 + 8 * 93
    assert_same(found, expected)


@pytest.mark.parametrize("voxels", [[(1, 1, 1), (5, 5, 1)], [(1, 1, 1), (1, 5, 1), (6, 1, 1)]])
def test_voxels_far_apart(no_fallback: None, voxels: list[tuple[int, int, int]]) -> None:
    """Nobody has a neighbour: directions without pairs, and lines that meet the region twice with a gap."""
    image, mask = sitk.Image(8, 8, 8, sitk.sitkInt16), sitk.Image(8, 8, 8, sitk.sitkUInt8)
    for number, voxel in enumerate(voxels):
        mask[voxel] = 1
        image[voxel] = 50 * number
    settings = {**DEFAULT_SETTINGS, "setting": {"label": 1, "additionalInfo": False}}
    expected = stock(image, mask, settings)
    assert expected is not None
    assert_same(extract_image(image, mask, settings), expected)
