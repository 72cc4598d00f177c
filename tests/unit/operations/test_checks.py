"""`dicomnode check`: its own port, free or taken by the node that is running; a candidate that would never be asked."""

from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomnode import config
from dicomnode.operations import checks
from tests.acceptance.running import free_port
from tests.conftest import ROOT


def port_of(tmp_path: Path, port: int) -> checks.Result:
    path = tmp_path / "ae_config.toml"
    path.write_text(f'[node]\nport = {port}\n[storage]\nstate = "s"\n')
    return checks._port(config.load(path))


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
