"""The audit trail of a receiving process, and its sender."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.audit.journal import Journal
from dicomnode.audit.messages import AuditMessage
from dicomnode.audit.syslog import Outgoing
from dicomnode.config.audit import AuditTable
from dicomnode.errors import PeerError
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


class Stumbling:
    """A server that takes nothing for some tries."""

    def __init__(self, failures: int) -> None:
        self.failures, self.tried = failures, 0

    def send(self, batch: Sequence[Outgoing]) -> int:
        self.tried += 1
        if self.tried <= self.failures:
            raise PeerError("it stumbled")
        return len(batch)

    def check(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(("failures", "left"), [(0, 0), (3, 0), (4, 1)])
def test_what_waits_when_the_node_stops_is_tried_again(
    failures: int, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Stumbling(failures)
    monkeypatch.setattr(AuditTable, "sink", lambda table, name: server)
    path = tmp_path / "ae_config.toml"
    path.write_text('[audit]\nto = "file"\nfile = "audit.log"\n')
    made = config.load(path)
    prepare_folders(made)
    catalog = Catalog.open(made.catalog_url, made.storage.state)
    catalog.audit(AuditMessage("110100", 1.0, "<AuditMessage/>"))
    sender = audit.Sender(made, catalog)
    sender.start()
    until("tried", lambda: server.tried)
    sender.stop()
    assert len(catalog.audit_waiting(10)) == left
    catalog.close()
