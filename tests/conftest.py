"""What every part of the suite shares: the public test data, the real peers, the marks."""

import importlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes on the same cores: one thread each, in all that they start too. Before numpy and torch load.
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# Or each node that a test starts would compile its sources anew, for most of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import settings
from pynetdicom.transport import AssociationSocket

from dicomnode.store.catalog import migrate
from tests.helpers import prerequisites
from tests.helpers.databases import PostgreSQL, remembering
from tests.helpers.prerequisites import ROOT
from tests.helpers.running import Node

# An example that takes long says something about the machine, not about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the nodes have logged: what happened is seldom seen from outside."""
    report = yield
    if report.failed:
        there = [node for node in Node.started if (node.folder / "node.log").exists()]
        report.sections += [(f"log of the node in {node.folder}", node.log()[-4000:]) for node in there[-3:]]
    return report


def flaky_without_reason(items: Sequence[pytest.Item]) -> list[str]:
    """A test may be tried again only where it says why: what is wrong with each test that may and does not."""
    return [
        f'{item.nodeid}: write @pytest.mark.flaky(reruns=1, reason="what it depends on, why that cannot be waited for")'
        for item in items
        for mark in item.iter_markers("flaky")
        if mark.args or mark.kwargs.get("reruns") != 1 or len(str(mark.kwargs.get("reason", ""))) < 20
    ]


def absent(what: str) -> NoReturn:
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


migrate._upgrade = remembering(migrate._upgrade)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test data."""
    try:
        return prerequisites.data_folder()
    except prerequisites.MissingError as error:
        absent(str(error))


@pytest.fixture(scope="session")
def peer() -> Callable[[str, str], str]:
    """`peer("storescu", "dcmtk")`: the path of a real peer's program, from the named Debian package."""

    def find(program: str, package: str) -> str:
        try:
            return prerequisites.program(program, package)
        except prerequisites.MissingError as error:
            absent(str(error))

    return find


@pytest.fixture(scope="session")
def extra() -> Callable[[str, str], None]:
    """`extra("opentelemetry.sdk", "tracing")`: this module of an extra of dicomnode has to be installed."""

    def need(module: str, name: str) -> None:
        try:
            importlib.import_module(module)
        except ImportError:
            absent(f"{module}, of the extra {name}, is not installed: make unit")

    return need


@pytest.fixture(scope="session")
def postgresql_server(peer: Callable[[str, str], str]) -> Iterator[PostgreSQL]:
    """One server for all tests; `url` gives each its own schema.

    Not below pytest's temporary folder, which another run of pytest closes to PostgreSQL's user when it starts.
    """
    peer("initdb", "postgresql")
    with tempfile.TemporaryDirectory(prefix="dicomnode-pg-") as folder:
        server = PostgreSQL(Path(folder)).start()
        try:
            yield server
        finally:
            server.stop()
