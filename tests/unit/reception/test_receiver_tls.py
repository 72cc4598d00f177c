"""The receiver by TLS, in this process: its two ports, and callers that have to prove their AE title."""

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import AssociationRejectedError, ConfigurationError, PeerError, SpoolError
from dicomnode.network.association import Peer, echo, send
from dicomnode.network.identities import identity
from dicomnode.network.tls import Security, TlsFiles
from dicomnode.reception.receiver import PermittedCaller, Receiver, ReceiverSettings, admitting
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.helpers.certificates import Authority, fingerprint
from tests.helpers.ct_files import ct_series, write
from tests.helpers.waiting import until


class Listening:
    """A receiver with TLS; `plain` and `secured` are its ports."""

    def __init__(self, folder: Path, files: TlsFiles, **changes: object) -> None:
        self.catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
        settings = ReceiverSettings("NODE", "127.0.0.1", 0, minimum_free_bytes=0, tls_port=0, tls=files)
        self.receiver = Receiver(replace(settings, **changes), Spool(folder / "spool"), self.catalog)  # type: ignore[arg-type]
        self.receiver.start()
        self.secured, self.plain = self.receiver.ports[-1], self.receiver.ports[0]

    def peer(self, files: TlsFiles | None, calling: str = "SCANNER") -> Peer:
        security = None if files is None else Security(files)
        port = self.plain if files is None else self.secured
        return Peer("node", "NODE", "127.0.0.1", port, calling, 20, 20, 20, 20, security=security)

    def close(self) -> None:
        self.receiver.stop(0.0)
        self.catalog.close()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def ours(hospital: Authority) -> TlsFiles:
    return hospital.files("node")


@pytest.fixture(scope="module")
def scanner(hospital: Authority) -> TlsFiles:
    return hospital.files("scanner")


@pytest.fixture(scope="module")
def reader(hospital: Authority) -> TlsFiles:
    return hospital.files("reader")


@pytest.fixture
def listen(tmp_path: Path, ours: TlsFiles) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def start(**changes: object) -> Listening:
        made.append(Listening(tmp_path, ours, **changes))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_images_come_in_by_tls_and_without(listen: Callable[..., Listening], scanner: TlsFiles, tmp_path: Path) -> None:
    node = listen()
    images = write(ct_series(), tmp_path / "images")
    half = len(images) // 2
    assert len(send(node.peer(scanner), images[:half])) == half
    assert len(send(node.peer(None), images[half:])) == len(images) - half
    (study,) = node.catalog.studies(10)
    assert study.instances == len(images)


def test_the_plain_port_can_be_off(listen: Callable[..., Listening], scanner: TlsFiles) -> None:
    node = listen(plain=False)
    assert len(node.receiver.ports) == 1
    assert echo(node.peer(scanner)) > 0


def bound(*pairs: tuple[str, TlsFiles]) -> tuple[PermittedCaller, ...]:
    return tuple(PermittedCaller(title, "", (identity(fingerprint(files.certificate)),)) for title, files in pairs)


def test_a_caller_proves_its_title_by_its_own_certificate(
    listen: Callable[..., Listening], scanner: TlsFiles, reader: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    callers = (*bound(("SCANNER", scanner), ("READER", reader)), PermittedCaller("*", "127.0.0.0/8"))
    node = listen(callers=callers)
    assert echo(node.peer(scanner)) > 0
    assert echo(node.peer(reader, "READER")) > 0
    assert echo(node.peer(None, "ANYBODY")) > 0
    for files, calling in ((None, "SCANNER"), (reader, "SCANNER"), (scanner, "READER"), (None, "READER")):
        caplog.clear()
        with pytest.raises(AssociationRejectedError, match="does not know the calling AE title"):
            echo(node.peer(files, calling))
        assert f"does not prove {calling}" in caplog.text
    caplog.clear()
    with pytest.raises(AssociationRejectedError):
        echo(replace(listen(callers=bound(("SCANNER", scanner))).peer(scanner, "STRANGER")))
    assert "not in node.callers" in caplog.text


@pytest.mark.parametrize(
    ("calling", "shown", "expected"),
    [
        ("CT", {"CN:ct"}, True),
        ("CT ", {"CN:ct", "DNS:x"}, True),
        ("CT", {"DNS:ct.example"}, True),
        ("CT", set(), False),
        ("CT", {"CN:wild"}, False),
        ("CT", {"CN:ws"}, False),
        ("WS", {"CN:ws"}, True),
        ("WS", {"CN:ct"}, False),
        ("OTHER", {"CN:wild"}, True),
        ("OTHER", {"CN:ct"}, False),
        ("OTHER", set(), False),
    ],
)
def test_an_ae_title_with_certificates_is_nobody_elses(calling: str, shown: set[str], expected: bool) -> None:
    callers = [
        PermittedCaller("CT", "", (identity("CN:ct"), identity("DNS:CT.example"))),
        PermittedCaller("WS", "", (identity("CN:ws"),)),
        PermittedCaller("*", "192.0.2.0/24", (identity("CN:wild"),)),
    ]
    found = admitting(callers, calling, "192.0.2.1", frozenset(map(identity, shown)))
    assert (found is not None) == expected


def test_only_a_proved_caller_may_query(listen: Callable[..., Listening], scanner: TlsFiles, reader: TlsFiles) -> None:
    from pydicom.dataset import Dataset

    from dicomnode.network import find

    node = listen(queriers=bound(("READER", reader)))
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", ""
    found = find.find(node.peer(reader, "READER"), find.STUDY_ROOT_FIND, asked, within_s=20, most=10)
    assert not found.answers
    for files in (None, scanner):
        with pytest.raises(AssociationRejectedError, match="accepts none"):
            find.find(node.peer(files, "READER"), find.STUDY_ROOT_FIND, asked, within_s=20, most=10)


def test_who_is_refused_is_told_in_one_place(
    listen: Callable[..., Listening],
    ours: TlsFiles,
    scanner: TlsFiles,
    hospital: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = listen()
    foreign = replace(Authority(tmp_path / "foreign").files("scanner"), ca_file=hospital.certificate)

    def refused(words: str) -> None:
        until(words, lambda: f"TLS: refused 127.0.0.1: {words}" in caplog.text, 20)
        caplog.clear()

    with pytest.raises(PeerError):
        echo(node.peer(foreign))
    refused("its certificate comes from a CA that is not in tls.ca_file")
    with pytest.raises(PeerError):
        echo(replace(node.peer(None), port=node.secured))
    refused("it does not speak TLS on this port")
    with pytest.raises(PeerError, match="TLS"):
        echo(replace(node.peer(scanner), port=node.plain))
    refused("it speaks TLS on the port without")


def test_silent_clients_hold_nobody_up_and_are_cut_off(
    listen: Callable[..., Listening], scanner: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """Case 9, inside: clients that say nothing, half a greeting, or nothing behind the handshake."""
    node = listen(acse_timeout_s=1.0)
    with caplog.at_level(logging.INFO):
        silent = [socket.create_connection(("127.0.0.1", node.secured)) for _ in range(20)]
        for one in silent[10:]:
            one.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert echo(node.peer(scanner)) < 5
        for one in silent:
            one.settimeout(20)
            with closing(one):
                assert not one.recv(100) or one.recv(100) == b""
    until("their threads gone", lambda: not [t for t in threading.enumerate() if "process_request" in t.name], 20)


def test_probes_leave_no_line(listen: Callable[..., Listening], caplog: pytest.LogCaptureFixture) -> None:
    node = listen()
    for number in range(20):
        probe = socket.create_connection(("127.0.0.1", node.secured))
        if number % 2:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
        probe.close()
    until("their threads gone", lambda: not [t for t in threading.enumerate() if "process_request" in t.name], 20)
    assert [r for r in caplog.records if r.levelno >= logging.INFO] == []


def test_what_cannot_be_used_ends_the_start(tmp_path: Path, ours: TlsFiles) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Listening(tmp_path, replace(ours, key=tmp_path / "no.key"))
    busy = pytest.raises(SpoolError, match="change .node. host or tls_port")
    with socket.create_server(("127.0.0.1", 0)) as taken, busy:
        Listening(tmp_path, ours, tls_port=taken.getsockname()[1])
