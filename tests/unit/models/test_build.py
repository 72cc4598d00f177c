"""From the configuration to the method of analysis."""

import hashlib
from pathlib import Path

import pytest

from dicomnode.config import AnalysisTable
from dicomnode.errors import BundleError, ConfigurationError
from dicomnode.models import build, segmenters


def test_the_segmenter_runs_on_the_configured_device_and_no_other(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"not looked at before the device")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    table = AnalysisTable(segmenter="lungmask", lungmask_weights=weights, lungmask_sha256=digest, device="cuda:99")
    with pytest.raises(ConfigurationError, match="cuda:99: torch offers only cpu"):
        segmenters.make(table)


def test_a_bundle_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    for name in ("ild-2026", "ild-2025"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.toml").touch()
    (tmp_path / "notes").mkdir()
    with pytest.raises(
        BundleError, match=r"no bundle 'ild-2027' in .* \(available: ild-2025, ild-2026\): correct bundle"
    ):
        build.model_bundle(AnalysisTable(weights=tmp_path, bundle="ild-2027"))
    with pytest.raises(BundleError, match="available: none"):
        build.model_bundle(AnalysisTable(weights=tmp_path / "nowhere", bundle="ild-2027"))
