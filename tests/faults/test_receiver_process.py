"""A receiving process among others: who may share its port, and how long it takes to end."""

import signal
import subprocess
import time
from pathlib import Path

from tests.helpers.receiving import Receiving
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until


def test_a_second_node_is_refused_a_shared_port(tmp_path: Path) -> None:
    """The kernel would let it join (SO_REUSEPORT), and each node would get a part of the images."""
    node = Receiving(tmp_path / "node", receivers=2)
    second = tmp_path / "second"
    second.mkdir()
    text = (tmp_path / "node" / "ae_config.toml").read_text("utf-8")
    (second / "ae_config.toml").write_text(text, encoding="utf-8")
    command = [*node._command[:-1], str(second / "ae_config.toml")]
    try:
        refused = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert refused.returncode != 0
        assert f"cannot listen on 127.0.0.1:{node.port}" in refused.stderr
        assert "not by this node" in refused.stderr
        node.processes[0].kill()
        node.processes.pop(0).wait(240)
        node.start()  # one of its own may come back
        with associated(node) as association:
            assert association.send_c_store(ct(1)).Status == 0x0000
    finally:
        node.kill()


def test_an_association_that_stays_open_delays_the_end_by_no_more_than_drain_s(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", storage="minimum_free_gb = 0.01\n[worker]\ndrain_s = 1")
    try:
        with associated(node) as association:
            assert association.send_c_store(ct(1)).Status == 0x0000
            (process,) = node.processes
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(240) == 0
            # A second, and what a busy machine adds; the caller might be silent for 60.
            assert time.monotonic() - began < 30
            until("aborted", lambda: association.is_aborted, 10)
        catalog = node.catalog()
        assert [b.closed for study in catalog.unsettled(time.time()) for b in study.bringers] == ["aborted"]
        catalog.close()
    finally:
        node.kill()
