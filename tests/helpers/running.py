"""A started node and a real PACS, as their users have them: processes, ports, the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil

from dicomnode import config
from dicomnode.operations import jobs
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Study
from tests.helpers.ports import free_port
from tests.helpers.processes import children
from tests.helpers.waiting import until
from tests.helpers.web import http_client

ROOT = Path(__file__).resolve().parents[2]
ENDED = ("delivered", "refused", "failed", "held", "cancelled")


def dicomnode(
    *arguments: str | Path, timeout: float = 300, under: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line; `under`: a systemd unit, whose system-call filter then holds for it."""
    confined = [] if under is None else [sys.executable, "-m", "tests.helpers.confined", str(under)]
    command = [
        *confined,
        sys.executable,
        "-W",
        "error::DeprecationWarning:dicomnode",
        "-m",
        "dicomnode",
        *map(str, arguments),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def storescu_command(program: str, port: int, folder: Path) -> list[str]:
    """DCMTK's storescu with every DICOM file below a folder; -R proposes what the files need and no more."""
    options = ["-R", "+sd", "+r", "+sp", "*.dcm", "-aec", "DICOMNODE"]
    return [program, *options, "127.0.0.1", str(port), str(folder)]


def storescu_process(program: str, port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end. DCMTK leaves Nagle's algorithm on, which makes it wait after each image."""
    return subprocess.run(
        storescu_command(program, port, folder),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )


def studies_of(settings: config.Config) -> list[Study]:
    """What a node has, as `jobs list` says, which takes seconds to start."""
    with closing(Catalog.open(settings.catalog_url, settings.storage.state)) as catalog:
        return catalog.studies(limit=1000)


class Node:
    """`dicomnode serve`, in a folder of its own. `started`: those that run, or whose end went wrong.

    Without a `bundle` it states no risk, and its worker need not import torch, which takes seconds.
    """

    started: ClassVar[list["Node"]] = []

    def __init__(
        self, folder: Path, destinations: str, extra: str = "", listening: str = "", bundle: str = "demo-synthetic"
    ) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.config_path = folder / "ae_config.toml"
        self.config_path.write_text(
            f"""
[node]
port = {self.port}
{listening}
[settle]
release_s = 0.5
quiet_s = 4
tick_s = 0.25
[storage]
minimum_free_gb = 0.1
[analysis]
weights = {json.dumps(str(ROOT / "weights"))}
bundle = {json.dumps(bundle)}
allow_demo_bundles = true
{extra}
{destinations}
""",
            encoding="utf-8",
        )
        self.config = config.load(self.config_path)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Node":
        with (self.folder / "node.log").open("ab") as log:
            already = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dicomnode", "serve", "--config", str(self.config_path)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            )
        if self not in Node.started:
            Node.started.append(self)
        try:
            self.wait_for_port()
            # The port is open before anybody answers there; who has asked for it in vain has said so and ended.
            until("a receiver that listens", lambda: self._listens(already), 120)
        except BaseException:
            self.process.terminate()  # left behind, it would slow every test after this one
            raise
        return self

    def _listens(self, already: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return b"listening as" in (self.folder / "node.log").read_bytes()[already:]

    def wait_for_port(self) -> None:
        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            with socket.socket() as s:
                s.settimeout(1)
                return s.connect_ex(("127.0.0.1", self.port)) == 0

        until("listening", answers, 120)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(240)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # writes into its log where each thread is
            self.process.wait(10)
            raise
        if status == 0 and self in Node.started:
            Node.started.remove(self)
        return status

    def log(self) -> str:
        return (self.folder / "node.log").read_text("utf-8", "replace")

    def child(self, command: str) -> psutil.Process:
        """The receiver ("receive") or a worker ("work") of this node."""
        assert self.process is not None
        pid = self.process.pid
        return until(f"a child that runs {command!r}", lambda: next(iter(children(command, pid)), None), 30)

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return dicomnode(*arguments, "--config", self.config_path)

    def jobs(self) -> dict[str, str]:
        """State by study UID, of the newest generation."""
        return {s.study_uid: s.state for s in studies_of(self.config)}

    def ended(self, study_uid: str, seconds: float = 180) -> str:
        """Wait until a study's job has ended; its state."""

        with closing(Catalog.open(self.config.catalog_url, self.config.storage.state)) as catalog:  # once: it costs

            def look() -> str | None:
                states = {s.study_uid: s.state for s in catalog.studies(limit=1000)}
                return state if (state := states.get(study_uid)) in ENDED else None

            try:
                return until(f"ended: {study_uid}", look, seconds)
            except BaseException:
                print(self.log()[-6000:])
                raise

    def show(self, study_uid: str) -> dict[str, Any]:
        """As `jobs show --json`, which takes two seconds to start."""
        shown: dict[str, Any] = json.loads(json.dumps(jobs.details(self.config, study_uid, None)))
        return shown


class Orthanc:
    """A running Orthanc: the DICOM side by AE title and port, the REST side by `get`."""

    def __init__(self, folder: Path, program: str, more: dict[str, Any] | None = None) -> None:
        self.folder, self.ae_title = folder, "ORTHANC"
        self.port, self.http = free_port(), free_port()
        settings = json.loads((ROOT / "deploy" / "orthanc.json").read_text())
        settings |= {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http,
            "DicomPort": self.port,
            **(more or {}),
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        self.client = http_client(f"http://127.0.0.1:{self.http}")
        until("Orthanc answering", self._answers, 120)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "orthanc.log").read_text()
        try:
            return self.client.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def destination(self, more: str = "") -> str:
        """A [[destination]] table for the node's configuration."""
        return (
            f'[[destination]]\nname = "pacs"\nae_title = "{self.ae_title}"\nhost = "127.0.0.1"\nport = {self.port}\n'
            f"retry_first_s = 1\n{more}"
        )

    def study(self, study_uid: str) -> list[bytes]:
        """All DICOM files that it holds of a study, as bytes."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        ids = self.client.post("/tools/find", json=query).raise_for_status().json()
        return [self.client.get(f"/instances/{i}/file").raise_for_status().content for i in ids]

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(240)
