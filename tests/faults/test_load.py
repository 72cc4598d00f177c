"""Many peers and bad peers at once: the node answers, and takes no more memory than before.

`DICOMNODE_LOAD=10000` (`make load`) sets how many associations the campaign makes; a few hundred run with the tests.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from dicomnode.network import transport
from dicomnode.reception.receiver import Receiver, ReceiverSettings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.helpers.ports import free_port
from tests.helpers.processes import listens
from tests.helpers.receiving import IDLE_THREADS, Receiving
from tests.helpers.running import ROOT
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until

pytestmark = pytest.mark.alone
Peer = Callable[[str, str], str]
ASSOCIATIONS = int(os.environ.get("DICOMNODE_LOAD", "300"))
#: The beginning of an A-ASSOCIATE-RQ of 200 bytes.
_HALF_REQUEST = b"\x01\x00\x00\x00\x00\xc8\x00\x01\x00\x00" + b"NODE".ljust(16) + b"SCANNER".ljust(16)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiving]:
    made = Receiving(tmp_path / "node", node="network_timeout_s = 20")
    yield made
    made.kill()


def open_all(stack: ExitStack, node: Receiving, count: int, first: bytes = b"") -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(stack.enter_context(node.connect()))
        if first:
            made[-1].sendall(first)
    return made


def test_echo_is_answered_within_a_second_among_bad_peers(node: Receiving, peer: Peer) -> None:
    """1,000 idle connections, half-open ones, a byte at a time, aborts in mid-PDU, port probes."""
    echoscu = peer("echoscu", "dcmtk")
    node.echo_s(echoscu)
    over = threading.Event()

    def drip(connections: list[socket.socket]) -> None:
        for byte in _HALF_REQUEST[1:] + bytes(1000):
            if over.wait(0.2):
                return
            for connection in connections:
                connection.sendall(bytes((byte,)))

    def disturb() -> None:
        while not over.wait(0.005):
            node.connect().close()
            with node.connect() as connection:
                connection.sendall(_HALF_REQUEST)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes with a reset

    with ExitStack() as stack:
        open_all(stack, node, 1000)
        open_all(stack, node, 100, _HALF_REQUEST)
        other = ("127.0.0.2", 0)
        slow = [socket.create_connection(("127.0.0.1", node.port), 60, source_address=other) for _ in range(20)]
        for connection in slow:
            stack.enter_context(connection).sendall(b"\x01")
        threads = [threading.Thread(target=drip, args=(slow,)), threading.Thread(target=disturb)]
        for thread in threads:
            thread.start()
        try:
            # One address keeps 100 connections waiting, however many it opens (`Lobby`).
            until("as many threads as may be", lambda: 100 < node.threads() < 200, 30)
            rounds = [sorted(node.echo_s(echoscu) for _ in range(10)) for _ in range(3)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
        times = min(rounds, key=lambda one: one[5])  # the machine may have other things to do, but not all the time
        print(f"echo: median {times[5]:.3f} s, longest {times[-1]:.3f} s; {node.memory() / 1e6:.0f} MB")
        assert times[5] < 1.0
        with associated(node) as association:
            assert association.send_c_store(ct()).Status == 0x0000
    until("the threads gone", lambda: node.threads() < 20, 60)


def test_a_request_that_drips_is_cut_off(tmp_path: Path) -> None:
    """A byte now and then keeps no silence, and still does not hold a thread for ever."""
    settings = ReceiverSettings("NODE", "127.0.0.1", 0, minimum_free_bytes=0, acse_timeout_s=0.5)
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    receiver = Receiver(settings, Spool(tmp_path / "spool"), catalog)
    with socket.create_connection(("127.0.0.1", receiver.start())) as connection:
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in _HALF_REQUEST * 100:
                connection.sendall(bytes((byte,)))
                time.sleep(0.05)
        assert time.monotonic() - start < 60.0  # all of it would take 200 s
    receiver.stop(0.0)
    catalog.close()


def test_connections_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_CONNECTIONS", 5)
    settings = ReceiverSettings("NODE", "127.0.0.1", 0, minimum_free_bytes=0)
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    receiver = Receiver(settings, Spool(tmp_path / "spool"), catalog)
    port = receiver.start()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sixth:
            assert sixth.recv(1) == b""
    receiver.stop(0.0)
    catalog.close()


@pytest.mark.timeout(1800)
def test_memory_is_flat_over_many_associations(node: Receiving) -> None:
    """Echoes, stores and aborts in turn."""
    done = 0

    def one(number: int) -> None:
        with associated(node) as association:
            assert association.is_established
            assert association.send_c_echo().Status == 0x0000
            if number % 5 == 0:
                assert association.send_c_store(ct(number)).Status == 0x0000
            if number % 7 == 0:
                association.abort()

    def many(count: int) -> None:
        nonlocal done
        threads = [
            threading.Thread(target=lambda i=i: [one(done + k) for k in range(i, count, 4)])  # type: ignore[misc]
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done += count

    many(max(ASSOCIATIONS // 4, 100))
    until("the threads gone", lambda: node.threads() <= IDLE_THREADS, 10)
    before, descriptors = node.memory(), node.descriptors()
    start = time.monotonic()
    many(ASSOCIATIONS)
    seconds = time.monotonic() - start
    until("the threads gone", lambda: node.threads() <= IDLE_THREADS, 10)
    growth = node.memory() - before
    print(f"{ASSOCIATIONS} associations in {seconds:.0f} s: {before / 1e6:.1f} MB, {growth / 1e6:+.2f} MB")
    assert growth < 4_000_000
    assert node.descriptors() <= descriptors + 2


def test_serve_starts_as_many_receivers_as_configured_and_one_that_dies_again(tmp_path: Path) -> None:
    path, port = tmp_path / "ae_config.toml", free_port()
    path.write_text(
        f"[node]\nport = {port}\nreceivers = 2\n[worker]\nprocesses = 0\n[storage]\nminimum_free_gb = 0.01\n"
    )
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "dicomnode", "serve", "--config", str(path)]
        serve = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def listening() -> set[int]:
            return {child.pid for child in psutil.Process(serve.pid).children() if listens(child.pid, port)}

        until("two receivers listening", lambda: len(listening()) == 2, 30)
        dead = min(listening())
        os.kill(dead, signal.SIGKILL)
        until("two receivers listening", lambda: len(listening() - {dead}) == 2, 30)
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(240) == 0
    finally:
        serve.kill()
        serve.wait()


def test_several_processes_share_the_port_and_the_catalogue(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", receivers=2)
    try:

        def send(start: int) -> None:
            with associated(node) as association:
                for number in range(start, start + 10):
                    assert association.send_c_store(ct(number)).Status == 0x0000

        threads = [threading.Thread(target=send, args=(1 + 10 * i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        instances = node.instances()
        assert len(instances) == 160
        assert all(Path(one.path).is_file() for one in instances)
        until("16 associations", lambda: node.log().count("association with SCANNER") == 16, 10)
    finally:
        node.kill()
