"""The systemd unit: how exposed it is by systemd's own measure, also with the drop-ins; what its filter stops."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.confined import Unit

UNIT = ROOT / "deploy" / "dicomnode.service"
DROP_INS = sorted((ROOT / "deploy" / "drop-ins").glob("*.conf"))
#: Of 10; the stock unit has 9.6.
MOST_EXPOSED = 2.0


@pytest.fixture
def systemd_analyze(peer: Callable[[str, str], str]) -> str:
    return peer("systemd-analyze", "systemd")


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: "alone" if path is None else path.stem)
def test_systemd_finds_little_that_is_exposed(systemd_analyze: str, drop_in: Path | None, tmp_path: Path) -> None:
    unit = Path(shutil.copy(UNIT, tmp_path))
    if drop_in is not None:
        folder = tmp_path / "dicomnode.service.d"
        folder.mkdir()
        shutil.copy(drop_in, folder)
    command = [systemd_analyze, "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (score,) = re.findall(r"Overall exposure level for dicomnode\.service: ([\d.]+)", done.stdout)
    assert float(score) <= MOST_EXPOSED, done.stdout


def test_every_key_of_the_unit_is_known_to_systemd(systemd_analyze: str, tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    unit = tmp_path / "dicomnode.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", text), encoding="utf-8")
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_below_1024_needs_the_drop_in_and_nothing_else_has_a_capability() -> None:
    assert Unit.read(UNIT)["AmbientCapabilities"] == [""]
    text = (ROOT / "deploy" / "drop-ins" / "privileged-port.conf").read_text(encoding="utf-8")
    capabilities = re.findall(r"(?m)^(\w+Capabilities|CapabilityBoundingSet)=(.*)$", text)
    assert dict(capabilities) == dict.fromkeys(("CapabilityBoundingSet", "AmbientCapabilities"), "CAP_NET_BIND_SERVICE")


def test_the_filter_stops_what_no_node_needs(systemd_analyze: str) -> None:
    """As root, without systemd: what the tests of the demo run under is no empty filter."""
    tries = """
import os, socket
for what in (lambda: os.chown("/", 0, 0), lambda: os.setuid(1), lambda: os.sched_setaffinity(0, {0}),
             lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)):
    try:
        what()
        print("allowed")
    except PermissionError:
        print("stopped")
socket.socket().close()
print(oct(os.umask(0)))
"""
    command = [sys.executable, "-m", "tests.helpers.confined", str(UNIT), sys.executable, "-c", tries]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["stopped"] * 4 + ["0o77"]
