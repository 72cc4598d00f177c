"""A started node tells by webhook and e-mail that something is wrong with it, once, and that it is over, once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomnode.demo.pacs import StoragePeer
from tests.helpers.ports import free_port
from tests.helpers.receivers import MailServer, Webhook
from tests.helpers.running import ROOT, Node
from tests.helpers.waiting import until

LOOKS = "[alerts]\nevery_s = 0.3\naway_minutes = 0.01\nrefused = 2\ndisk_free_gb = 0.001\n[worker]\ndead_after_s = 5\n"
CALLERS = '[[node.callers]]\nae_title = "CT1"\n'


class Told:
    """The webhook and the mail server that are told, and what they have heard."""

    def __init__(self, folder: Path) -> None:
        self.hook, self.mails = Webhook(), MailServer()
        (folder / "key").write_text("secret")
        self.tables = (
            f'[[notify]]\nname = "hook"\nkind = "webhook"\nurl = "{self.hook.url}"\n'
            f"secret_file = {json.dumps(str(folder / 'key'))}\nretry_first_s = 0.2\n"
            f'[[notify]]\nname = "it"\nkind = "email"\nto = ["a@b.example"]\nsender = "n@b.example"\n'
            f'server = "{self.mails.address}"\nsecurity = "none"\n'
        )

    def heard(self, words: str) -> list[str]:
        """The events whose reason has these words, in their order."""
        bodies: list[dict[str, Any]] = [json.loads(body) for _, body in self.hook.came]
        return [body["event"] for body in bodies if words in body["reason"]]

    def subjects(self) -> set[str]:
        return {line for mail in self.mails.mails for line in mail.splitlines() if line.startswith("Subject: ")}

    def close(self) -> None:
        self.hook.close()
        self.mails.close()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.close()


def test_a_peer_a_bundle_and_strangers(tmp_path: Path, told: Told) -> None:
    """The PACS is away, the bundle is of an old format, an unknown caller calls; then all is put right."""
    weights = tmp_path / "weights"
    shutil.copytree(ROOT / "weights" / "demo-synthetic", weights / "demo-synthetic")
    model = weights / "demo-synthetic" / "model.toml"
    whole = model.read_text()
    model.write_text("format = 1\n")
    port = free_port()
    pacs = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 2\n'
    node = Node(tmp_path / "node", pacs, extra=LOOKS + told.tables, listening=CALLERS)
    path = node.config_path
    path.write_text(path.read_text().replace(json.dumps(str(ROOT / "weights")), json.dumps(str(weights))))
    node.start()
    try:
        until("the PACS is missed", lambda: told.heard("destination pacs"), 120)
        until("the worker is missed", lambda: told.heard("worker-0"), 120)
        assert any("model.toml" in json.loads(body)["reason"] for _, body in told.hook.came)
        for _ in range(3):
            stranger = AE("STRANGER")
            stranger.add_requested_context(Verification)
            assert stranger.associate("127.0.0.1", node.port, ae_title="DICOMNODE").is_rejected
        until("the stranger is told of", lambda: told.heard("associations refused"), 60)
        shown = {(one["what"], one["warning"]) for one in json.loads(node.cli("check", "--json").stdout)}
        assert ("alert", True) in shown
        assert node.stop() == 0

        came = len(told.hook.came)
        node.start()
        looks = node.log().count("ended with exit status 4")
        until("the worker has failed again", lambda: node.log().count("ended with exit status 4") > looks, 60)
        assert node.stop() == 0
        assert len(told.hook.came) == came  # a restart tells nothing twice

        model.write_text(whole)
        peer = StoragePeer("PACS", "127.0.0.1", port, tmp_path / "pacs")
        peer.start()
        node.start()
        try:
            until("the PACS is back", lambda: "alert-over" in told.heard("destination pacs"), 30)
            until("a worker is there", lambda: "alert-over" in told.heard("no worker"), 120)
        finally:
            peer.stop()
    finally:
        node.stop()
    for words in ("destination pacs", "no worker"):
        assert told.heard(words)[:2] == ["alert", "alert-over"], words
    subject = "Subject: dicomnode: alert of DICOMNODE"
    until("told by e-mail too", lambda: {subject, f"{subject} is over"} <= told.subjects(), 30)
