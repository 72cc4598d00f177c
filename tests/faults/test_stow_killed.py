"""STOW-RS into a console that is killed at any moment: what was acknowledged is there as it was sent, and once."""

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pydicom
import pytest

from dicomnode import config
from dicomnode.config import Config
from dicomnode.operations import web_tokens
from dicomnode.reception.spooled import digest, split
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.waiting import until

SCAN = "chest_tiny_cip/ct-64Dicom"
KILLS, EVERY = 5, 8
_KIND = 'multipart/related; type="application/dicom"; boundary=b'


class Console:
    """The console's process alone, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.path = folder / "ae_config.toml"
        self.path.write_text(
            f"[storage]\nminimum_free_gb = 0.1\n[console]\nenabled = true\ndicomweb = true\nport = {self.port}\n"
        )
        self.config: Config = config.load(self.path)
        prepare_folders(self.config)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "dicomnode", "console", "serve", "--config", str(self.path)]
        with (self.folder / "console.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until("the console answers", self._answers, 60)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "console.log").read_text()
        try:
            return httpx.get(f"{self.url}/login", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def slowly(paths: list[Path]) -> Iterator[bytes]:
    """The body of a request as a busy network brings it, so that a kill falls into it."""
    for path in paths:
        content = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
        for at in range(0, len(content), 3000):
            yield content[at : at + 3000]
            time.sleep(0.005)
    yield b"--b--\r\n"


def send(console: Console, token: str, paths: list[Path]) -> set[str]:
    """Send once; the SOP Instance UIDs that were acknowledged."""
    headers = {"Content-Type": _KIND, "Authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(f"{console.url}/dicom-web/studies", content=slowly(paths), headers=headers, timeout=30)
    except httpx.TransportError:
        return set()
    assert answer.status_code == 200, answer.text
    return {item["00081155"]["Value"][0] for item in answer.json()["00081199"]["Value"]}


@pytest.mark.slow
def test_what_was_acknowledged_is_safe_and_what_was_not_comes_again(data: Path, tmp_path: Path) -> None:
    console, chance = Console(tmp_path), random.Random(5)
    paths = make_study(data / SCAN, tmp_path / "scan", "stow", EVERY)
    token = web_tokens.add(console.config, "gateway", "reader", "GATEWAY", time.time())
    names = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}
    acknowledged: set[str] = set()
    console.start()
    try:
        for kill in range(KILLS):
            # Of each half of the study, so that some have been acknowledged before a kill and some have not.
            killer = threading.Timer(chance.uniform(0.02, 0.6), console.kill)
            half = paths[: len(paths) // 2] if kill % 2 else paths
            killer.start()
            acknowledged |= send(console, token, half)
            killer.join()
            _judge(console.config, acknowledged, names)
            console.start()
        assert send(console, token, paths) == set(names)
        _judge(console.config, set(names), names)
    finally:
        if console.process is not None:
            console.kill()
    assert not list(console.config.storage.spool.glob("quarantine/*"))
    spooled = list(console.config.storage.spool.glob("studies/*/*/*.dcm"))
    assert len(spooled) == len(names)
    log = (tmp_path / "console.log").read_text()
    assert "Traceback" not in log and token not in log


def _judge(found: Config, acknowledged: set[str], names: dict[str, Path]) -> None:
    with closing(Catalog.open(found.catalog_url, found.storage.state)) as catalog:
        held = {one.sop_instance_uid: one for one in catalog.instances(study_uid("stow"))}
        study = catalog.study(study_uid("stow"))
    assert acknowledged <= set(held)
    assert study is None or study.instances == len(held)
    for uid in acknowledged:
        sent = hashlib.sha256(split(names[uid].read_bytes())[1]).hexdigest()
        assert digest(Path(held[uid].path)) == held[uid].sha256 == sent
