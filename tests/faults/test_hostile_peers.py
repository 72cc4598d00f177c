"""Hostile and broken peers against a running receiver: it answers, stays small, and gives everything back."""

import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicomnode.network.contexts import STORAGE_COMMITMENT, VERIFICATION
from tests.helpers import raw_peer as raw
from tests.helpers.receiving import IDLE_THREADS, Receiving
from tests.helpers.scanners import associated, ct
from tests.helpers.waiting import until

pytestmark = pytest.mark.alone
_MOST_MEMORY = 50_000_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    made = Receiving(tmp_path_factory.mktemp("node"), node="network_timeout_s = 20")
    with associated(made) as association:
        assert association.send_c_store(ct(1)).Status == 0x0000
    yield made
    made.kill()


@dataclass(frozen=True)
class Clocks:
    """Seconds: on the wall, of the node's processor time, and idle of each core of the machine."""

    wall: float
    node: float
    idle: float

    @classmethod
    def read(cls, node: Receiving) -> "Clocks":
        cores = psutil.cpu_count() or 1
        return cls(time.monotonic(), node.processor_s(), psutil.cpu_times().idle / cores)

    def since(self, before: "Clocks") -> "Clocks":
        return Clocks(self.wall - before.wall, self.node - before.node, self.idle - before.idle)

    @property
    def is_late(self) -> bool:
        """Whether the node let an echo wait for a second: it worked all that time, or waited while cores were idle.

        Where others have the cores, a second of the node's takes longer on the wall.
        """
        return self.wall >= 1.0 and (self.node >= 1.0 or self.idle >= self.wall / 2)


@contextmanager
def unharmed(node: Receiving) -> Iterator[None]:
    """Every echo is answered within a second all the while; afterwards everything is where it was."""
    until("quiet", lambda: node.threads() <= IDLE_THREADS, 10)
    memory, descriptors = node.memory(), node.descriptors()
    over, echoes = threading.Event(), list[Clocks]()

    def echo() -> None:
        while not echoes or not over.wait(0.2):
            began = Clocks.read(node)
            assert raw.echo(node.port) == 0x0000
            echoes.append(Clocks.read(node).since(began))

    thread = threading.Thread(target=echo)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert echoes
    assert [one for one in echoes if one.is_late] == []
    assert node.memory() - memory < _MOST_MEMORY
    until("the threads gone", lambda: node.threads() <= IDLE_THREADS, 20)
    until("the descriptors closed", lambda: node.descriptors() <= descriptors + 1, 10)
    assert not list((node.config.storage.spool / "incoming").iterdir())
    assert "Traceback" not in node.log()


@pytest.mark.parametrize(
    ("wall", "busy", "idle", "is_late"),
    [(0.9, 0.9, 0.9, False), (1.1, 1.05, 0.0, True), (1.1, 0.0, 1.0, True), (4.0, 0.8, 0.5, False)],
)
def test_only_the_load_of_others_excuses_an_echo(wall: float, busy: float, idle: float, is_late: bool) -> None:
    assert Clocks(wall, busy, idle).is_late is is_late


_ECHO: raw.Contexts = {1: (VERIFICATION, [ImplicitVRLittleEndian])}


@pytest.mark.parametrize(
    ("request_pdu", "answer"),
    [
        (raw.request(_ECHO, called="NODE".ljust(16, "\0"), calling="EFILM".ljust(16, "\0")), raw.ACCEPTED),
        (raw.request(_ECHO, version=3), raw.ACCEPTED),
        (raw.request(_ECHO, name=b"1.2.840.10008.3.1.1.1\0"), raw.ACCEPTED),
        (raw.request(_ECHO, user=raw.item(0x70, b"abcd")), raw.ACCEPTED),
        (raw.request(_ECHO, user=raw.item(0x55, b"A" * 40)), raw.ACCEPTED),
        (raw.request(_ECHO, maximum=0), raw.ACCEPTED),
        (raw.request(_ECHO, calling=""), raw.REJECTED),
        (raw.request({2: _ECHO[1]}), raw.ABORTED),
    ],
    ids=["NUL", "version bits", "context name", "unknown item", "long name", "no maximum", "no name", "even context"],
)
def test_odd_association_requests_are_answered_at_once(node: Receiving, request_pdu: bytes, answer: int) -> None:
    with node.connect() as connection:
        connection.settimeout(15)  # less than the node waits for a peer
        connection.sendall(request_pdu)
        assert raw.kind(connection) == answer


def test_requests_without_a_body_leave_nothing(node: Receiving) -> None:
    with unharmed(node):
        for length in (*range(68), 0, 0):
            for sent in (0, length // 2, length):
                with node.connect() as connection:
                    connection.sendall(struct.pack(">BxL", 1, length) + bytes(sent))
        for _ in range(100):
            with node.connect() as connection:
                connection.sendall(b"\x01\0\0\0\0\0")


def test_three_hundred_half_open_connections_are_not_three_hundred_threads(node: Receiving) -> None:
    with unharmed(node), ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(node.connect())
            connection.sendall((b"\x01\0\0\0\0\0", b"\x01\0", b"", b"\x01\0\0\0\0\xc8\0\1")[number % 4])
        until("the oldest gone", lambda: node.threads() < 180, 10)
        assert raw.echo(node.port) == 0x0000


def test_callers_that_are_rejected_and_stay_do_not_fill_the_node(node: Receiving) -> None:
    with unharmed(node), ExitStack() as stack:
        for _ in range(80):
            connection = stack.enter_context(node.connect())
            connection.sendall(raw.request({1: (VERIFICATION, [ExplicitVRLittleEndian])}, called="OTHER"))
        until("the rejected gone", lambda: node.threads() < 30, 10)


CONTEXTS = {
    1: (CTImageStorage, [ExplicitVRLittleEndian]),
    3: (VERIFICATION, [ExplicitVRLittleEndian]),
    5: (STORAGE_COMMITMENT, [ExplicitVRLittleEndian]),
    7: (CTImageStorage, [DeflatedExplicitVRLittleEndian]),
}
ECHO = raw.command({0x0002: VERIFICATION.encode(), 0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"})


def action(sop_class: str = STORAGE_COMMITMENT) -> bytes:
    return raw.command(
        {
            0x0003: sop_class.encode(), 0x0100: b"\x30\1", 0x0110: b"\5\0", 0x0800: b"\0\0",
            0x1001: b"1.2.840.10008.1.20.1.1", 0x1008: b"\1\0",
        }
    )  # fmt: skip


def endless(context: int, control: int) -> Iterator[bytes]:
    for _ in range(80):
        yield raw.pdata((context, control, bytes(100_000)))


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "empty command fragments": lambda: iter([raw.pdata(*[(3, 1, b"")] * 170_000)] * 3),
    "empty data fragments": lambda: iter([raw.pdata((5, 3, action())), raw.pdata(*[(5, 0, b"")] * 170_000)]),
    "a command set without an end": lambda: endless(3, 1),
    "an identifier without an end": lambda: iter([raw.pdata((5, 3, action())), *endless(5, 0)]),
    "a flood of echoes": lambda: iter([raw.pdata((3, 3, ECHO)) * 20_000]),
    "a service in the context of another": lambda: iter([raw.pdata((3, 3, action()))]),
    "4 GB": lambda: iter([b"\x04\0\xff\xff\xff\xff"]),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_what_has_no_end_is_ended(node: Receiving, flood: str) -> None:
    with unharmed(node):
        for _ in range(3):
            with (
                raw.associated(node.port, CONTEXTS) as connection,
                pytest.raises((ConnectionError, raw.AbortedError)),
            ):
                for part in FLOODS[flood]():
                    connection.sendall(part)
                while True:
                    raw.answer(connection)


def test_cancels_without_a_query_cost_nothing(node: Receiving) -> None:
    cancel = raw.command({0x0100: b"\xff\x0f", 0x0120: b"\1\0", 0x0800: b"\1\1"})
    with unharmed(node), raw.associated(node.port, CONTEXTS) as connection:
        connection.sendall(raw.pdata((3, 3, cancel)) * 5000 + raw.pdata((3, 3, ECHO)))
        assert raw.answer(connection) == 0x0000


@pytest.mark.parametrize("in_one_pdu", [True, False])
def test_a_command_in_two_parts_is_answered_once(node: Receiving, in_one_pdu: bool) -> None:
    parts = ((3, 1, ECHO[:20]), (3, 3, ECHO[20:]))
    with raw.associated(node.port, CONTEXTS) as connection:
        connection.sendall(raw.pdata(*parts) if in_one_pdu else b"".join(raw.pdata(part) for part in parts))
        assert raw.answer(connection) == 0x0000
        connection.sendall(raw.RELEASE)
        assert raw.kind(connection) == raw.RELEASED  # and not a second answer


def store(node: Receiving, context: int, uid: str, data: bytes) -> int:
    request = raw.command(
        {0x0002: CTImageStorage.encode(), 0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\0\0", 0x1000: uid.encode()}
    )
    with raw.associated(node.port, CONTEXTS) as connection:
        connection.sendall(raw.pdata((context, 3, request)))
        for at in range(0, len(data), 16_000):
            connection.sendall(raw.pdata((context, 2 if at + 16_000 >= len(data) else 0, data[at : at + 16_000])))
        return raw.answer(connection)


def bomb(*, in_pixels: bool) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    dataset = encode(ct(700), False, True) or b""
    big = struct.pack("<HH2s2xL", *((0x7FE0, 0x0010, b"OW") if in_pixels else (8, 0x1140, b"UN")), 600 << 20)
    parts = [pack.compress(dataset if in_pixels else dataset[:70]), pack.compress(big)]
    parts += [pack.compress(bytes(1 << 20)) for _ in range(600)]
    return b"".join(parts) + pack.flush()


@pytest.mark.parametrize("in_pixels", [False, True])
def test_a_deflate_bomb_is_refused_with_a_reason(node: Receiving, in_pixels: bool) -> None:
    with unharmed(node):
        assert store(node, 7, "1.2.3.700", bomb(in_pixels=in_pixels)) == 0xC000
    assert "becomes too large" in node.log()


def element(tag: int, vr: str, value: bytes) -> bytes:
    length = "<2xL" if vr in ("UN", "SQ") else "<H"
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + struct.pack(length, len(value)) + value


HEAD = element(0x00080016, "UI", CTImageStorage.encode() + b"\0") + element(0x00080018, "UI", b"1.2.9.1\0")
NEST = struct.pack("<HH2s2xL", 8, 0x1140, b"SQ", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
SHAPES = {
    "sequences 10,000 deep": HEAD + NEST * 10_000,
    "a length of 4 GB": HEAD + struct.pack("<HH2s2xL", 8, 0x1140, b"UN", 0xFFFFFFFE),
    "a UID of 70 kB": HEAD + element(0x0020000D, "UN", b"1." * 35_000),
    "a million elements": HEAD + NEST + element(0x00080005, "CS", b"") * 1_000_000,
    "delimiters alone": HEAD + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) * 1000,
    "nothing": b"\0\0",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_data_set_beyond_all_bounds_is_refused(node: Receiving, shape: str) -> None:
    with unharmed(node):
        assert store(node, 1, "1.2.9.1", SHAPES[shape]) == 0xC000


@pytest.mark.parametrize(
    "uid",
    ["/tmp/x", "../x", "..", "1.2.3\n2026 FORGED LINE", "ZZPATIENT^SECRET", "1" * 65, "1." * 35_000, "1..2"],
)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_what_is_no_uid_is_quarantined_and_quoted_nowhere(node: Receiving, uid: str, keyword: str) -> None:
    text = uid.encode()[:65_530]
    dataset = encode(ct(800, **{keyword: "1.2.77"}), False, True) or b""
    field = struct.pack("<H", 6) + b"1.2.77"
    assert dataset.count(field) == 1
    wrong = dataset.replace(field, struct.pack("<H", len(text) + len(text) % 2) + text + b"\0" * (len(text) % 2))
    before = sorted(path for path in node.folder.rglob("*") if "quarantine" not in path.parts)
    assert store(node, 1, uid if keyword == "SOPInstanceUID" else "1.2.3.800", wrong) == 0xC000
    assert sorted(path for path in node.folder.rglob("*") if "quarantine" not in path.parts) == before
    reasons = [path.read_text() for path in (node.config.storage.spool / "quarantine").glob("*.json")]
    for line in (node.log(), *reasons):
        assert "FORGED" not in line
        assert "SECRET" not in line


def test_leading_zeros_are_taken(node: Receiving) -> None:
    data = (encode(ct(900), False, True) or b"").replace(b"1.2.3.900", b"1.2.03.90")
    assert store(node, 1, "1.2.03.90", data) == 0x0000


def test_one_address_cannot_take_all_places(tmp_path: Path) -> None:
    node = Receiving(tmp_path / "node", node="max_associations = 5\nmax_associations_per_minute = 20")
    contexts = {1: (VERIFICATION, [ExplicitVRLittleEndian])}
    try:
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(raw.associated(node.port, contexts, calling="GREEDY"))
            with (
                pytest.raises(raw.RejectedError, match="2, 3, 2"),
                raw.associated(node.port, contexts, calling="OTHER"),
            ):
                pass
            other = socket.create_connection(("127.0.0.1", node.port), source_address=("127.0.0.2", 0), timeout=60)
            with stack.enter_context(other) as connection:
                assert raw.open_on(connection, contexts)
        with pytest.raises(raw.RejectedError, match="2, 3, 1"):
            for _ in range(100):
                with raw.associated(node.port, contexts):
                    pass
    finally:
        node.kill()
