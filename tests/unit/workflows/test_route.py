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


def test_results_that_are_asked_for_while_they_are_encoded_go_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retrieve --send` sees a running study, and leaves it to its worker, which had looked just before."""
    (tmp_path / "ae_config.toml").write_text(CONFIG)
    loaded = config.load(tmp_path / "ae_config.toml")
    prepare_folders(loaded)
    catalog = Catalog.open(loaded.catalog_url, loaded.storage.state)
    monkeypatch.setattr(worker, "_work", worker.Work(loaded, catalog))

    def encoded(work: worker.Work, study_uid: str, generation: int, _status: str) -> list[str]:
        found = study._receivers(work, study_uid, generation)
        if study_uid == "1.2":
            assert catalog.send_bulk("1.2") and not catalog.reopen("1.2")
        catalog.set_state(study_uid, generation, "analysed", now=time.time())
        return [one.name for one in found]

    monkeypatch.setattr(study, "_encoded", encoded)
    for uid in ("1.2", "1.3"):
        assert catalog.begin_bulk(uid, "retrieve", keep=True, patient="", now=time.time())
        catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.5", "/x", "0" * 64, 1, time.time(), None, "a" * 32))
        catalog.settle(uid, time.time(), None)
        catalog.set_state(uid, 1, "running", now=time.time())
        assert study.encode_step.__wrapped__(uid, 1, "analysed") == []  # type: ignore[attr-defined]
    assert {s.study_uid: s.state for s in catalog.studies(9)} == {"1.2": "receiving", "1.3": "analysed"}
    catalog.close()
