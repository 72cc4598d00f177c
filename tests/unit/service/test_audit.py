"""The audit trail of a receiving process."""

import socket
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.audit.journal import Journal
from dicomnode.audit.messages import AuditMessage
from dicomnode.service import audit
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.waiting import until


def test_the_journal_of_a_receiver_killed_while_this_one_runs_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a restart the one before may still note events, and be killed, after this one has looked for journals."""
    monkeypatch.setattr(audit, "_ADOPT_EVERY_S", 0.0)
    path = tmp_path / "ae_config.toml"
    path.write_text('[audit]\nto = "file"\nfile = "audit.log"\n')
    made = config.load(path)
    prepare_folders(made)
    state = made.storage.state
    with audit.receiving(made):
        dead = Journal(state / "audit", f"{socket.gethostname()},{2**22 + 1},1")
        dead.note(AuditMessage("110113", 1.0, "<AuditMessage/>"))
        dead.keep_count(3)
        catalog = Catalog.open(made.catalog_url, state)
        until("taken over", lambda: len(catalog.audit_waiting(10)) == 2)
        assert any("3 more associations refused" in one.xml for one in catalog.audit_waiting(10))
        catalog.close()
    assert list((state / "audit").iterdir()) == []
