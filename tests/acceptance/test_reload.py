"""A changed configuration is taken up without closing the port; a restart closes it for the time of a start only."""

import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomnode.errors import DicomnodeError, PeerError
from dicomnode.network import association
from dicomnode.store import process_names
from tests.faults.studies import make_study
from tests.helpers.ports import free_port
from tests.helpers.running import Node, storescu_process
from tests.helpers.waiting import PATIENCE, until

CT1 = '[[node.callers]]\nae_title = "CT1"\n[[node.callers]]\nae_title = "STORESCU"\n'
CT2 = '[[node.callers]]\nae_title = "CT2"\n'
WORKER = "[worker]\nprocesses = 0\ndrain_s = 1\n"


def started(node: Node) -> Path:
    """The node's configuration, once the node can be asked to read it anew: its port is open before that."""
    node.start()
    until("serve is there", (node.config.storage.state / process_names.SERVE).exists, 60)
    return node.config_path


def hang_up(node: Node) -> None:
    """What `dicomnode reload` does."""
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)


def takes(node: Node, calling: str, port: int | None = None) -> bool:
    try:
        association.echo(association.Peer("node", "DICOMNODE", "127.0.0.1", port or node.port, calling))
    except DicomnodeError:
        return False
    return True


class Pinging:
    """Calls the node all the time: when it answered, and what went wrong."""

    def __init__(self, node: Node) -> None:
        self._peer = association.Peer("node", "DICOMNODE", "127.0.0.1", node.port, "CT1")
        self.answered: list[float] = []
        self.troubles: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                association.echo(self._peer)
            except PeerError as error:
                self.troubles.append(str(error))
            else:
                self.answered.append(time.monotonic())

    def longest_silence_s(self) -> float:
        return max(b - a for a, b in itertools.pairwise(self.answered))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def pinged(node: Node) -> Iterator[Pinging]:
    pinging = Pinging(node)
    try:
        yield pinging
    finally:
        pinging.close()


def test_a_caller_is_let_in_by_a_reload_while_others_send(
    data: Path, tmp_path: Path, peer: Callable[[str, str], str], record_property: Callable[[str, object], None]
) -> None:
    storescu = peer("storescu", "dcmtk")
    make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a")
    node = Node(tmp_path / "node", "", extra=WORKER, listening=CT1)
    path = started(node)
    try:
        assert takes(node, "CT1") and not takes(node, "CT2")
        whole = path.read_text()
        path.write_text(whole.replace('ae_title = "CT1"', "ae_title = 1"))
        assert node.cli("reload").returncode == 2
        caller = AE("CT1")
        caller.add_requested_context(Verification)
        open_before = caller.associate("127.0.0.1", node.port, ae_title="DICOMNODE")
        old = node.child("receive")
        with pinged(node) as pinging:
            sending = threading.Thread(target=storescu_process, args=(storescu, node.port, tmp_path / "study"))
            sending.start()
            path.write_text(whole.replace(CT1, CT1 + CT2))
            assert node.cli("reload").returncode == 0
            hang_up(node)  # twice at once is once
            until("CT2 is let in", lambda: takes(node, "CT2"), 60)
            sending.join()
            until("the new one alone listens", lambda: "reloaded" in node.log(), 10)
            # What is queued at the old listener in the moment of its end is reset; nobody is refused.
            assert not [t for t in pinging.troubles if "refused" in t.lower()]
            assert len(pinging.troubles) <= 2, pinging.troubles
        assert takes(node, "CT1")
        end = time.monotonic() + node.config.worker.drain_s + 3
        until("well past a drain", lambda: open_before.send_c_echo().Status == 0 and time.monotonic() > end, 30)
        open_before.release()
        until("the old receiver has ended", lambda: not old.is_running(), 30)
        sent = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in (tmp_path / "study").iterdir()}
        assert storescu_process(storescu, node.port, tmp_path / "study").returncode == 0
        catalog_rows = {path.name for path in (node.folder / "var" / "spool").rglob("*.dcm")}
        assert len(catalog_rows) == len(sent)

        with pinged(node) as pinging:
            until("answered", lambda: pinging.answered, 30)
            assert node.stop() == 0
            node.start()
            before = len(pinging.answered)
            until("answered again", lambda: len(pinging.answered) > before, 30)
        silence_s = pinging.longest_silence_s()
        record_property("restart_s", silence_s)
        print(f"without a listener for {silence_s:.1f} s at a restart")
        assert silence_s < 30 * PATIENCE
        assert " ERROR " not in node.log()
    finally:
        node.stop()


def test_what_cannot_be_taken_up_changes_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", "", extra=WORKER, listening=CT1)
    refused = node.cli("reload")
    assert refused.returncode == 2 and "no node is running" in refused.stderr
    path = started(node)
    try:
        whole = path.read_text()
        path.write_text(whole.replace("[storage]\n", '[storage]\nspool = "elsewhere"\n'))
        hang_up(node)
        until("told", lambda: "change by a restart only" in node.log(), 30)
        other = free_port()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", other))
            taken.listen()
            path.write_text(whole.replace(f"port = {node.port}", f"port = {other}"))
            hang_up(node)
            until("told", lambda: "not reloaded: the receivers do not start" in node.log(), 90)
        assert takes(node, "CT1")
        hang_up(node)  # the port is free now
        until("moved", lambda: takes(node, "CT1", other), 60)
        until("closed", lambda: not takes(node, "CT1"), 30)
    finally:
        node.stop()
