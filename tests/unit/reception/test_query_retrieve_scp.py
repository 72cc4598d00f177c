"""Query/Retrieve in this process: what DCMTK's programs do not show."""

import base64
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from dicomnode.audit import trail
from dicomnode.audit.journal import Refusals
from dicomnode.audit.messages import AuditMessage, AuditSource
from dicomnode.errors import SpoolError
from dicomnode.network import contexts
from dicomnode.network.association import Peer
from dicomnode.network.contexts import VERIFICATION
from dicomnode.reception import audited
from dicomnode.reception.query_model import STUDY_ROOT
from dicomnode.reception.receiver import PermittedCaller, Receiver, ReceiverSettings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.helpers import raw_peer as raw
from tests.helpers.audit_schema import faults
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until

FIND, MOVE, GET = STUDY_ROOT


class Node:
    """A receiver with a study of four images, and a peer that C-MOVE may send to."""

    def __init__(self, folder: Path) -> None:
        self.stored: list[tuple[str, str, int]] = []
        self.callers: set[str] = set()
        peer = ApplicationEntity("PEER")
        peer.add_supported_context(CTImageStorage)
        self._server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        assert self._server is not None
        self.catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
        settings = ReceiverSettings(
            "NODE",
            host="127.0.0.1",
            port=0,
            minimum_free_bytes=0,
            acse_timeout_s=5.0,
            queriers=(PermittedCaller("READER", "127.0.0.1"),),
            move_to=(
                Peer("peer", "PEER", "127.0.0.1", self._server.server_address[1], "NODE_OUT"),
                Peer("away", "AWAY", "127.0.0.1", 1),
            ),
            results=folder / "results",
        )
        self.receiver = Receiver(settings, Spool(folder / "spool"), self.catalog)
        self.port = self.receiver.start()
        with associated(self) as association:
            for number in range(1, 5):
                assert association.send_c_store(ct(number)).Status == 0

    def _store(self, event: evt.Event) -> int:
        request = event.request
        uid = str(request.AffectedSOPInstanceUID)
        self.callers.add(event.assoc.requestor.ae_title)
        self.stored.append((uid, request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        return 0xA700 if uid == "1.2.3.3" else 0x0000

    def close(self) -> None:
        self.receiver.stop(0.0)
        self._server.shutdown()
        self.catalog.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def identifier(**keys: object) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def move(node: Node, destination: str, **keys: object) -> list[Dataset]:
    entity = ApplicationEntity("READER")
    entity.add_requested_context(MOVE)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    answers = [status for status, _ in association.send_c_move(identifier(**keys), destination, MOVE, msg_id=7)]
    association.release()
    return answers


def test_a_query_in_a_context_for_storing_gets_no_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a query below the root of the storage classes taken for one: pynetdicom has one handler for all models."""
    monkeypatch.setattr(contexts, "_NOT_STORAGE", ())
    inventory = "1.2.840.10008.5.1.4.1.1.201."
    entity = ApplicationEntity("SCANNER")
    for number in (2, 3, 4):
        entity.add_requested_context(f"{inventory}{number}")
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    asked = identifier(StudyInstanceUID="1.2", PatientName="")
    answers = [
        [status.Status for status, _ in association.send_c_find(asked, f"{inventory}2")],
        [status.Status for status, _ in association.send_c_move(asked, "PEER", f"{inventory}3")],
        [status.Status for status, _ in association.send_c_get(asked, f"{inventory}4")],
    ]
    association.release()
    assert answers == [[0xA900], [0xC514], [0xA900]]
    assert node.stored == []


def test_a_move_counts_what_the_destination_stored_and_names_who_asked(node: Node) -> None:
    *pending, last = move(node, "PEER", StudyInstanceUID="1.2")
    assert [answer.NumberOfRemainingSuboperations for answer in pending] == [3, 2, 1, 0]
    counts = (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations)
    assert (last.Status, counts) == (0xB000, (3, 1))
    assert sorted(node.stored) == [(f"1.2.3.{n}", "READER", 7) for n in (1, 2, 3, 4)]
    assert node.callers == {"NODE_OUT"}  # the peer's own record says how it is called


def test_a_file_that_has_gone_is_a_failure_of_its_own(node: Node) -> None:
    Path(node.catalog.instances("1.2")[0].path).unlink()
    last = move(node, "PEER", StudyInstanceUID="1.2")[-1]
    counts = (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations)
    assert (last.Status, counts) == (0xB000, (2, 2))


@pytest.mark.parametrize(
    ("destination", "keys", "status"),
    [
        ("STRANGER", {"StudyInstanceUID": "1.2"}, 0xA801),
        ("AWAY", {"StudyInstanceUID": "1.2"}, 0xA801),
        ("PEER", {}, 0xC514),
        ("PEER", {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "1.2.3.1"}, 0xC514),
        ("PEER", {"StudyInstanceUID": "9.9"}, 0x0000),
    ],
)
def test_a_move_that_cannot_be_made(node: Node, destination: str, keys: dict[str, object], status: int) -> None:
    assert move(node, destination, **keys)[-1].Status == status
    assert node.stored == []


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def no_preamble(path: Path) -> None:
    path.write_bytes(b"no DICOM, but somebody's letter")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def nested(path: Path) -> None:
    sequence = struct.pack("<HH2s2xLHHL", 0x20, 0x9222, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    path.write_bytes(path.read_bytes() + sequence * 10_000)


def odd_value(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"1.2.3.1\0") == 2
    path.write_bytes(data[: data.rindex(b"1.2.3.1\0")] + b"\xff^Name\\\0" + data[data.rindex(b"1.2.3.1\0") + 8 :])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("damage", [Path.unlink, emptied, no_preamble, cut, nested, odd_value])
def test_an_object_that_cannot_be_read_costs_only_itself(
    node: Node, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(node.catalog.instances("1.2")[0].path)
    assert path.name.startswith("1.2.3.1-")
    damage(path)
    node.stored.clear()
    last = move(node, "PEER", StudyInstanceUID="1.2")[-1]
    counts = (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations)
    assert (last.Status, counts) == (0xB000, (2, 2))  # the peer takes no 1.2.3.3
    assert [uid for uid, *_ in node.stored if uid != "1.2.3.1"] == ["1.2.3.2", "1.2.3.3", "1.2.3.4"]
    got: list[str] = []
    last = get(node, got)
    counts = (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations)
    assert (last.Status, counts, sorted(got)) == (0xB000, (3, 1), ["1.2.3.2", "1.2.3.3", "1.2.3.4"])
    told = [record.getMessage() for record in caplog.records if record.name.startswith("dicomnode")]
    assert sum("1.2.3.1 cannot be sent: its file cannot be read" in line for line in told) == 2
    assert not [line for line in told if "Name" in line or "letter" in line]


def getter(node: Node, got: list[str], *more: str) -> Association:
    """An association for C-GET (and `more`); the instances that come are noted in `got`."""

    def store(event: evt.Event) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    entity = ApplicationEntity("READER")
    for uid in (GET, *more):
        entity.add_requested_context(uid)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    return entity.associate(
        "127.0.0.1",
        node.port,
        ae_title="NODE",
        ext_neg=[build_role(CTImageStorage, scu_role=True, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )


def get(node: Node, got: list[str]) -> Dataset:
    """The last answer of a C-GET of the study, and the instances that came."""
    association = getter(node, got)
    last = list(association.send_c_get(identifier(StudyInstanceUID="1.2"), GET))[-1][0]
    association.release()
    return last


def test_a_peer_that_does_not_read_holds_its_answers_back(node: Node) -> None:
    with associated(node) as association:
        assert association.send_c_store(ct(6, EncapsulatedDocument=bytes(64 << 20))).Status == 0
    role = struct.pack(">H", len(CTImageStorage)) + CTImageStorage.encode() + b"\1\1"
    sent = raw.request(
        {1: (GET, [ExplicitVRLittleEndian]), 3: (CTImageStorage, [ExplicitVRLittleEndian])},
        calling="READER",
        user=raw.item(0x54, role),
    )
    asked = raw.command({0x0002: GET.encode(), 0x0100: b"\x10\0", 0x0110: b"\1\0", 0x0700: b"\0\0", 0x0800: b"\0\0"})
    which = identifier(QueryRetrieveLevel="IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3")
    which.SOPInstanceUID = "1.2.3.6"
    with socket.create_connection(("127.0.0.1", node.port), timeout=60) as connection:
        connection.sendall(sent)
        assert raw.kind(connection) == raw.ACCEPTED
        connection.sendall(raw.pdata((1, 3, asked), (1, 2, encode(which, False, True) or b"")))
        until("the other association has ended", lambda: len(node.receiver._running()) == 1)
        (serving,) = node.receiver._running()
        waiting = serving.dul.to_provider_queue
        until("all that may wait waits", lambda: waiting.qsize() >= 16, 20)
        most = came = 0
        while came < 64 << 20:
            most = max(most, waiting.qsize())
            came += len(connection.recv(1 << 20))
        assert most == 16


def test_who_may_query_may_still_send_and_gets_on_the_same_association(node: Node) -> None:
    got: list[str] = []
    association = getter(node, got, VERIFICATION)
    last = list(association.send_c_get(identifier(StudyInstanceUID="1.2"), GET))[-1][0]
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 4)
    assert sorted(got) == [f"1.2.3.{n}" for n in (1, 2, 3, 4)]
    assert association.send_c_store(ct(5)).Status == 0x0000
    assert association.send_c_echo().Status == 0x0000
    association.release()
    until("five images recorded", lambda: len(node.catalog.instances("1.2")) == 5, 10)


def test_a_catalogue_that_does_not_answer_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_self: Catalog, _uids: object = ()) -> list[object]:
        raise SpoolError("the database is away")

    monkeypatch.setattr(Catalog, "held_studies", away)
    entity = ApplicationEntity("READER")
    entity.add_requested_context(FIND)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert [status.Status for status, _ in association.send_c_find(identifier(StudyInstanceUID=""), FIND)] == [0xA700]
    association.release()


def test_what_nobody_thought_of_is_answered_and_quoted_nowhere(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "Secret^Name cannot be decoded"  # not in the raising line, which the log shows

    def broken(_self: Catalog, _uids: object = ()) -> list[object]:
        raise ValueError(words)

    monkeypatch.setattr(Catalog, "held_studies", broken)
    entity = ApplicationEntity("READER")
    entity.add_requested_context(FIND)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    with caplog.at_level("INFO"):
        answers = [status.Status for status, _ in association.send_c_find(identifier(StudyInstanceUID=""), FIND)]
    association.release()
    assert answers == [0xC000]
    assert move(node, "PEER", StudyInstanceUID="1.2")[-1].Status == 0xC514
    assert "ValueError" in caplog.text
    assert "Secret" not in caplog.text


@pytest.mark.parametrize("calling", ["SCANNER", "READER2"])
def test_others_are_not_offered_it(node: Node, calling: str) -> None:
    entity = ApplicationEntity(calling)
    for uid in (*STUDY_ROOT, VERIFICATION):
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert [context.abstract_syntax for context in association.accepted_contexts] == [VERIFICATION]
    association.release()


@pytest.fixture
def told() -> Iterator[list[AuditMessage]]:
    """What is noted for the audit trail outside the catalogue."""
    kept: list[AuditMessage] = []
    trail.begin(AuditSource("node", "NODE"), kept.append)
    yield kept
    trail.begin(None)


def test_queries_retrievals_and_refusals_are_audited(node: Node, told: list[AuditMessage]) -> None:
    entity = ApplicationEntity("READER")
    entity.add_requested_context(FIND)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    list(association.send_c_find(identifier(PatientName="Sm*th"), FIND))
    association.release()
    move(node, "PEER", StudyInstanceUID="1.2")
    assert not entity.associate("127.0.0.1", node.port, ae_title="NOBODY").is_established
    until("the refusal noted", lambda: len(told) >= 4)
    assert [message.event for message in told] == ["110112", "110102", "110104", "110113"]
    assert [fault for message in told for fault in faults(message.xml)] == []
    query, begun, ended, refused = (ElementTree.fromstring(message.xml) for message in told)
    asked = query.findtext(".//ParticipantObjectQuery")
    assert asked is not None
    assert b"Sm*th" in base64.b64decode(asked)
    for transfer in (begun, ended):
        users = {p.attrib["UserID"]: p.attrib["UserIsRequestor"] for p in transfer.iter("ActiveParticipant")}
        assert users == {"AETITLE=NODE": "true", "AETITLE=PEER": "false"}
        assert [c.attrib["NumberOfInstances"] for c in transfer.iter("SOPClass")] == ["4"]
    assert "AETITLE=READER" in {p.attrib["UserID"] for p in refused.iter("ActiveParticipant")}


def test_a_flood_of_refusals_is_counted(node: Node, told: list[AuditMessage]) -> None:
    counted: list[int] = []
    audited.begin(Refusals(counted.append, most=3))
    try:
        for _ in range(10):
            audited.refused("X", "192.0.2.1", "why")
    finally:
        audited.begin(None)
    assert len(told) == 3
    assert counted == [1, 2, 3, 4, 5, 6, 7]


def poison(node: Node, path: Path) -> None:
    """What an older version may have stored: values with an unknown VR, a UID of 70 kB, a letter without a code."""
    raw = path.read_bytes()
    for wrong in (
        raw.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00ZZ"),
        raw.replace(b"\x20\x00\x0d\x00UI\x04\x001.2\0", b"\x20\x00\x0d\x00UN\0\0\x70\x11\x01\x00" + b"1." * 35_000),
        raw.replace(b"Secret^Name", b"\x1b$)\xff\xfe\xff\xff\xff\xff\xff\xff"),
        raw[:200],
        raw.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00UI\xff\xff"),
    ):
        assert wrong != raw
        path.write_bytes(wrong)
        with asked(node) as association:
            for level, uid in (("STUDY", ""), ("SERIES", "1.2"), ("IMAGE", "1.2")):
                identifier = Dataset()
                identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = level, uid
                identifier.PatientName = ""
                if level == "IMAGE":
                    identifier.SeriesInstanceUID, identifier.SOPInstanceUID = "1.2.3", ""
                answers = list(association.send_c_find(identifier, FIND))
                assert answers[-1][0].Status == 0x0000
                assert len(answers) - 1 >= (3 if level == "IMAGE" else 1)


@contextmanager
def asked(node: Node) -> Iterator[Association]:
    entity = ApplicationEntity("READER")
    entity.add_requested_context(FIND)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert association.is_established
    yield association
    association.release()


@pytest.mark.parametrize("which", [0, 2])
def test_an_object_that_cannot_be_read_costs_no_other_its_answer(node: Node, which: int) -> None:
    poison(node, Path(node.catalog.instances("1.2")[which].path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes", [{"PatientName": "*a" * 1000}, {"StudyInstanceUID": ["1.2"] * 10_001}, {"QueryRetrieveLevel": "ZZ\nTOP"}]
)
def test_a_query_beyond_all_bounds_is_refused(node: Node, changes: dict[str, object]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword, value in changes.items():
        identifier.add(DataElement(Tag(keyword), dictionary_VR(keyword), value, validation_mode=IGNORE))
    with asked(node) as association:
        ((status, _),) = association.send_c_find(identifier, FIND)
        assert status.Status == 0xA900
