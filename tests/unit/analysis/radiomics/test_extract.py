"""Our call of PyRadiomics against stock PyRadiomics, called as its manual says."""

import copy
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from dicomnode.analysis.arrays import Mask, Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract
from dicomnode.errors import ConfigurationError, RefusedError

#: Features per class, without the deprecated ones.
FEATURES = {"shape": 14, "firstorder": 18, "glcm": 24, "glrlm": 16, "glszm": 16, "gldm": 14, "ngtdm": 5}


def changed(**setting: object) -> Mapping[str, Any]:
    settings: dict[str, Any] = copy.deepcopy(dict(DEFAULT_SETTINGS))
    settings["setting"].update(setting)
    return settings


@pytest.fixture(scope="session")
def small_region(tiny_cip: Volume) -> Mask:
    """A part of the right lung: enough for all features, quick."""
    labels = ClassicalSegmenter()(tiny_cip)
    mask = labels == 1
    mask[:36] = mask[44:] = False
    return mask


def stock(volume: Volume, mask: Mask, settings: Mapping[str, Any]) -> dict[str, float]:
    """PyRadiomics without dicomnode, on images whose geometry is written out here."""
    images = [sitk.GetImageFromArray(a) for a in (volume.hu, mask.astype(np.uint8))]
    for image in images:
        image.SetSpacing((volume.spacing_mm[2], volume.spacing_mm[1], volume.spacing_mm[0]))
        image.SetOrigin(volume.origin_mm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from radiomics.featureextractor import RadiomicsFeatureExtractor

        found = RadiomicsFeatureExtractor(json.loads(json.dumps(settings))).execute(*images)
    return {k: float(v) for k, v in found.items() if k.startswith("original_")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [DEFAULT_SETTINGS, changed(interpolator="sitkBSpline"), changed(resampledPixelSpacing=None)]
)
def test_stock_pyradiomics_repeats_the_numbers(
    tiny_cip: Volume, small_region: Mask, settings: Mapping[str, Any]
) -> None:
    before = copy.deepcopy(settings)
    found = extract(tiny_cip, small_region, settings)
    assert settings == before
    expected = stock(tiny_cip, small_region, settings)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


def test_the_default_is_all_107_features_as_json(tiny_cip: Volume, small_region: Mask) -> None:
    found = extract(tiny_cip, small_region)
    for name, count in FEATURES.items():
        assert sum(key.startswith(f"original_{name}_") for key in found) == count
    assert len(found) == 107
    assert all(type(value) is float for value in found.values())
    assert np.isfinite(list(found.values())).all()
    json.dumps(found, allow_nan=False)


def test_cropping_would_change_the_numbers(tiny_cip: Volume, small_region: Mask) -> None:
    """The reason why `extract` hands over the whole volume: the resampling grid hangs on the image's corner."""
    z, y, x = (slice(int(i.min()) - 3, int(i.max()) + 4) for i in np.nonzero(small_region))
    dz, dy, dx = tiny_cip.spacing_mm
    ox, oy, oz = tiny_cip.origin_mm
    origin = (ox + x.start * dx, oy + y.start * dy, oz + z.start * dz)
    cropped = Volume(tiny_cip.hu[z, y, x].copy(), tiny_cip.spacing_mm, origin, tiny_cip.axes, ())
    settings = dict(DEFAULT_SETTINGS, featureClass={"firstorder": ["Mean", "Variance"]})
    whole = extract(tiny_cip, small_region, settings)
    part = extract(cropped, small_region[z, y, x].copy(), settings)
    assert part["original_firstorder_Mean"] == pytest.approx(whole["original_firstorder_Mean"], rel=0.01)
    assert part != whole


def test_geometry_reaches_pyradiomics() -> None:
    """A box of 40 x 30 x 20 mm (z, y, x): its axes' lengths tell whether spacings stayed with their axes."""
    mask = np.zeros((12, 24, 30), dtype=bool)
    mask[3:7, 5:20, 6:26] = True
    hu = np.random.default_rng(0).integers(-900, -700, mask.shape, dtype=np.int16)
    volume = Volume(hu, (10.0, 2.0, 1.0), (5.0, 6.0, 7.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
    found = extract(volume, mask, changed(resampledPixelSpacing=None))
    assert found["original_shape_VoxelVolume"] == pytest.approx(40 * 30 * 20)
    assert found["original_shape_MajorAxisLength"] > found["original_shape_MinorAxisLength"]
    assert found["original_shape_Maximum2DDiameterColumn"] == pytest.approx(np.hypot(40, 20), rel=0.1)
    assert found["original_firstorder_Mean"] == pytest.approx(hu[mask].mean())


def test_intensities_are_resegmented_and_the_shape_is_not() -> None:
    mask = np.zeros((16, 16, 16), dtype=bool)
    mask[4:12, 4:12, 4:12] = True
    hu = np.full(mask.shape, -800, dtype=np.int16)
    hu[6:8, 6:8, 6:8] = 900
    hu[5, 6, 8] = -700
    volume = Volume(hu, (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
    found = extract(volume, mask, changed(resampledPixelSpacing=None))
    assert found["original_firstorder_Maximum"] == -700
    assert found["original_shape_VoxelVolume"] == pytest.approx(16**3)


@pytest.mark.parametrize(
    "settings",
    [
        changed(binwidth=25),
        changed(binWidth="wide"),
        {"imageType": {"Cubist": {}}},
        {"featureClass": {"beauty": []}},
        {"settings": {}},
    ],
)
def test_settings_that_pyradiomics_does_not_know_are_refused(
    tiny_cip: Volume, small_region: Mask, settings: Mapping[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="does not accept"):
        extract(tiny_cip, small_region, settings)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("voxels", [0, 1])
def test_a_region_that_is_too_small_is_refused(tiny_cip: Volume, voxels: int) -> None:
    mask = np.zeros(tiny_cip.hu.shape, dtype=bool)
    mask.ravel()[:voxels] = True
    with pytest.raises(RefusedError) as refused:
        extract(tiny_cip, mask)
    assert refused.value.code == "radiomics-region"


def test_it_is_quiet() -> None:
    """In a process of its own, whose root logger shows everything that PyRadiomics lets through."""
    script = """
import logging
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("numba").setLevel(logging.INFO)  # its compiler, where nothing has been compiled yet
import numpy as np
from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.radiomics.extract import extract
mask = np.zeros((16, 16, 16), dtype=bool)
mask[4:12, 4:12, 4:12] = True
hu = np.random.default_rng(0).integers(-900, -700, mask.shape, dtype=np.int16)
extract(Volume(hu, (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ()), mask)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert logging.getLogger("radiomics").propagate
