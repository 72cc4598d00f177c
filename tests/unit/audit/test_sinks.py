"""Where audit messages go: framing, files that were cut off, servers that go away."""

import socket
import ssl
import struct
import threading
from pathlib import Path

import pytest

from dicomnode.audit.syslog import MOST_SILENT, FileSink, Outgoing, TlsSink, UdpSink, frame
from dicomnode.errors import PeerError
from tests.helpers.ports import free_port
from tests.helpers.syslog_server import make_certificates

ONE = Outgoing(7, 1_780_000_000.0, "<AuditMessage>Müller</AuditMessage>")


def test_a_message_is_one_of_rfc_5424() -> None:
    header, _, text = frame(ONE, "node 1").partition(b"\xef\xbb\xbf")
    priority, moment, host, program, _, message_id, data = header.split(b" ", 6)
    assert priority == b"<85>1"
    assert (moment, host, program, message_id) == (
        b"2026-05-28T20:26:40.000Z",
        b"node-1",
        b"dicomnode",
        b"DICOM+RFC3881",
    )
    assert data == b'[meta sequenceId="7"] '
    assert text.decode() == ONE.xml


def test_the_sequence_wraps_as_the_rfc_says() -> None:
    assert b'sequenceId="1"' in frame(Outgoing(2**31, 0, ""), "n")


def test_a_file_holds_one_message_a_line_and_its_last_line_is_mended(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "audit" / "audit.log", "n")
    assert sink.send([ONE, ONE]) == 2
    assert sink.path.stat().st_mode & 0o777 == 0o600
    with sink.path.open("ab") as file:
        file.write(b"<85>1 cut o")
    sink.send([ONE])
    lines = sink.path.read_bytes().split(b"\n")
    assert [line.endswith(b"</AuditMessage>") for line in lines] == [True, True, False, True, False]
    assert lines[-1] == b""


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    with pytest.raises(PeerError, match="check the disk"):
        FileSink(tmp_path / "audit" / "audit.log", "n").send([ONE])


def test_a_port_that_nobody_listens_on_keeps_the_datagrams() -> None:
    with pytest.raises(PeerError, match="refused"):
        UdpSink("127.0.0.1", free_port(), "n").send([ONE, ONE])


def test_a_server_that_resets_the_connection_has_taken_nothing() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def close_at_once() -> None:
        connection, _ = listener.accept()
        connection.close()

    thread = threading.Thread(target=close_at_once)
    thread.start()
    port = listener.getsockname()[1]
    with pytest.raises(PeerError, match="TLS"):
        TlsSink("127.0.0.1", port, None, None, None, 5, "n").send([ONE])
    thread.join()
    listener.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "tls")
    return tmp_path / "tls"


@pytest.mark.parametrize("reads_all", [True, False])
def test_a_batch_counts_when_the_server_has_read_it_all(certificates: Path, *, reads_all: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "peer.pem", certificates / "peer.key")
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve() -> None:
        raw, _ = listener.accept()
        with context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=True) as connection:
            if not reads_all:
                # What lies unread when a process dies makes its system reset the connection.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            while data := connection.recv(65_536):
                got.append(data)
            connection.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    sink = TlsSink("127.0.0.1", port, certificates / "ca.pem", None, None, 10, "n")
    if reads_all:
        assert sink.send([ONE] * 50) == 50
        content = b"".join(got)
        assert content == b"".join(b"%d %s" % (len(f), f) for f in [frame(ONE, "n")] * 50)
    else:
        with pytest.raises(PeerError):
            sink.send([ONE] * 2_000)
    thread.join()
    listener.close()


def test_a_server_that_closes_without_a_word_is_sent_the_batch_again(certificates: Path) -> None:
    """It may have dropped what it read; one that never says anything is believed in the end, and from then on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "peer.pem", certificates / "peer.key")
    listener = socket.create_server(("127.0.0.1", 0))
    polite = [False, False, True, *[False] * MOST_SILENT, False, True]
    came: list[bool] = []

    def serve() -> None:
        for says_so in polite:
            raw, _ = listener.accept()
            with context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=True) as connection:
                while connection.recv(65_536):
                    pass
                came.append(says_so)
                if says_so:
                    connection.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    sink = TlsSink("127.0.0.1", listener.getsockname()[1], certificates / "ca.pem", None, None, 10, "n")
    after = []
    for _ in range(4):
        assert sink.send([ONE]) == 1
        after.append(len(came))
    assert after == [3, 3 + MOST_SILENT, 4 + MOST_SILENT, 5 + MOST_SILENT]
    thread.join()
    listener.close()


def test_a_server_that_hangs_up_before_tls_is_told_of(certificates: Path) -> None:
    """As one does that speaks plain syslog, or has no place for us."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        sink = TlsSink("127.0.0.1", listener.getsockname()[1], certificates / "ca.pem", None, None, 10, "n")
        with pytest.raises(PeerError, match="closed the connection before TLS had begun|reset by peer"):
            sink.check()
        thread.join()
