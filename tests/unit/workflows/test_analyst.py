"""What a worker knows of its analysts before and between the studies."""

import shutil
from pathlib import Path

import pytest

from dicomnode.config import AnalysisTable, Config
from dicomnode.config.node import StorageTable
from dicomnode.errors import BundleError, SpoolError
from dicomnode.models.serving import Models
from dicomnode.service.processes import prepare_folders
from dicomnode.workflows.analyst import Analyst
from tests.conftest import ROOT
from tests.helpers.bundles import change
from tests.helpers.processes import children
from tests.helpers.waiting import until

_ANALYST = "dicomnode.workflows.analyst"


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    weights = tmp_path / "weights"
    for name in ("one", "two"):
        shutil.copytree(ROOT / "weights" / "demo-synthetic", weights / name)
    change(weights / "two", '^version = "', 'version = "candidate-')
    (weights / "current").symlink_to("one")
    table = AnalysisTable(weights=weights, bundle="current", allow_demo_bundles=True)
    folders = StorageTable(spool=tmp_path / "spool", results=tmp_path / "results", state=tmp_path / "state")
    made = Config(analysis=table, storage=folders)
    prepare_folders(made)
    return made


@pytest.mark.slow
def test_the_method_is_that_of_the_bundle_that_lies_there_now(settings: Config) -> None:
    served = Models(settings)
    analyst = Analyst(settings)
    try:
        analyst.begin()
        first = analyst.digest
        assert first == served.method().digest
        (settings.analysis.weights / "next").symlink_to("two")
        (settings.analysis.weights / "next").replace(settings.analysis.weights / "current")
        assert analyst.digest == served.method().digest != first
        (one,) = children(_ANALYST)
        one.kill()
        one.wait()
        last = analyst.digest
        assert last == served.method().digest  # the last one that was told
        (other,) = until("another one is begun", lambda: children(_ANALYST), 20)
        assert other.pid != one.pid
        analyst.begin()
    finally:
        analyst.close()


def test_a_worker_that_cannot_analyse_does_not_begin(settings: Config) -> None:
    (settings.analysis.weights / "one" / "MODEL_CARD.md").write_text("changed")
    analyst = Analyst(settings)
    try:
        with pytest.raises(BundleError, match=r"MODEL_CARD\.md is not the file listed"):
            analyst.begin()
    finally:
        analyst.close()


def test_an_analyst_that_ends_as_it_begins_is_an_error(settings: Config) -> None:
    analyst = Analyst(settings)
    try:
        (one,) = children(_ANALYST)
        one.kill()
        with pytest.raises(SpoolError, match="ended as it began"):
            analyst.begin()
    finally:
        analyst.close()
