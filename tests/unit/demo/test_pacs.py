"""The stand-in archive, with pynetdicom as SCU: commitment on the requesting association and on a new one."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from dicomnode.demo.pacs import StoragePeer
from dicomnode.errors import SpoolError
from dicomnode.network.association import Peer, echo, send
from dicomnode.network.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.network.transport import RequestorEntity
from tests.helpers.ports import free_port
from tests.helpers.waiting import until


class Requester:
    """Asks for commitment and keeps the reports."""

    def __init__(self) -> None:
        self.reports: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self.entity = RequestorEntity("NODE")
        self.entity.add_requested_context(STORAGE_COMMITMENT)
        self.listener = ApplicationEntity("NODE")
        self.listener.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        server = self.listener.start_server(("127.0.0.1", 0), False, evt_handlers=[self.handler])
        assert server is not None
        self.port = int(server.server_address[1])

    @property
    def handler(self) -> tuple[evt.InterventionEvent, object]:
        return evt.EVT_N_EVENT_REPORT, self.report

    def report(self, event: evt.Event) -> tuple[int, None]:
        assert event.event_type is not None
        self.reports.put((event.event_type, event.event_information))
        return 0x0000, None

    def associate(self, port: int) -> Association:
        return self.entity.associate("127.0.0.1", port, ae_title="ARCHIVE", evt_handlers=[self.handler])  # type: ignore[list-item]


@pytest.fixture
def requester() -> Iterator[Requester]:
    made = Requester()
    yield made
    made.listener.shutdown()


@pytest.fixture(params=["same association", "new association"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, requester: Requester) -> Iterator[StoragePeer]:
    node = Peer("node", "NODE", "127.0.0.1", requester.port, "ARCHIVE")
    report_to = (node,) if request.param == "new association" else ()
    made = StoragePeer("ARCHIVE", "127.0.0.1", 0, tmp_path / "archive", report_to)
    made.start()
    yield made
    made.stop()


def write(folder: Path) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def request_for(*wanted: tuple[str, str]) -> Dataset:
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = Sequence()
    for sop_class, instance in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        request.ReferencedSOPSequence.append(item)
    return request


def ask(requester: Requester, archive: StoragePeer, request: Dataset) -> tuple[int, Dataset]:
    association = requester.associate(archive.port)
    status, _ = association.send_n_action(request, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    assert status.Status == 0x0000
    report = requester.reports.get(timeout=240)
    association.release()
    assert report[1].TransactionUID == request.TransactionUID
    return report


def stored(archive: StoragePeer, tmp_path: Path) -> Path:
    path = write(tmp_path)
    send(Peer("archive", "ARCHIVE", "127.0.0.1", archive.port, "NODE"), [path])
    return path


def test_commits_to_what_it_holds(archive: StoragePeer, requester: Requester, tmp_path: Path) -> None:
    paths = [stored(archive, tmp_path) for _ in range(2)]
    request = request_for(*[(CTImageStorage, path.stem) for path in paths])
    event_type, report = ask(requester, archive, request)
    assert event_type == 1
    assert {item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence} == {path.stem for path in paths}
    assert "FailedSOPSequence" not in report
    for path in paths:
        assert dcmread(archive.folder / path.name) == dcmread(path)


def test_fails_what_it_does_not_hold(archive: StoragePeer, requester: Requester, tmp_path: Path) -> None:
    kept, removed = stored(archive, tmp_path), stored(archive, tmp_path)
    (archive.folder / removed.name).unlink()
    wanted = [(CTImageStorage, kept.stem), (CTImageStorage, removed.stem), (MRImageStorage, kept.stem)]
    event_type, report = ask(requester, archive, request_for(*wanted))
    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [kept.stem]
    failed = [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence]
    assert failed == [(removed.stem, 0x0112), (kept.stem, 0x0119)]


def test_wrong_requests_get_a_failure_and_no_report(archive: StoragePeer, requester: Requester) -> None:
    association = requester.associate(archive.port)
    status, _ = association.send_n_action(request_for(), 2, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    assert status.Status == 0x0123
    incomplete = Dataset()
    incomplete.TransactionUID = "1.2.3"
    status, _ = association.send_n_action(incomplete, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    assert status.Status == 0x0115
    association.release()
    assert requester.reports.empty()


def test_a_requester_that_has_gone(archive: StoragePeer, requester: Requester, tmp_path: Path) -> None:
    """The archive goes on when its report finds nobody."""
    path = stored(archive, tmp_path)
    association = requester.associate(archive.port)
    association.send_n_action(
        request_for((CTImageStorage, path.stem)), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
    )
    association.abort()
    assert stored(archive, tmp_path).stem in {file.stem for file in archive.folder.iterdir()}


def test_answers_an_echo(archive: StoragePeer) -> None:
    assert echo(Peer("archive", "ARCHIVE", "127.0.0.1", archive.port)) > 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="make"):
        StoragePeer("ARCHIVE", "127.0.0.1", 0, tmp_path / "file" / "archive").start()


def test_a_report_that_cannot_be_brought_is_told_with_the_cause(
    tmp_path: Path, requester: Requester, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = Peer("requester", "NODE", "127.0.0.1", free_port(), "ARCHIVE")
    archive = StoragePeer("ARCHIVE", "127.0.0.1", 0, tmp_path / "archive", (nobody,))
    archive.start()
    association = requester.associate(archive.port)
    request = request_for((CTImageStorage, "1.2.3"))
    status, _ = association.send_n_action(request, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    assert status.Status == 0x0000
    association.release()
    until("the warning", lambda: "cannot report storage commitment" in caplog.text)
    archive.stop()
    (told,) = (r for r in caplog.records if "cannot report storage commitment" in r.message)
    assert told.levelname == "WARNING"
    assert f"to NODE: {nobody}: no connection (Connection refused)" in told.message
