"""SIGKILL at the worst moments: after a restart the results arrive, once."""

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from dicomnode.demo.pacs import StoragePeer
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.running import Node, storescu_command
from tests.helpers.waiting import until


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A PACS that keeps what it gets: its folder, and the node's [[destination]] table for it."""
    folder = tmp_path / "pacs"
    folder.mkdir()
    peer = StoragePeer("PACS", "127.0.0.1", 0, folder)
    port = peer.start()
    yield (
        folder,
        f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\nretry_first_s = 1\n',
    )
    peer.stop()


@pytest.fixture
def study(data: Path) -> tuple[Path, str, int]:
    """The LIDC study: folder, UID, number of images."""
    folder = data / "chest_lidc0314_every4th"
    files = list(folder.glob("*.dcm"))
    return folder, str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID), len(files)


def storescu(peer: Callable[[str, str], str], node: Node, folder: Path) -> subprocess.Popen[bytes]:
    command = storescu_command(peer("storescu", "dcmtk"), node.port, folder)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def received(node: Node, study_uid: str) -> int:
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        return len(catalog.instances(study_uid))
    finally:
        catalog.close()


def once(folder: Path) -> None:
    """One SEG, two SR, one summary, by what the PACS holds."""
    held = [pydicom.dcmread(p, stop_before_pixels=True) for p in folder.glob("*.dcm")]
    assert Counter(o.Modality for o in held) == {"SEG": 1, "SR": 2, "OT": 1}


def test_worker_killed_in_mid_analysis(
    pacs: tuple[Path, str], study: tuple[Path, str, int], tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    folder, study_uid, _ = study
    node = Node(tmp_path / "node", pacs[1], "radiomics = false").start()
    try:
        assert storescu(peer, node, folder).wait(240) == 0
        worker = node.child("work")
        until("analysing", lambda: node.jobs().get(study_uid) == "running", 60)
        os.kill(worker.pid, signal.SIGKILL)
        assert node.ended(study_uid) == "delivered"
        assert node.child("work").pid != worker.pid
        once(pacs[0])
    finally:
        node.stop()


def test_receiver_killed_in_mid_association(
    pacs: tuple[Path, str], study: tuple[Path, str, int], tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    folder, study_uid, images = study
    node = Node(tmp_path / "node", pacs[1], "radiomics = false").start()
    try:
        receiver = node.child("receive")
        sending = storescu(peer, node, folder)
        until("some images", lambda: received(node, study_uid) >= 5, 60)
        os.kill(receiver.pid, signal.SIGKILL)
        assert sending.wait(240) != 0, "the association was not cut: the kill came too late"
        kept = received(node, study_uid)
        assert 5 <= kept < images
        until("a new receiver", lambda: node.child("receive").pid != receiver.pid, 30)
        node.wait_for_port()
        assert storescu(peer, node, folder).wait(240) == 0
        assert received(node, study_uid) == images
        until("the whole study", lambda: node.show(study_uid)["state"] == "delivered", 120)
        once(pacs[0])
        assert list((node.config.storage.spool / "incoming").iterdir()) == []
    finally:
        node.stop()


def test_node_killed_whole_and_started_again(
    pacs: tuple[Path, str], study: tuple[Path, str, int], tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    folder, study_uid, _ = study
    node = Node(tmp_path / "node", pacs[1], "radiomics = false").start()
    assert storescu(peer, node, folder).wait(240) == 0
    until("analysing", lambda: node.jobs().get(study_uid) == "running", 60)
    children = [node.child("receive"), node.child("work")]
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    until("the children to notice", lambda: not any(c.is_running() and c.status() != "zombie" for c in children), 60)
    node.start()
    try:
        assert node.ended(study_uid) == "delivered"
        once(pacs[0])
    finally:
        node.stop()
        shutil.rmtree(node.folder / "var", ignore_errors=True)
