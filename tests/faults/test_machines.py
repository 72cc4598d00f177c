"""More than one machine on one PostgreSQL: hosts as network namespaces, one cut off, one killed; a rolling upgrade."""

import gc
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dicomnode.service.clock import Housekeeping, _guarded
from dicomnode.workflows.worker import LOST_LEASE_STATUS
from tests.conftest import ROOT
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.databases import PostgreSQL
from tests.helpers.waiting import until

_ADDRESS = "10.213.77."


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """A machine: a network of its own with a cable to ours, and a host name of its own."""

    name: str
    number: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def plug_in(self, bridge: str) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", f"{self.name}-out", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", f"{self.name}-out", "master", bridge, "up")
        for command in (f"addr add {_ADDRESS}{self.number}/24 dev eth0", "link set eth0 up", "link set lo up"):
            ip("-n", self.name, *command.split())

    def cable(self, state: str) -> None:
        """`up` or `down`."""
        ip("link", "set", f"{self.name}-out", state)

    def work(self, configuration: Path, log: Path) -> subprocess.Popen[bytes]:
        """`dicomnode work` on this host."""
        run = f"hostname {self.name} && exec {sys.executable} -m dicomnode work --config {configuration}"
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", run],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.processes.append(process)
        return process

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        ip("netns", "del", self.name)


@pytest.fixture
def hosts(peer: Callable[[str, str], str]) -> Iterator[list[Host]]:
    """Two hosts on a bridge whose end here is .1; what they share is a PostgreSQL server."""
    peer("initdb", "postgresql")
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"dn{os.getpid() % 10000}"
    bridge = f"{tag}br"
    made = [Host(f"{tag}a", 2), Host(f"{tag}b", 3)]
    try:
        ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError:
        pytest.skip("no network namespaces in this container: give it CAP_NET_ADMIN")
    try:
        ip("addr", "add", f"{_ADDRESS}1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in made:
            host.plug_in(bridge)
        yield made
    finally:
        for host in made:
            with suppress(subprocess.CalledProcessError):
                host.remove()
        ip("link", "del", bridge)
        gc.collect()  # a connection that nobody has closed is this test's fault


class SlowPacs(Pacs):
    """Stores, and then keeps its answer back while `hold` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.host = f"{_ADDRESS}1"
        self.hold = threading.Event()
        self.held_back = threading.Event()
        store = self.answers

        def answer(event: Any) -> int:
            status = store(event)
            if self.hold.is_set():
                self.held_back.set()
                until("let go", lambda: not self.hold.is_set(), 60)
            return status

        self.answers = answer


# The PACS is stock pynetdicom, which drops an accepted socket unclosed where its peer's cable was pulled.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket")
@pytest.mark.slow
def test_two_hosts_one_is_cut_off_and_comes_back_one_is_killed(hosts: list[Host], data: Path, tmp_path: Path) -> None:
    """Study a: its worker's cable is pulled in mid-delivery. Study b: its worker is killed in mid-delivery."""
    database = PostgreSQL(tmp_path / "postgresql", f"{_ADDRESS}1", 54321).start()
    pacs = SlowPacs(tmp_path / "pacs")
    pacs.start()
    table = pacs.destination().replace("127.0.0.1", f"{_ADDRESS}1")
    url = f"postgresql://node@{_ADDRESS}1:54321/postgres"
    station = Station(tmp_path / "node", table, more="[worker]\ndead_after_s = 8", database_url=url)
    first, second = hosts
    stop = threading.Event()
    with running(database, pacs, station):
        recovering = threading.Thread(target=_recover, args=(station.clock, stop), daemon=True)
        recovering.start()
        try:
            cut_off = first.work(station.path, tmp_path / "first.log")
            _alive(station, 1)
            a = _arrive(station, data, tmp_path, "a", pacs)
            first.cable("down")
            living = second.work(station.path, tmp_path / "second.log")
            until("declared dead", lambda: {w.state for w in station.catalog.workers()} >= {"gone", "alive"}, 60)
            pacs.hold.clear()
            station.ended(a, 1, "delivered")
            first.cable("up")
            assert cut_off.wait(60) == LOST_LEASE_STATUS  # it finds its lease gone, and writes and sends nothing
            _alive(station, 1)

            pacs.held_back.clear()
            b = _arrive(station, data, tmp_path, "b", pacs)
            living.kill()
            first.work(station.path, tmp_path / "first.log")
            pacs.hold.clear()
            station.ended(b, 1, "delivered")
        finally:
            pacs.hold.clear()
            stop.set()
            recovering.join()
        for uid in (a, b):
            assert Counter(d.Modality for d in pacs.held(uid)) == {"SEG": 1, "SR": 1, "OT": 1}
            assert {d.state for d in station.catalog.deliveries(uid, 1)} == {"delivered"}
        # Only what was under way when the worker was lost came twice, as the same object.
        assert sorted(Counter(pacs.came).values()) == [1, 1, 1, 1, 2, 2]


def _recover(clock: Housekeeping, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        # As the clock itself does it: a tick that fails (the first worker is still making the queue's tables) is
        # followed by the next.
        _guarded(clock.recover)()
        _guarded(clock.reconcile)()


def _alive(station: Station, count: int) -> None:
    until(f"{count} workers", lambda: len(station.catalog.workers("alive")) == count, 90)


def _arrive(station: Station, data: Path, tmp_path: Path, name: str, pacs: SlowPacs) -> str:
    """A study arrives, is analysed, and its first object has been stored by a PACS that does not answer."""
    pacs.hold.set()
    station.send(make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / name, name, every=4))
    station.settle(study_uid(name))
    assert pacs.held_back.wait(90)
    return study_uid(name)
