"""Fixtures of the acceptance tests: one Orthanc for all, and a node for each module that leaves it whole."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.validators import PIXELMED, PixelMed
from tests.conftest import absent
from tests.helpers import browser
from tests.helpers.prerequisites import MissingError
from tests.helpers.running import Node, Orthanc, storescu_process

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]) -> Iterator[Orthanc]:
    running = Orthanc(tmp_path_factory.mktemp("orthanc"), peer("Orthanc", "orthanc"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[Node]:
    """A node that delivers to Orthanc, shared by those of a module that leave it whole; it costs while it is idle."""
    running = Node(tmp_path_factory.mktemp("node"), orthanc.destination()).start()
    yield running
    assert running.stop() == 0, running.log()[-4000:]


@pytest.fixture(scope="module")
def chromium(peer: Callable[[str, str], str]) -> "Iterator[Browser]":
    """Chromium, for the pages that a module's tests open."""
    try:
        with browser.chromium(peer("chromium", "chromium")) as started:
            yield started
    except MissingError as error:
        absent(str(error))


@pytest.fixture
def storescu(peer: Callable[[str, str], str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """DCMTK's storescu: `storescu(node, folder)` sends everything below the folder."""
    program = peer("storescu", "dcmtk")

    def send(node: Node, folder: Path) -> subprocess.CompletedProcess[str]:
        return storescu_process(program, node.port, folder)

    return send


@pytest.fixture(scope="session")
def pixelmed(peer: Callable[[str, str], str]) -> Iterator[PixelMed]:
    java = peer("java", "pixelmed-apps")
    if not PIXELMED.is_file():
        peer("the PixelMed library (pixelmed.jar)", "pixelmed-apps")
    running = PixelMed(java)
    yield running
    running.close()
