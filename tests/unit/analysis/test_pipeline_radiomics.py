"""Which regions' radiomics get into the findings."""

import numpy as np

from dicomnode.analysis.arrays import LEFT, RIGHT, Volume
from dicomnode.analysis.pipeline import _radiomics
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract


def test_both_lungs_and_each_and_a_flag_for_what_is_missing() -> None:
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[2:9, 2:9, 2:7] = RIGHT
    hu = np.random.default_rng(0).integers(-900, -600, labels.shape, dtype=np.int16)
    volume = Volume(hu, (1.5, 0.8, 0.8), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
    found, flags = _radiomics(volume, labels, DEFAULT_SETTINGS)
    assert found.features.keys() == {"lungs", "right"}
    assert [(f.code, f.severity) for f in flags] == [("radiomics-region", "warning")]
    assert "left" in flags[0].text
    labels[2:9, 2:9, 9:14] = LEFT
    found, flags = _radiomics(volume, labels, DEFAULT_SETTINGS)
    assert not flags
    assert found.features["left"] == extract(volume, labels == LEFT)
    assert found.features["lungs"] == extract(volume, labels > 0)
    assert found.settings == DEFAULT_SETTINGS
