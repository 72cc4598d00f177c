"""Receiving processes as `serve` starts them, in a folder of their own, for tests over the real network."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from dicomnode import config
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from tests.helpers import processes
from tests.helpers.ports import free_port
from tests.helpers.running import ROOT
from tests.helpers.waiting import until

#: Of a process that serves nobody: the main one, the one that accepts, the refusals, and now and then that of the log.
IDLE_THREADS = 4


class Receiving:
    """`dicomnode receive`, as many processes as `receivers` says, on one port."""

    def __init__(self, folder: Path, *, node: str = "", storage: str = "", receivers: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        path = folder / "ae_config.toml"
        path.write_text(
            f'[node]\nae_title = "NODE"\nport = {self.port}\nreceivers = {receivers}\n{node}\n'
            f"[storage]\n{storage or 'minimum_free_gb = 0.01'}\n",
            encoding="utf-8",
        )
        self.config = config.load(path)
        self._command = [sys.executable, "-m", "dicomnode", "receive", "--config", str(path)]
        self.processes: list[subprocess.Popen[bytes]] = []
        for _ in range(receivers):
            self.start()

    def start(self) -> None:
        """One process more."""
        with (self.folder / "receiver.log").open("ab") as log:
            process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads are as many as the machine has cores
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

        def listens() -> bool:
            assert process.poll() is None, self.log()
            return processes.listens(process.pid, self.config.node.tls_port or self.port)

        until("listening", listens, 120)

    def kill(self) -> None:
        """SIGKILL to all."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM to all."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        for process in self.processes:
            process.send_signal(how)
        for process in self.processes:
            process.wait(240)
        self.processes.clear()

    def log(self) -> str:
        return (self.folder / "receiver.log").read_text("utf-8", "replace")

    def catalog(self) -> Catalog:
        return Catalog.open(self.config.catalog_url, self.config.storage.state)

    def instances(self) -> list[Instance]:
        """All instances that are recorded."""
        catalog = self.catalog()
        try:
            return [one for study in catalog.studies(1000) for one in catalog.instances(study.study_uid)]
        finally:
            catalog.close()

    def memory(self) -> int:
        """Resident bytes of all processes."""
        return sum(psutil.Process(p.pid).memory_info().rss for p in self.processes)

    def processor_s(self) -> float:
        """Seconds of a core that all processes have taken so far."""
        times = [psutil.Process(p.pid).cpu_times() for p in self.processes]
        return float(sum(one.user + one.system for one in times))

    def threads(self) -> int:
        return sum(psutil.Process(p.pid).num_threads() for p in self.processes)

    def descriptors(self) -> int:
        return sum(psutil.Process(p.pid).num_fds() for p in self.processes)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def echo_s(self, echoscu: str) -> float:
        """Seconds that an echo takes from the start of DCMTK's echoscu to its end."""
        start = time.monotonic()
        subprocess.run([echoscu, "-aec", "NODE", "127.0.0.1", str(self.port)], check=True, timeout=240)
        return time.monotonic() - start
