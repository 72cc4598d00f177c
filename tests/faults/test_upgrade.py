"""A rolling upgrade: what workers of the old version have begun or left in the queue is not left behind."""

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.waiting import until

UID = study_uid("a")
#: A worker of the version before: the same code under another version's name.
_OLD_WORKER = """
import sys, threading
from pathlib import Path
from dicomnode import config
from dicomnode.service import processes
from dicomnode.workflows import queue, runtime
queue.WORKFLOW_VERSION = runtime.WORKFLOW_VERSION = processes.WORKFLOW_VERSION = "0"
processes.work(config.load(Path(sys.argv[1])), 7, threading.Event())
"""


@pytest.mark.slow
@pytest.mark.parametrize("left", ["DELAYED", "PENDING"])
def test_what_the_old_version_left_is_done_by_the_new_one(data: Path, tmp_path: Path, left: str) -> None:
    """The old worker is killed with a delivery that waits, or in the middle of one; then only the new version runs."""
    pacs = Pacs(tmp_path / "pacs")
    station = Station(tmp_path / "node", pacs.destination(), more="[worker]\ndead_after_s = 10")
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)
    # A peer that takes the connection and says nothing keeps the delivery at work; none at all makes it wait.
    silent = socket.create_server(("127.0.0.1", pacs.port)) if left == "PENDING" else socket.socket()
    with running(station):
        old = subprocess.Popen([sys.executable, "-c", _OLD_WORKER, station.path], cwd=ROOT)
        try:
            until("the old worker", lambda: [w.version for w in station.catalog.workers("alive")] == ["0"], 60)
            station.send(files)
            station.settle(UID)
            station.clock.reconcile()
            until(f"a delivery that is {left}", lambda: _deliveries(station, left), 60)
        finally:
            old.kill()
            old.wait()
            silent.close()
        pacs.start()
        with running(pacs):
            station.start_worker()
            until("the old one's death", lambda: station.recover() or _none_old(station), 30)
            station.ended(UID, 1, "delivered")
            until("nothing of the old version", lambda: station.recover() == 0 and _none_old(station), 30)
            assert Counter(d.Modality for d in pacs.held()) == {"SEG": 1, "SR": 1, "OT": 1}
            assert len(pacs.came) == 3


def _deliveries(station: Station, status: str) -> list[str]:
    found = station.queue._client.list_workflows(status=status, name="deliver", load_input=False, load_output=False)
    return [w.workflow_id for w in found]


def _none_old(station: Station) -> bool:
    live = ["ENQUEUED", "PENDING", "DELAYED"]
    found = station.queue._client.list_workflows(status=live, load_input=False, load_output=False)
    return all(w.app_version != "0" for w in found)
