"""SIGTERM: no new associations, the running one ends in its own time, and all is over within `worker.drain_s`."""

import signal
from collections.abc import Callable
from pathlib import Path

import pydicom
from pynetdicom import AE

from dicomnode.errors import DicomnodeError
from dicomnode.network import association as sender
from dicomnode.store.catalog.catalog import Catalog
from tests.faults.studies import make_study
from tests.helpers.running import Node, storescu_process
from tests.helpers.waiting import until


def test_sigterm_drains(data: Path, tmp_path: Path) -> None:
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=13)
    node = Node(tmp_path / "node", "", "[worker]\nprocesses = 0\ndrain_s = 500\n")
    node.config_path.write_text(node.config_path.read_text().replace('bundle = "demo-synthetic"', 'bundle = ""'))
    node.start()
    assert node.process is not None
    datasets = [pydicom.dcmread(path) for path in files]
    scanner = AE("SCANNER")
    scanner.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = scanner.associate("127.0.0.1", node.port, ae_title="DICOMNODE")
    assert association.is_established
    assert association.send_c_store(datasets[0]).Status == 0x0000
    node.process.send_signal(signal.SIGTERM)
    until("closed for others", lambda: not _answers(node), 15)
    assert [association.send_c_store(d).Status for d in datasets[1:]] == [0x0000] * (len(datasets) - 1)
    association.release()
    assert node.process.wait(240) == 0  # it ends with its association, not with its time
    assert "a receiver had crashed" not in node.log()
    node.start()  # it left nothing that the next one would have to clear away
    until("spool and catalogue compared", lambda: "compared spool and catalogue" in node.log(), 20)
    assert "0 recorded images have no file" in node.log()
    assert node.stop() == 0
    assert "a receiver had crashed" not in node.log()


def test_sigterm_in_mid_analysis_ends_the_worker_in_time_and_the_next_start_goes_on(
    data: Path, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    """An analysis takes longer than `drain_s`: its worker does not wait for it, and nothing has failed."""
    folder = data / "chest_lidc0314_every4th"
    study_uid = str(pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
    node = Node(tmp_path / "node", "", "radiomics = false\n[worker]\ndrain_s = 1\n", bundle="").start()
    try:
        assert storescu_process(peer("storescu", "dcmtk"), node.port, folder).returncode == 0
        until("analysing", lambda: node.jobs().get(study_uid) == "running", 60)
        worker = node.child("work")
        assert node.stop() == 0
        assert not worker.is_running()
        assert "exiting with work unfinished" in node.log()
        assert "failed" not in node.log()
        assert "the lease is given back, with 1 workflow" in node.log()
        assert _workers(node) == ["gone"]
        assert node.jobs()[study_uid] == "running"
        node.start()
        until("analysed", lambda: node.jobs()[study_uid] == "analysed", 120)
        assert " ERROR " not in node.log() and "missed its heartbeat" not in node.log()
    finally:
        node.stop()


def _workers(node: Node) -> list[str]:
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        return [worker.state for worker in catalog.workers()]
    finally:
        catalog.close()


def _answers(node: Node) -> bool:
    try:
        sender.echo(sender.Peer("node", "DICOMNODE", "127.0.0.1", node.port))
    except DicomnodeError:
        return False
    return True
