"""Our loops against stock PyRadiomics, called as its manual says: random regions, and a whole chest CT."""

import copy
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from dicomnode.analysis import radiomics
from dicomnode.analysis.classical_segmenter import ClassicalSegmenter
from dicomnode.analysis.radiomics import DEFAULT_SETTINGS, extract, extract_image
from dicomnode.analysis.resampling import Grid
from dicomnode.analysis.series import find_files, group, read_headers, select
from dicomnode.analysis.volume import load
from dicomnode.errors import RefusedError

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
    return {name: float(value) for name, value in found.items() if name.startswith("original_")}


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
    size = draw(st.tuples(*[st.integers(2, 9)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 20, 200, 1500]))
    values = (-700 + spread * random.normal(size=size)).clip(-1024, 3071).astype(draw(st.sampled_from(["i2", "i2"])))
    mask = np.zeros(size, np.uint8)
    box = tuple(slice(*sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))) for n in size)
    mask[box] = random.random(mask[box].shape) < draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 3.0])] * 3))
    grid = Grid(size[::-1], spacing, (-12.3, 4.5, 100.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
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


@given(regions(), SETTINGS)
@effort(max_examples=60, deadline=None)
def test_random_regions(no_fallback_images: tuple[sitk.Image, sitk.Image], setting: dict[str, Any]) -> None:
    image, mask = no_fallback_images
    settings = {**DEFAULT_SETTINGS, "setting": {"label": 1, "additionalInfo": False, **setting}}
    expected = stock(image, mask, settings)
    if expected is None:
        with pytest.raises(RefusedError):
            extract_image(image, mask, settings)
    else:
        assert_same(extract_image(image, mask, settings), expected)
