"""PyRadiomics' own baseline through our call: brain1, brain2, breast1 with the settings that stand beside the values.

Not here: the columns of lung1 and lung2, whose images are not among the test data.
"""

import ast
import csv
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from dicomnode.analysis.radiomics import extract_image

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "shape", "shape2D")
IMAGES = ("brain1", "brain2", "breast1")
#: Defaults of PyRadiomics 1.3 and 2.0, with which the baseline was made, that later versions dropped or refuse.
NO_LONGER_KNOWN = ("voxelArrayShift", "gldm_a")


def column(table: list[list[str]], case: str) -> dict[str, str]:
    index = table[0].index(case)
    return {row[0]: row[index] for row in table[1:]}


def settings(cells: dict[str, str], feature_class: str) -> dict[str, Any]:
    stored = ast.literal_eval(cells["diagnostics_Configuration_Settings"])
    setting = {name: value for name, value in stored.items() if value is not None}
    return {
        "imageType": ast.literal_eval(cells["diagnostics_Configuration_EnabledImageTypes"]),
        "featureClass": {feature_class: []},
        "setting": setting,
    }


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("feature_class", CLASSES)
def test_baseline(data: Path, image: str, feature_class: str) -> None:
    folder = data / "pyradiomics_baseline"
    with (folder / "baseline" / f"baseline_{feature_class}.csv").open(newline="") as file:
        table = list(csv.reader(file))
    cases = [name for name in table[0][1:] if name.split("_")[0] == image]
    assert cases
    picture, mask = (sitk.ReadImage(str(folder / f"{image}_{kind}.nrrd")) for kind in ("image", "label"))
    for case in cases:
        cells = column(table, case)
        found = extract_image(picture, mask, settings(cells, feature_class))
        expected = {name: float(value) for name, value in cells.items() if name.startswith("original_")}
        assert expected
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), f"{case} {name}"
