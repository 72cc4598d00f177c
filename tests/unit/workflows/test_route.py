"""What rules decide of a study whose results stay here: somebody may ask for them before they are planned."""

import time
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.workflows import route, study, worker

CONFIG = """
[[destination]]
name = "pacs"
ae_title = "P"
host = "127.0.0.1"
port = 9
[[destination]]
name = "viewer"
ae_title = "V"
host = "127.0.0.1"
port = 9
[[route]]
name = "both"
analyse = "default"
results_to = ["pacs"]
forward_to = ["viewer"]
"""


def test_results_that_are_asked_for_after_the_decision_go_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ae_config.toml").write_text(CONFIG)
    loaded = config.load(tmp_path / "ae_config.toml")
    prepare_folders(loaded)
    catalog = Catalog.open(loaded.catalog_url, loaded.storage.state)
    work = worker.Work(loaded, catalog)
    monkeypatch.setattr(worker, "_work", work)
    assert catalog.begin_bulk("1.2", "retrieve", keep=True, patient="", now=time.time())
    catalog.record(Instance("1.2.1", "1.9", "1.2", "1.5", "/x", "0" * 64, 1, time.time(), None, "a" * 32))
    catalog.settle("1.2", time.time(), None)
    assert route.decide_step.__wrapped__("1.2", 1) == "queued"  # type: ignore[attr-defined]
    assert route.action_of(work, "1.2", 1).forward_to == ()
    assert study._receivers(work, "1.2", 1) == []
    assert catalog.send_bulk("1.2")
    assert [one.name for one in study._receivers(work, "1.2", 1)] == ["pacs"]
    catalog.close()
