"""Another bundle serves without a restart; one that does not load takes nobody's place."""

import shutil
from pathlib import Path

import pytest

from dicomnode.config import AnalysisTable, Config
from dicomnode.errors import BundleError
from dicomnode.models.serving import Models
from tests.conftest import ROOT
from tests.helpers.bundles import change

DEMO = ROOT / "weights" / "demo-synthetic"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Two bundles, of which `current` names the first."""
    for name in ("one", "two"):
        shutil.copytree(DEMO, tmp_path / name)
    change(tmp_path / "two", '^version = "', 'version = "candidate-')
    (tmp_path / "current").symlink_to("one")
    return tmp_path


def point(weights: Path, target: str) -> None:
    (weights / "next").symlink_to(target)
    (weights / "next").replace(weights / "current")


def served(weights: Path, shadow: str = "") -> Config:
    table = AnalysisTable(weights=weights, bundle="current", shadow_bundle=shadow, allow_demo_bundles=True)
    return Config(analysis=table)


def version(models: Models) -> str:
    bundle = models.method().bundle
    assert bundle is not None
    return bundle.version


@pytest.mark.slow
def test_the_bundle_is_followed(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = Models(served(weights))
    before, digest = version(models), models.method().digest
    assert models.method() is models.method()
    point(weights, "two")
    assert version(models) == f"candidate-{before}"
    assert models.method().digest != digest
    (weights / "one" / "MODEL_CARD.md").write_text("changed")
    point(weights, "one")
    assert version(models) == f"candidate-{before}"
    assert "does not load" in caplog.text


@pytest.mark.slow
def test_a_candidate_comes_and_goes(weights: Path) -> None:
    models = Models(served(weights, "two"))
    shadow = models.shadow()
    assert shadow is not None
    assert shadow.version.startswith("candidate-")
    (weights / "two" / "MODEL_CARD.md").write_text("changed")
    (weights / "two" / "model.toml").touch()
    assert models.shadow() is None
    assert models.method().bundle is not None


@pytest.mark.slow
@pytest.mark.parametrize("role", ["served", "candidate"])
def test_a_bundle_that_is_still_being_copied_is_tried_again(
    weights: Path, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    """Copied in the order of names, or by rsync: `model.toml` may lie there long before the last file does."""
    models = Models(served(weights, "three" if role == "candidate" else ""))
    (weights / "three").mkdir()
    if role == "served":
        point(weights, "three")

    def found() -> str:
        bundle = models.shadow() if role == "candidate" else models.method().bundle
        return "" if bundle is None else bundle.version

    before = found()
    names = sorted((p.name for p in (weights / "two").iterdir()), key=lambda name: name != "model.toml")
    for name in names[:-1]:
        shutil.copy2(weights / "two" / name, weights / "three")
    caplog.clear()
    assert [found(), found()] == [before, before]
    assert caplog.text.count("does not load") == 1
    shutil.copy2(weights / "two" / names[-1], weights / "three")
    assert found().startswith("candidate-")


@pytest.mark.slow
def test_a_candidate_that_does_not_load_stops_no_start(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    (weights / "two" / "MODEL_CARD.md").write_text("changed")
    models = Models(served(weights, "two"))
    assert "shadow bundle two does not load" in caplog.text
    assert models.shadow() is None
    assert models.method().bundle is not None


def test_a_start_with_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        Models(Config(analysis=AnalysisTable(weights=tmp_path, bundle="nowhere")))
