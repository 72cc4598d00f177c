"""A worker that is sent what breaks it: the study is refused, once, and the next one is delivered."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from dicomnode import config
from dicomnode.errors import RefusedError
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.workflows.analyst import Analyst
from dicomnode.workflows.queue import WORKFLOW_VERSION
from tests.helpers.processes import children
from tests.helpers.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text("[storage]\nminimum_free_gb = 0.1\n[worker]\nmemory_gb = 4.0\n[analysis]\nradiomics = false\n")
    made = config.load(path)
    prepare_folders(made)
    return made


def test_an_analyst_that_dies_is_replaced_and_one_that_breaks_a_limit_ended(
    settings: config.Config, tmp_path: Path
) -> None:
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    lease = catalog.register_worker("test", WORKFLOW_VERSION)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM")
    for uid in ("1.1", "1.2", "1.3", "1.4"):
        catalog.record(Instance(f"{uid}.9", "1.2", uid, f"{uid}.1", str(broken), uid, 8, 1.0, None, "p"))
        catalog.settle(uid, 2.0, None)
    analyst = Analyst(settings)
    analyst.hold(lease)
    try:
        assert analyst.analyse("1.1", 1) == "refused"
        found = json.loads((settings.storage.results / "1.1" / "g1" / "findings.json").read_text())
        assert found["flags"][0]["code"] == "unreadable-files"
        first = _child()
        assert analyst.analyse("1.2", 1) == "refused"
        assert _child() == first  # its models stay warm

        os.kill(first, signal.SIGSTOP)
        object.__setattr__(analyst._limits, "seconds", 0.5)
        with pytest.raises(RefusedError, match="takes longer than") as refusal:
            analyst.analyse("1.3", 1)
        assert refusal.value.code == "too-large"
        assert not psutil.pid_exists(first)

        object.__setattr__(analyst._limits, "seconds", 60.0)
        os.kill(_child(), signal.SIGKILL)
        assert analyst.analyse("1.4", 1) == "refused"  # the first try died, the second ended
        assert not list(settings.storage.results.rglob("attempt.json"))
    finally:
        analyst.close()
        catalog.close()
    until("no analyst is left", lambda: not _children(), 20)


def _children() -> list[int]:
    return [child.pid for child in children("dicomnode.workflows.analyst")]


def _child() -> int:
    (found,) = _children()
    return found
