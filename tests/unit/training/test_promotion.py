"""What the node serves changes only with the gate's consent to exactly this step, and can be taken back."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dicomnode.analysis.bundle import read
from dicomnode.errors import UsageError
from tests.conftest import ROOT
from training import promotion

DEMO = ROOT / "weights" / "demo-synthetic"


def run_folder(folder: Path, version: str, current: str, *, passed: bool = True) -> Path:
    """A run with a bundle, and the verdict of its comparison with `current` (a digest, or "")."""
    shutil.copytree(DEMO, folder / "bundle")
    manifest = folder / "bundle" / "model.toml"
    manifest.write_text(re.sub('^version = ".*"$', f'version = "{version}"', manifest.read_text(), flags=re.MULTILINE))
    checks = [{"passed": passed, "text": "AUC is lower by 0.05"}]
    verdict = {
        "passed": passed,
        "checks": checks,
        "bundle_sha256": read(folder / "bundle").sha256,
        "current_sha256": current,
    }
    (folder / promotion.GATE).write_text(json.dumps(verdict))
    return folder


def now_serving(weights: Path) -> str:
    served = promotion.served(weights)
    assert served is not None
    return read(served).version


@pytest.mark.slow
def test_promoted_twice_and_taken_back(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    first = promotion.promote(run_folder(tmp_path / "a", "8", ""), weights)
    assert (now_serving(weights), first.before) == ("8", "")
    second = promotion.promote(run_folder(tmp_path / "b", "9", first.bundle_sha256), weights)
    assert (now_serving(weights), second.before) == ("9", first.bundle)
    promotion.rollback(weights)
    assert now_serving(weights) == "8"
    with pytest.raises(UsageError, match="knows of no bundle before"):
        promotion.rollback(weights)
    assert [p.what for p in promotion.history(weights)] == ["promoted", "promoted", "rolled back"]
    assert (weights / second.bundle / "model.toml").is_file()


@pytest.mark.slow
def test_refused_without_a_consent_to_this_step(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    with pytest.raises(UsageError, match=r"the gate refused this run: AUC is lower by 0\.05"):
        promotion.promote(run_folder(tmp_path / "a", "8", "", passed=False), weights)
    with pytest.raises(UsageError, match="another bundle than the one that serves now"):
        promotion.promote(run_folder(tmp_path / "b", "8", "ab" * 32), weights)
    other = run_folder(tmp_path / "c", "8", "")
    (other / promotion.GATE).write_text((tmp_path / "a" / promotion.GATE).read_text().replace("false", "true"))
    shutil.rmtree(other / "bundle")
    shutil.copytree(DEMO, other / "bundle")
    with pytest.raises(UsageError, match="about another bundle"):
        promotion.promote(other, weights)
    (other / promotion.GATE).unlink()
    with pytest.raises(UsageError, match=r"run `training compare"):
        promotion.promote(other, weights)
    assert promotion.served(weights) is None


def test_a_current_that_is_no_link_is_said(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(UsageError, match="no link"):
        promotion.served(tmp_path)
