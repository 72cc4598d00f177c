"""The IBSI CT phantom's consensus values, configurations A to E of the reference manual (section 5.2), with the IBSI
preparation: every feature that we compute and the table has. Textures of A and B lie in planes and are merged over all
of them (IBSI: 2.5D, averaged over directions); those of C to E are three-dimensional."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract_image
from tests.parity.test_ibsi_digital import NOT_IBSI, OFFSET, PAIRS

LINEAR = {"resampledPixelSpacing": [2, 2, 2], "interpolator": "sitkLinear"}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("ibsi", {"force2D": True, "resegmentRange": [-500, 400], "binWidth": 25}),
    "b": (
        "ibsi",
        {"force2D": True, "resegmentRange": [-500, 400], "binCount": 32, **LINEAR, "resampledPixelSpacing": [2, 2, 0]},
    ),
    "c": ("ibsi", {"resegmentRange": [-1000, 400], "binWidth": 25, **LINEAR}),
    "d": ("ibsi-3sigma", {"binCount": 32, **LINEAR}),
    "e": ("ibsi-3sigma", {"resegmentRange": [-1000, 400], "binCount": 32, **LINEAR, "interpolator": "sitkBSpline"}),
}


@pytest.fixture(scope="module")
def phantom(data: Path) -> tuple[sitk.Image, sitk.Image]:
    folder = data / "ibsi_ct"
    image = sitk.ReadImage(str(folder / "image.nii.gz"))  # whole HU, stored as floats
    return sitk.Cast(image, sitk.sitkInt16), sitk.ReadImage(str(folder / "mask.nii.gz"))


def consensus(data: Path, name: str) -> dict[str, tuple[float, float]]:
    with (data / "ibsi_ct" / f"config_{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row["reference value"]]
    return {row["tag"]: (float(row["reference value"]), float(row["tolerance"])) for row in rows}


def off(found: dict[str, float], name: str, table: dict[str, tuple[float, float]]) -> dict[str, str]:
    """The features that miss the consensus, with both values."""
    missed = {}
    for ours, theirs in PAIRS.items():
        tag = theirs.replace("3D", "2_5D") if name in "ab" else theirs
        value, tolerance = table[tag]
        # The consensus is printed with three significant digits: half of the last one is rounding.
        rounding = 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - 2) * (1 + 1e-9)
        got = found[ours] - OFFSET.get(theirs, 0.0)
        if not abs(got - value) <= tolerance + rounding:
            missed[tag] = f"{got:.6g}, consensus {value:g} ± {tolerance:g}"
    return missed


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_computed_feature_meets_the_consensus(
    name: str, data: Path, phantom: tuple[sitk.Image, sitk.Image]
) -> None:
    preparation, setting = CONFIGURATIONS[name]
    settings = {
        "preparation": preparation,
        "featureClass": DEFAULT_SETTINGS["featureClass"],
        "setting": {"label": 1, **setting},
    }
    found = {k.replace(preparation, "original"): v for k, v in extract_image(*phantom, settings).items()}
    assert found.keys() == PAIRS.keys() | NOT_IBSI
    assert len(PAIRS) == 102
    assert off(found, name, consensus(data, name)) == {}


def test_pyradiomics_own_preparation_misses_most_of_them(data: Path, phantom: tuple[sitk.Image, sitk.Image]) -> None:
    """What the preparation is for; and the comparison can fail."""
    settings = {
        "featureClass": DEFAULT_SETTINGS["featureClass"],
        "setting": {"label": 1, "additionalInfo": False, **CONFIGURATIONS["c"][1]},
    }
    assert len(off(extract_image(*phantom, settings), "c", consensus(data, "c"))) > 60
