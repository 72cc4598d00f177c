"""`dicomnode check`: its own port, free or taken by the node that is running; a candidate that would never be asked."""

from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomnode import config
from dicomnode.network import association
from dicomnode.network.association import Peer
from dicomnode.operations import checks
from tests.conftest import ROOT
from tests.helpers.certificates import Authority, toml
from tests.helpers.ports import free_port


def port_of(tmp_path: Path, port: int) -> checks.Result:
    path = tmp_path / "ae_config.toml"
    path.write_text(f'[node]\nport = {port}\n[storage]\nstate = "s"\n')
    (found,) = checks._ports(config.load(path))
    return found


def test_a_free_port(tmp_path: Path) -> None:
    assert port_of(tmp_path, free_port()).text.endswith("is free")


@pytest.mark.parametrize(
    ("callers", "says"),
    [([], "answers as DICOMNODE: the node is running"), (["CT1"], "rejects DICOMNODE as a caller")],
    ids=["open", "not among the callers"],
)
def test_the_node_itself_has_the_port(tmp_path: Path, callers: list[str], says: str) -> None:
    running = AE("DICOMNODE")
    running.require_calling_aet = callers
    running.add_supported_context(Verification)
    server = running.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        found = port_of(tmp_path, server.socket.getsockname()[1])
    finally:
        server.shutdown()
    assert found.ok
    assert says in found.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "record", "ok", "says"),
    [
        ("demo-synthetic", "true", True, "runs in shadow on each scan"),
        ("demo-synthetic", "false", False, "set registry.record = true"),
        ("nowhere", "true", False, "no bundle 'nowhere'"),
    ],
)
def test_a_candidate_loads_and_is_asked(tmp_path: Path, name: str, record: str, ok: bool, says: str) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        f'[analysis]\nweights = "{ROOT / "weights"}"\nshadow_bundle = "{name}"\nallow_demo_bundles = true\n'
        f"[registry]\nrecord = {record}\n"
    )
    (found,) = (r for r in checks.run(config.load(path)) if r.what == "shadow_bundle")
    assert found.ok == ok
    assert says in found.text


def test_peers_are_asked_just_as_the_node_asks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = 'ae_title = "IT"\nhost = "h"\nport = 104\ntimeout_s = 7\n'
    path = tmp_path / "ae_config.toml"
    tables = ("worklist", "priors", "ups", "mpps")
    path.write_text(
        '[node]\nae_title = "ME"\n[[destination]]\nname = "pacs"\n'
        + address
        + "".join(f"[{table}]\n{address}" for table in tables)
    )
    asked: list[Peer] = []

    def echo(peer: Peer) -> float:
        asked.append(peer)
        return 0.012

    monkeypatch.setattr(association, "echo", echo)
    loaded = config.load(path)
    said = list(checks._peers(loaded))
    assert [(r.what, r.ok, r.text) for r in said] == [
        (what, True, "answered C-ECHO in 12 ms") for what in ("destination pacs", *tables)
    ]
    assert asked == [loaded.destination[0].peer, *(table.peer for table in loaded.remotes)]


def test_certificates_are_checked(tmp_path: Path) -> None:
    hospital = Authority(tmp_path / "ca")
    path = tmp_path / "ae_config.toml"
    path.write_text(f"[node]\nplain = false\ntls_port = {free_port()}\n" + toml(hospital.files("node")))
    found = [r for r in checks.run(config.load(path)) if r.what in ("port", "tls_port", "tls")]
    assert [(r.what, r.ok) for r in found] == [("tls_port", True), ("tls", True)]
    assert "can be used until" in found[1].text
    soon = hospital.files("soon", days=20)
    soon.key.chmod(0o644)
    path.write_text(f"[node]\ntls_port = {free_port()}\n" + toml(soon))
    wrong = [r.text for r in checks.run(config.load(path)) if r.what == "tls"]
    assert len(wrong) == 2
    assert "in 19 days: replace it before" in wrong[0] and "chmod 600" in wrong[1]
