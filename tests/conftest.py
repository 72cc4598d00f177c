"""What every part of the suite shares: the public test data, the real peers, the marks."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes on the same cores: one thread each, in all that they start too. Before numpy and torch load.
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import pytest
from hypothesis import settings
from pynetdicom.transport import AssociationSocket

# An example that takes long says something about the machine, not about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parents[1]
#: The mark of all tests in a folder below tests/.
FOLDER_MARKS = {
    "unit": "unit",
    "unit/training": "training",
    "acceptance": "peers",
    "faults": "kills",
    "parity": "parity",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder; refuse tests that may be tried again and do not say why."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parent.as_posix()
        for name, mark in FOLDER_MARKS.items():
            if folder == name or folder.startswith(f"{name}/"):
                item.add_marker(mark)
    if faults := flaky_without_reason(items):
        raise pytest.UsageError("\n".join(faults))


def flaky_without_reason(items: Sequence[pytest.Item]) -> list[str]:
    """A test may be tried again only where it says why: what is wrong with each test that may and does not."""
    return [
        f'{item.nodeid}: write @pytest.mark.flaky(reruns=1, reason="what it depends on, why that cannot be waited for")'
        for item in items
        for mark in item.iter_markers("flaky")
        if mark.args or mark.kwargs.get("reruns") != 1 or len(str(mark.kwargs.get("reason", ""))) < 20
    ]


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
