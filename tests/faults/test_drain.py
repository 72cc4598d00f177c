"""SIGTERM: no new associations, the running one ends in its own time, and all is over within `worker.drain_s`."""

import signal
import time
from pathlib import Path

import pydicom
from pynetdicom import AE

from dicomnode.dimse import sender
from dicomnode.errors import DicomnodeError
from tests.acceptance.running import Node, until
from tests.faults.studies import make_study


def test_sigterm_drains(data: Path, tmp_path: Path) -> None:
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=13)
    node = Node(tmp_path / "node", "", "[worker]\nprocesses = 0\ndrain_s = 20\n")
    node.config_path.write_text(node.config_path.read_text().replace('bundle = "demo-synthetic"', 'bundle = ""'))
    node.start()
    assert node.process is not None
    datasets = [pydicom.dcmread(path) for path in files]
    scanner = AE("SCANNER")
    scanner.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = scanner.associate("127.0.0.1", node.port, ae_title="DICOMNODE")
    assert association.is_established
    assert association.send_c_store(datasets[0]).Status == 0x0000
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    until("closed for others", lambda: not _answers(node), 15)
    assert [association.send_c_store(d).Status for d in datasets[1:]] == [0x0000] * (len(datasets) - 1)
    association.release()
    assert node.process.wait(30) == 0
    assert time.monotonic() - began < 25
    assert "a receiver died here" not in node.log()
    node.start()  # it left nothing that the next one would have to clear away
    until("spool and catalogue compared", lambda: "spool and catalogue compared" in node.log(), 20)
    assert "0 recorded images have no file" in node.log()
    assert node.stop() == 0
    assert "a receiver died here" not in node.log()


def _answers(node: Node) -> bool:
    try:
        sender.echo(sender.Destination("node", "DICOMNODE", "127.0.0.1", node.port))
    except DicomnodeError:
        return False
    return True
