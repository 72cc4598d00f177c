"""A restart under load: for how long nobody listens, what start and stop cost, and that nothing is lost.

    python -m tests.benchmarks.restart [--restarts 3] [--senders 2]

Senders call DCMTK's storescu in a loop, each time with a new study, and again with the same one where it fails, as a
modality does. Meanwhile `dicomnode serve` is stopped and started again.
"""

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from statistics import median

import pydicom

from dicomnode.store.catalog.catalog import Catalog
from tests.faults.studies import make_study
from tests.helpers.prerequisites import check_or_exit, data_folder, program
from tests.helpers.running import Node, storescu_process
from tests.helpers.waiting import until

_SOURCE = "chest_tiny_cip/ct-64Dicom"
_EVERY = 10
_LOOK_S = 0.005


@dataclass(frozen=True)
class Restart:
    """What one restart took, seconds."""

    #: From SIGTERM to the end of `serve`, and from its start until the port is open.
    stop_s: float
    start_s: float
    #: The longest time in which no connection was accepted.
    silence_s: float
    #: CPU time of all processes of the run that ended.
    cpu_s: float


class Knocking:
    """Connects to the port all the time, and knows when it was closed."""

    def __init__(self, port: int) -> None:
        self._port, self._stop = port, threading.Event()
        self.longest_s, self._last = 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            with socket.socket() as probe:
                probe.settimeout(5)
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    now = time.monotonic()
                    self.longest_s, self._last = max(self.longest_s, now - self._last), now

    def close(self) -> float:
        """The longest silence, seconds."""
        self._stop.set()
        self._thread.join()
        return self.longest_s


class Senders:
    """Threads that send study after study; `uids` are the images that the node has confirmed."""

    def __init__(self, number: int, node: Node, folder: Path) -> None:
        self._node, self._folder = node, folder
        self._stop, self._numbers, self._lock = threading.Event(), count(), threading.Lock()
        self.uids: set[str] = set()
        self.failed = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        storescu, source = program("storescu", "dcmtk"), data_folder() / _SOURCE
        while not self._stop.is_set():
            with self._lock:
                name = f"restart-{next(self._numbers)}"
            files = make_study(source, self._folder / name, name, _EVERY)
            while storescu_process(storescu, self._node.port, self._folder / name).returncode != 0:
                with self._lock:
                    self.failed += 1
                if self._stop.wait(0.2):
                    return
            with self._lock:
                self.uids |= {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in files}

    def close(self) -> None:
        """Let each come to the end of its study."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def ended(node: Node, begun: float) -> tuple[float, float]:
    """Wait for the end of a node that was told to stop: the seconds, and the CPU seconds of all its processes."""
    assert node.process is not None
    _, status, used = os.wait4(node.process.pid, 0)
    node.process.returncode = os.waitstatus_to_exitcode(status)
    assert node.process.returncode == 0, node.log()[-3000:]
    return time.monotonic() - begun, used.ru_utime + used.ru_stime


def restart(node: Node) -> Restart:
    """Stop and start a node, whose worker is there each time."""
    assert node.process is not None
    knocking, begun = Knocking(node.port), time.monotonic()
    node.process.terminate()
    stop_s, cpu_s = ended(node, begun)
    logged, begun = len(node.log()), time.monotonic()
    node.start()
    start_s = time.monotonic() - begun
    until("the worker is there", lambda: "worker 0 ready" in node.log()[logged:])
    return Restart(stop_s, start_s, knocking.close(), cpu_s)


def main() -> None:
    """Measure, and say it; status 1: an image is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--senders", type=int, default=2)
    options = parser.parse_args()
    check_or_exit([_SOURCE], [("storescu", "dcmtk")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        node = Node(folder / "node", "", extra="[worker]\ndrain_s = 5\n").start()
        until("the worker is there", lambda: "worker 0 ready" in node.log())
        senders = Senders(options.senders, node, folder / "studies")
        made = []
        for _ in range(options.restarts):
            made.append(restart(node))
            print(made[-1], flush=True)
        senders.close()
        assert node.stop() == 0
        catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
        there = {instance.sop_instance_uid for instance in catalog.instances_after("", 1_000_000)}
        catalog.close()
    lost = senders.uids - there
    for field in fields(Restart):
        values = [getattr(one, field.name) for one in made]
        print(f"{field.name}: median {median(values):.2f}, worst {max(values):.2f}")
    print(f"{len(senders.uids)} images confirmed, {len(lost)} lost; {senders.failed} times a sender had to try again")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
