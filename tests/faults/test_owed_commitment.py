"""A storage commitment report that the node owes survives the process that owes it."""

import socket
import threading
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicomnode.network import association as sender
from dicomnode.network import commitment
from tests.helpers.ports import free_port
from tests.helpers.receiving import Receiving
from tests.helpers.scanners import associated, ct


@pytest.mark.slow
def test_a_receiver_killed_between_request_and_report(tmp_path: Path) -> None:
    """While the first receiver waits for a requester that says nothing, it is killed; the next one reports."""
    port, came = free_port(), threading.Event()
    caller = f'[[node.callers]]\nae_title = "SCANNER"\nreport_to = "127.0.0.1:{port}"\n'
    node = Receiving(tmp_path / "node", node=caller)
    reports: list[commitment.Report] = []

    def take(report: commitment.Report) -> bool:
        reports.append(report)
        came.set()
        return True

    try:
        with associated(node) as association:
            assert association.send_c_store(ct(1)).Status == 0x0000
        with socket.create_server(("127.0.0.1", port)) as silent:
            to_node = sender.Peer("node", "NODE", "127.0.0.1", node.port, "SCANNER")
            asked = [(CTImageStorage, "1.2.3.1"), (CTImageStorage, "1.2.3.2")]
            assert commitment.request(to_node, "1.2.3.99", asked) is None
            silent.settimeout(60)
            silent.accept()[0].close()  # the report is on its way
            node.kill()
        scanner = AE("SCANNER")
        scanner.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: commitment.handle_report(event, take))]
        server = scanner.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        assert server is not None
        with associated(node) as late:
            assert not late.is_established
        node.start()
        assert came.wait(120)
        server.shutdown()
        assert reports == [commitment.Report("1.2.3.99", ("1.2.3.1",), {"1.2.3.2": 0x0112})]
    finally:
        node.kill()
