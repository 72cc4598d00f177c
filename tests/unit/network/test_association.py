"""The sender, against a peer in this process that answers as it is told."""

import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import find
from dicomnode.network.association import Peer, Sent, associated, echo, send, sendable
from dicomnode.network.contexts import VERIFICATION
from dicomnode.network.transport import RequestorEntity
from tests.helpers.answering import Answering
from tests.helpers.ports import free_port
from tests.helpers.waiting import until


class FakePeer:
    """Answers every C-STORE with `status`, keeps what came."""

    def __init__(self) -> None:
        self.status: int = 0x0000
        self.act: Callable[[evt.Event], None] = lambda _event: None
        self.received: list[tuple[UID, bytes]] = []
        self.associations = 0
        self.entity = ApplicationEntity("PEER")
        self.entity.maximum_pdu_size = 0
        self.entity.require_called_aet = True

    def start(self, contexts: Mapping[UID, list[UID]]) -> Peer:
        supported = [build_context(sop_class, syntaxes) for sop_class, syntaxes in contexts.items()]
        handlers = [
            (evt.EVT_C_STORE, self.store),
            (evt.EVT_C_ECHO, lambda _event: self.status),
            (evt.EVT_ESTABLISHED, self.established),
        ]
        server = self.entity.start_server(("127.0.0.1", 0), False, contexts=supported, evt_handlers=handlers)
        assert server is not None
        port = int(server.server_address[1])
        return Peer("archive", "PEER", "127.0.0.1", port, "NODE", 20.0, 30.0, 30.0, 30.0)

    def store(self, event: evt.Event) -> int:
        self.act(event)
        self.received.append((event.context.transfer_syntax, event.encoded_dataset(include_meta=False)))
        return self.status

    def established(self, _event: evt.Event) -> None:
        self.associations += 1


ALL = {
    VERIFICATION: [ImplicitVRLittleEndian],
    CTImageStorage: [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless],
}


@pytest.fixture
def peer() -> Iterator[FakePeer]:
    made = FakePeer()
    yield made
    made.entity.shutdown()


def write(folder: Path, sop_class: UID = CTImageStorage, syntax: UID = ExplicitVRLittleEndian) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "Secret^Name"
    dataset.PatientID = "SECRET"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def body(path: Path) -> bytes:
    return path.read_bytes()[144 + dcmread(path).file_meta.FileMetaInformationGroupLength :]


def test_echo(peer: FakePeer) -> None:
    assert 0.0 < echo(peer.start(ALL)) < 30.0


def test_echo_that_is_not_offered(peer: FakePeer) -> None:
    with pytest.raises(PeerRejectedError, match="accepts none of: Verification SOP Class"):
        echo(peer.start({CTImageStorage: [ExplicitVRLittleEndian]}))


def test_echo_with_a_failure(peer: FakePeer) -> None:
    peer.status = 0x0122
    with pytest.raises(PeerRejectedError, match="0x0122"):
        echo(peer.start(ALL))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_files_go_as_they_are_in_order_on_one_association(peer: FakePeer, tmp_path: Path, syntax: UID) -> None:
    paths = [write(tmp_path, syntax=syntax) for _ in range(3)]
    told: list[tuple[Path, Sent]] = []
    sent = send(peer.start(ALL), paths, lambda path, result: told.append((path, result)))
    assert [(one.sop_instance_uid, one.status, one.outcome) for one in sent] == [
        (path.stem, 0x0000, "stored") for path in paths
    ]
    assert told == list(zip(paths, sent, strict=True))
    assert peer.received == [(syntax, body(path)) for path in paths]
    assert peer.associations == 1


@pytest.mark.parametrize(
    ("file", "taken"),
    [(ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, ExplicitVRLittleEndian)],
)
def test_uncompressed_files_are_converted_where_they_must(
    peer: FakePeer, tmp_path: Path, file: UID, taken: UID
) -> None:
    path = write(tmp_path, syntax=file)
    send(peer.start({CTImageStorage: [taken]}), [path])
    ((syntax, data),) = peer.received
    assert syntax == taken
    assert data != body(path)
    kept = tmp_path / "kept.dcm"
    write_with(kept, taken, data)
    assert dcmread(kept) == dcmread(path)


def write_with(path: Path, syntax: UID, data: bytes) -> None:
    from dicomnode.network.file_meta import encode

    path.write_bytes(encode(CTImageStorage, "1.2.3", syntax) + data)


def test_the_syntax_that_a_destination_prefers_is_taken(peer: FakePeer, tmp_path: Path) -> None:
    destination = replace(peer.start(ALL), preferred_syntax=ImplicitVRLittleEndian)
    send(destination, [write(tmp_path, syntax=ExplicitVRLittleEndian)])
    ((syntax, _data),) = peer.received
    assert syntax == ImplicitVRLittleEndian


def test_a_file_is_deflated_on_its_way_where_that_is_preferred_and_taken(peer: FakePeer, tmp_path: Path) -> None:
    path = write(tmp_path, syntax=ExplicitVRLittleEndian)
    deflated = {CTImageStorage: [DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian]}
    destination = replace(peer.start(deflated), preferred_syntax=DeflatedExplicitVRLittleEndian)
    send(destination, [path])
    ((syntax, content),) = peer.received
    assert syntax == DeflatedExplicitVRLittleEndian
    assert zlib.decompressobj(-zlib.MAX_WBITS).decompress(content) == body(path)


def test_compressed_files_are_not_converted(peer: FakePeer, tmp_path: Path) -> None:
    destination = peer.start({CTImageStorage: [ExplicitVRLittleEndian]})
    with pytest.raises(PeerRejectedError, match="RLE Lossless"):
        send(destination, [write(tmp_path, syntax=RLELossless)])


def test_a_class_that_is_refused_does_not_take_back_what_was_stored(peer: FakePeer, tmp_path: Path) -> None:
    """Case 24: the PACS refuses SEG."""
    told: list[Path] = []
    paths = [write(tmp_path), write(tmp_path, SegmentationStorage)]
    with pytest.raises(PeerRejectedError, match="Segmentation Storage") as caught:
        send(peer.start(ALL), paths, lambda path, _result: told.append(path))
    assert told == paths[:1]
    assert "SECRET" not in str(caught.value).upper()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, "stored"),
        (0xB000, "warning"),
        (0xB006, "warning"),
        (0xB007, "warning"),
        (0x0107, "warning"),
        (0xA700, PeerError),
        (0xA702, PeerError),
        (0x0110, PeerError),
        (0x0213, PeerError),
        (0x0122, PeerRejectedError),
        (0x0124, PeerRejectedError),
        (0x0117, PeerRejectedError),
        (0xA900, PeerRejectedError),
        (0xC000, PeerRejectedError),
        (0xC123, PeerRejectedError),
    ],
)
def test_the_peers_status_decides(
    peer: FakePeer, tmp_path: Path, status: int, expected: str | type[PeerError] | type[PeerRejectedError]
) -> None:
    peer.status = status
    destination, path = peer.start(ALL), write(tmp_path)
    if isinstance(expected, str):
        (sent,) = send(destination, [path])
        assert (sent.status, sent.outcome) == (status, expected)
    else:
        with pytest.raises(expected, match=f"0x{status:04X}") as caught:
            send(destination, [path])
        assert "archive (PEER at 127.0.0.1" in str(caught.value)
        assert type(caught.value) is expected


def test_abort_in_the_middle_passes(peer: FakePeer, tmp_path: Path) -> None:
    def abort_at_the_second(event: evt.Event) -> None:
        if len(peer.received) == 1:
            event.assoc.abort()

    peer.act = abort_at_the_second
    told: list[Path] = []
    paths = [write(tmp_path) for _ in range(3)]
    with pytest.raises(PeerError, match="did not answer"):
        send(peer.start(ALL), paths, lambda path, _result: told.append(path))
    assert told == paths[:1]


def test_a_peer_that_never_answers(peer: FakePeer, tmp_path: Path) -> None:
    peer.act = lambda _event: time.sleep(1.0)
    destination = replace(peer.start(ALL), dimse_timeout_s=0.2)
    with pytest.raises(PeerError, match=r"no response within 0\.2 s"):
        send(destination, [write(tmp_path)])


def test_wrong_called_title_is_for_good_and_says_the_cure(peer: FakePeer, tmp_path: Path) -> None:
    destination = replace(peer.start(ALL), ae_title="OTHER")
    with pytest.raises(PeerRejectedError, match="AE title is not OTHER: correct the destination's ae_title"):
        send(destination, [write(tmp_path)])


def test_unknown_calling_title_is_for_good(peer: FakePeer, tmp_path: Path) -> None:
    peer.entity.require_calling_aet = ["SOMEBODY"]
    with pytest.raises(PeerRejectedError, match="does not know the calling AE title NODE: register it"):
        send(peer.start(ALL), [write(tmp_path)])


def test_too_many_associations_passes(peer: FakePeer, tmp_path: Path) -> None:
    destination = peer.start(ALL)
    peer.entity._maximum_associations = 0
    with pytest.raises(PeerError, match="too many associations"):
        send(destination, [write(tmp_path)])


def test_nobody_listens() -> None:
    destination = Peer("archive", "PEER", "127.0.0.1", free_port())
    with pytest.raises(PeerError, match="no connection \\(Connection refused\\)"):
        echo(destination)


def test_unknown_host() -> None:
    with pytest.raises(PeerError, match="unknown host name"):
        echo(Peer("archive", "PEER", "no-such-host.invalid", 104))


def test_a_listener_that_is_no_dicom_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        destination = Peer("archive", "PEER", "127.0.0.1", listener.getsockname()[1], acse_timeout_s=0.2)
        with pytest.raises(PeerError, match=r"did not answer the association request within 0\.2 s"):
            echo(destination)


def test_not_a_dicom_file(peer: FakePeer, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_text("no")
    with pytest.raises(PeerRejectedError, match="not a readable DICOM file"):
        send(peer.start(ALL), [tmp_path / "x.dcm"])


def test_of_a_folder_only_dicom_objects_are_sent(tmp_path: Path) -> None:
    image, directory = write(tmp_path), write(tmp_path, MediaStorageDirectoryStorage)
    (tmp_path / "README.TXT").write_text("Viewer: run setup.exe")
    (tmp_path / "EMPTY").touch()
    assert sendable([directory, *tmp_path.glob("[RE]*"), image]) == [image]


def test_more_than_128_contexts_are_sent_in_batches(peer: FakePeer, tmp_path: Path) -> None:
    """70 SOP classes, two contexts each (the file's syntax and the other uncompressed one): two associations."""
    classes = AllStoragePresentationContexts[:70]
    paths = [write(tmp_path, UID(str(context.abstract_syntax))) for context in classes]
    taken = {UID(str(context.abstract_syntax)): [ExplicitVRLittleEndian] for context in classes}
    sent = send(peer.start(taken), paths)
    assert [one.sop_instance_uid for one in sent] == [path.stem for path in paths]
    assert peer.associations == 2


def test_no_answer_is_taken_away_behind_a_closed_gate() -> None:
    """pynetdicom's own thread asks without waiting; who has sent a request waits for its answer."""
    from queue import Empty

    from dicomnode.network.transport import _Answers, _Gate

    gate = _Gate()
    answers = _Answers(gate)
    gate.clear()
    answers.put("answer")
    with pytest.raises(Empty):
        answers.get(block=False)
    assert answers.get(block=True, timeout=10) == "answer"
    answers.put("event report")
    gate.set()
    assert answers.get(block=False) == "event report"


def test_an_answer_that_comes_too_late_for_a_release_ends_no_thread() -> None:
    """The peer's report came while we released: pynetdicom's thread died of it, and its socket stayed open."""
    peer = Answering()
    try:
        contexts = [build_context(find.STUDY_ROOT_FIND)]
        with associated(peer.destination, contexts) as association:
            association.dul.state_machine.current_state = "Sta7"  # we have asked for the release
            answer = P_DATA()
            answer.presentation_data_value_list = [[1, b"\3late"]]
            association.dul.send_pdu(answer)
            until("dropped", association.dul.to_provider_queue.empty)
            association.dul.state_machine.current_state = "Sta6"
            question = Dataset()
            question.QueryRetrieveLevel = "STUDY"
            assert [int(s.Status) for s, _ in association.send_c_find(question, find.STUDY_ROOT_FIND)] == [0]
    finally:
        peer.close()


def test_a_rejection_that_comes_before_pynetdicom_looks_is_one() -> None:
    """Its threads race: the one that asked may find the connection closed already, by the rejection."""
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reject() -> None:
            connection = listener.accept()[0]
            with connection:
                connection.recv(65_536)
                connection.sendall(bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 7]))  # for good: called AE title not recognised
                closed.wait(20)

        thread = threading.Thread(target=reject)
        thread.start()
        entity = RequestorEntity("NODE")
        late = [(evt.EVT_CONN_CLOSE, lambda _event: closed.set()), (evt.EVT_REQUESTED, lambda _event: closed.wait(20))]
        contexts = [build_context(VERIFICATION)]
        association = entity.associate("127.0.0.1", listener.getsockname()[1], contexts, evt_handlers=late)
        thread.join()
    assert association.is_rejected
    assert not association.is_aborted
    answer = association.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)
