"""A prior whose findings cannot be read is left out, and the later studies of its patient are analysed."""

from pathlib import Path

import pytest

from dicomnode.config import Config
from dicomnode.context.prior_findings import prior_findings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, results_folder

POISON = "1.2." + "3" * 70_000


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    for uid in (POISON, "1.3", "1.4", "1.5"):
        made.record(Instance(f"{uid}.9", "1.2", uid, f"{uid}.1", "gone", uid[:64], 8, 1.0, None, "a" * 32))
        made.settle(uid, 2.0, None)
        made.set_state(uid, 1, "delivered", now=3.0)
    return made


def test_poison_is_left_out(catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = Config()
    config = config.model_copy(update={"storage": config.storage.model_copy(update={"results": tmp_path / "results"})})
    assert len(catalog.other_studies("1.5")) == 3
    for uid, content in (("1.3", b"\xff\xfe"), ("1.4", b"[" * 100_000)):
        folder = results_folder(tmp_path / "results", uid, 1)
        folder.mkdir(parents=True)
        (folder / FINDINGS).write_bytes(content)
    assert prior_findings(catalog, config, "1.5") == []
    assert caplog.text.count("is left out as a prior") == 2
    catalog.close()
