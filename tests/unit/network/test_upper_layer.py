"""P-DATA-TF PDUs in every legal shape, and in illegal ones, written to the socket of an open association."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from dicomnode.reception.receiver import Receiver, ReceiverSettings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until
from tests.unit.network.test_commands import command

DATA = encode(ct(4), False, True) or b""


class Node:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool")
        self.catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
        self.receiver = Receiver(
            ReceiverSettings("NODE", "127.0.0.1", 0, minimum_free_bytes=0), self.spool, self.catalog
        )
        self.port = self.receiver.start()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.receiver.stop(0.0)
    made.catalog.close()


def pdv(context_id: int, control: int, value: bytes) -> bytes:
    return struct.pack(">LBB", len(value) + 2, context_id, control) + value


def pdu(*values: bytes) -> bytes:
    return struct.pack(">BxL", 4, sum(map(len, values))) + b"".join(values)


def context(association: Association) -> int:
    return next(c.context_id for c in association.accepted_contexts if c.abstract_syntax == CTImageStorage)  # type: ignore[return-value]


def exchange(association: Association, pdus: bytes) -> int | None:
    """Writes the bytes; returns the status of the answer, or None if the association was aborted."""
    association._reactor_checkpoint.clear()
    sock = association.dul.socket
    assert sock is not None
    assert sock.socket is not None
    sock.socket.sendall(pdus)
    _, response = association.dimse.get_msg(block=True) if not association.is_aborted else (None, None)
    association._reactor_checkpoint.set()
    return None if response is None else int(response.Status)


def shapes(c: int) -> dict[str, bytes]:
    request = command(AffectedSOPInstanceUID="1.2.3.4")
    half = len(DATA) // 2
    return {
        "command and data in PDUs of their own": pdu(pdv(c, 3, request)) + pdu(pdv(c, 2, DATA)),
        "all in one PDU": pdu(pdv(c, 3, request), pdv(c, 2, DATA)),
        "data in two values of one PDU": pdu(pdv(c, 3, request)) + pdu(pdv(c, 0, DATA[:half]), pdv(c, 2, DATA[half:])),
        "command in three": b"".join(
            (pdu(pdv(c, 1, request[:10])), pdu(pdv(c, 1, request[10:20])), pdu(pdv(c, 3, request[20:])))
        )
        + pdu(pdv(c, 2, DATA)),
        "a byte a PDU": pdu(pdv(c, 3, request)) + b"".join(pdu(pdv(c, 0, DATA[i : i + 1])) for i in range(len(DATA)))
        + pdu(pdv(c, 2, b"")),
        "an empty value": pdu(pdv(c, 3, request)) + pdu(pdv(c, 0, b"")) + pdu(pdv(c, 2, DATA)),
        "reserved bits set": pdu(pdv(c, 0xFF, request)) + pdu(pdv(c, 0xF2, DATA)),
    }  # fmt: skip


@pytest.mark.parametrize("shape", shapes(1))
def test_every_legal_shape_is_stored(node: Node, shape: str) -> None:
    with associated(node) as association:
        assert exchange(association, shapes(context(association))[shape]) == 0x0000
    (one,) = node.catalog.instances("1.2")
    assert Path(one.path).read_bytes().endswith(DATA)
    assert one.size == Path(one.path).stat().st_size


def faults(c: int) -> dict[str, bytes]:
    request = command(AffectedSOPInstanceUID="1.2.3.4")
    return {
        "data without a command": pdu(pdv(c, 2, DATA)),
        "data in another context": pdu(pdv(c, 3, request)) + pdu(pdv(c + 2, 2, DATA)),
        "a command in the middle of data": pdu(pdv(c, 3, request)) + pdu(pdv(c, 0, DATA)) + pdu(pdv(c, 3, request)),
        "a value longer than its PDU": pdu(pdv(c, 3, request)) + pdu(struct.pack(">LBB", 5000, c, 2) + DATA),
        "a value of length 1": pdu(struct.pack(">LBB", 1, c, 3) + request),
        "half a value header": pdu(b"\0\0\0"),
        "an unknown PDU": b"\x77\0\0\0\0\0",
        "4 GB": b"\x04\0\xff\xff\xff\xff",
        "an A-ASSOCIATE-RQ in the middle": b"\x01\0\0\0\0\x04\0\1\0\0",
        "a context that was not accepted": pdu(pdv(99, 3, request)) + pdu(pdv(99, 2, DATA)),
    }


@pytest.mark.parametrize("fault", faults(1))
def test_what_is_illegal_ends_the_association_and_nothing_else(node: Node, fault: str) -> None:
    with associated(node) as association, associated(node) as other:
        sock = association.dul.socket
        assert sock is not None
        assert sock.socket is not None
        sock.socket.sendall(faults(context(association))[fault])
        until("aborted", lambda: association.is_aborted, 10)
        assert other.send_c_store(ct(5)).Status == 0x0000
    until("the associations ended", lambda: not node.receiver._running(), 10)
    assert list((node.spool.root / "incoming").iterdir()) == []
    assert [one.sop_instance_uid for one in node.catalog.instances("1.2")] == ["1.2.3.5"]


def test_an_echo_between_two_stores_goes_pynetdicoms_way(node: Node) -> None:
    with associated(node) as association:
        for number in (1, 2, 3):
            assert association.send_c_store(ct(number)).Status == 0x0000
            assert association.send_c_echo().Status == 0x0000
    assert len(node.catalog.instances("1.2")) == 3


def test_a_peer_with_a_small_pdu_gets_its_answer_in_pieces(node: Node) -> None:
    from dicomnode.network.transport import RequestorEntity

    entity = RequestorEntity("SCANNER")
    entity.maximum_pdu_size = 50
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert association.send_c_store(ct()).Status == 0x0000
    association.release()
