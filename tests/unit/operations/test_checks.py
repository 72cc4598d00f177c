"""`dicomnode check`: its own port, free or taken by the node that is running; a candidate that would never be asked."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicomnode import config
from dicomnode.network import association
from dicomnode.network.association import Peer
from dicomnode.operations import checks
from tests.conftest import ROOT
from tests.helpers.certificates import Authority, toml
from tests.helpers.ports import free_port


def port_of(tmp_path: Path, port: int) -> checks.CheckResult:
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

    services: dict[str, list[str]] = {}

    def refused(peer: Peer, needed: Sequence[UID]) -> list[UID]:
        services[peer.name] = [one.name.rpartition(" - ")[2] for one in needed]
        return []

    monkeypatch.setattr(association, "echo", echo)
    monkeypatch.setattr(association, "refused", refused)
    loaded = config.load(path)
    said = list(checks._peers(loaded))
    assert services == {
        "worklist": ["FIND"],
        "priors": ["FIND", "MOVE"],
        "ups": ["Pull SOP Class"],
        "mpps": ["Modality Performed Procedure Step SOP Class"],
    }
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


def test_a_peer_that_lacks_a_service_is_told(tmp_path: Path) -> None:
    """A PACS that answers C-ECHO and nothing else: no prior would ever come."""
    pacs = AE("PACS")
    pacs.add_supported_context(Verification)
    pacs.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = pacs.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    address = f'ae_title = "PACS"\nhost = "127.0.0.1"\nport = {server.socket.getsockname()[1]}\n'
    path = tmp_path / "ae_config.toml"
    path.write_text(
        f'[settle]\ncount_at = "pacs"\n[[destination]]\nname = "pacs"\ncommitment = true\n{address}[priors]\n{address}'
    )
    try:
        said = {r.what: (r.ok, r.text) for r in checks._peers(config.load(path))}
    finally:
        server.shutdown()
    assert [ok for ok, _ in said.values()] == [False, False]
    assert "does not accept Storage Commitment Push Model SOP Class: allow" in said["destination pacs"][1]
    assert "does not accept Study Root Query/Retrieve Information Model - MOVE: allow" in said["priors"][1]


@pytest.mark.parametrize(
    ("host", "addresses", "says"),
    [
        ("0.0.0.0", ["127.0.0.1", "::1"], "admits this one only"),
        ("0.0.0.0", ["127.0.0.1", "10.0.0.0/8"], ""),
        ("0.0.0.0", [], ""),
        ("127.0.0.1", ["10.0.0.3"], "cannot be reached from them"),
        ("127.0.0.1", ["127.0.0.0/8"], ""),
        ("127.0.0.1", ["0.0.0.0/0"], ""),
    ],
)
def test_callers_and_the_listening_address_meet(tmp_path: Path, host: str, addresses: list[str], says: str) -> None:
    path = tmp_path / "ae_config.toml"
    callers = "".join(f'[[node.callers]]\nae_title = "CT{i}"\naddress = "{a}"\n' for i, a in enumerate(addresses))
    path.write_text(f'[node]\nhost = "{host}"\n{callers}')
    found = list(checks._callers(config.load(path)))
    assert len(found) == bool(says)
    assert all(one.warning and says in one.text for one in found)


def test_a_folder_that_takes_no_files_is_told_whatever_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text('[storage]\nspool = "/proc/spool"\nresults = "r"\nstate = "s"\n')
    found = {r.what: r.ok for r in checks._folders(config.load(path))}
    assert found == {"storage.spool": False, "storage.results": True, "storage.state": True, "rights": True}
    assert [p.name for p in tmp_path.iterdir()] == ["ae_config.toml"]
