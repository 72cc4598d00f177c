"""`dicomnode check` on its own port: free, or taken by the node that is running."""

from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomnode import checks, config
from tests.acceptance.running import free_port


def port_of(tmp_path: Path, port: int) -> checks.Result:
    path = tmp_path / "ae_config.toml"
    path.write_text(f'[node]\nport = {port}\n[storage]\nstate = "s"\n')
    return checks._port(config.load(path))


def test_a_free_port(tmp_path: Path) -> None:
    assert port_of(tmp_path, free_port()).text.endswith("is free")


@pytest.mark.parametrize(
    ("callers", "says"),
    [([], "answers as DICOMNODE: the node is running"), (["CT1"], "refuses DICOMNODE as a caller")],
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
