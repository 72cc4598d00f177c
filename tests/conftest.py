"""Fixtures that every part of the suite shares: the public test data and the real peers."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from pynetdicom.transport import AssociationSocket

# An example that takes long says something about the machine, not about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parents[1]


def absent(what: str) -> None:
    """A missing peer or missing data: a skip that names the cure, a failure where CI promised to have it."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


def _shut_down_and_close(self: AssociationSocket) -> None:
    sock = self.socket
    _shut_down(self)
    if sock is not None:
        sock.close()


# pynetdicom leaves a socket whose other end has gone to the garbage collector, which warns: an error here.
_shut_down = AssociationSocket._shutdown_socket
AssociationSocket._shutdown_socket = _shut_down_and_close  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test data (`DICOMNODE_TEST_DATA`, else ../shared/data beside the repository)."""
    folder = Path(os.environ.get("DICOMNODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        absent(f"no test data at {folder}: set DICOMNODE_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def peer() -> Callable[[str, str], str]:
    """`peer("storescu", "dcmtk")`: the path of a real peer's program, from the named Debian package."""

    def find(program: str, package: str) -> str:
        # The virtual environment has a storescu and a storescp of its own (pynetdicom's): they are no other people's.
        # dcmqi is the one peer that comes from a Python package.
        own = Path(sys.executable).parent
        system = [f for f in os.environ.get("PATH", "").split(":") if Path(f) != own] + ["/usr/sbin", "/usr/local/sbin"]
        path = shutil.which(program, path=str(own) if package == "dcmqi" else ":".join(system))
        if path is None:
            absent(f"{program} is not installed: {'pip' if package == 'dcmqi' else 'apt-get'} install {package}")
        assert path is not None
        return path

    return find
