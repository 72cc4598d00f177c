"""A message over MLLP against a receiver that answers as the test says: stored, passing, or for good."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import mllp
from dicomnode.network.tls import Security
from tests.helpers.certificates import Authority
from tests.helpers.outward_servers import MllpReceiver

MESSAGE = b"MSH|^~\\&|A||B||20260102||ORU^R01^ORU_R01|N1|P|2.5.1\rPID|1||PAT-0001\r"


def server(port: int, timeout_s: float = 2, security: Security | None = None) -> mllp.MllpServer:
    return mllp.MllpServer("ris", "127.0.0.1", port, security, timeout_s)


def send(port: int, timeout_s: float = 2) -> None:
    mllp.exchange(server(port, timeout_s), MESSAGE, "N1")


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which the first caller is talked to."""

    def serve(listening: socket.socket) -> None:
        try:
            caller, _ = listening.accept()
            with caller:
                talk(caller)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]


def acknowledging(code: str, error: str = "") -> MllpReceiver:
    receiver = MllpReceiver()
    receiver.acknowledges = lambda _message: (code, error)
    return receiver.start()


@pytest.mark.parametrize(
    ("code", "error", "kind"),
    [
        ("AA", "", None),
        ("CA", "", None),
        ("AE", "", PeerError),
        ("CE", "", PeerError),
        ("AE", "206", PeerError),
        ("AE", "207", PeerError),
        ("AE", "101", PeerRejectedError),
        ("AE", "204", PeerRejectedError),
        ("AR", "", PeerRejectedError),
        ("CR", "", PeerRejectedError),
        ("AR", "200", PeerRejectedError),
        ("AR", "207", PeerError),
        ("XX", "", PeerError),
        ("", "", PeerError),
    ],
)
def test_what_is_acknowledged(code: str, error: str, kind: type[Exception] | None) -> None:
    receiver = acknowledging(code, error)
    try:
        if kind is None:
            return send(receiver.port)
        with pytest.raises(kind) as caught:
            send(receiver.port)
        assert type(caught.value) is kind
        assert "words" not in str(caught.value)
    finally:
        receiver.stop()


def test_the_older_place_of_an_error_code() -> None:
    answer = b"\x0bMSH|^~\\&|R\rMSA|AE|N1\rERR|PID^1^3^101&Required&HL70357\r\x1c\r"
    with talking(lambda c: c.sendall(answer)) as port, pytest.raises(PeerRejectedError, match="error 101"):
        send(port)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"\x0bMSH|^~\\&|R\rMSA|AA|OTHER\r\x1c\r", "acknowledged another message"),
        (b"\x0bMSH|^~\\&|R\r\x1c\r", "no acknowledgement"),
        (b"\x0b\x1c\r", "no acknowledgement"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\x1c", "no acknowledgement"),
        (b"\x0bMSH\x1c", "no acknowledgement"),
        (b"\x0bMSA|AA|N1\r\x1c\r", "no acknowledgement"),
        (b"\xff\xfe\x1c", "no acknowledgement"),
        (b"", "closed the connection"),
        (b"\x0bMSH|^~\\&|R\rMSA|AA|N1", "closed the connection"),
        (b"a" * 70_000, "more than 64 kB"),
    ],
)
def test_what_is_no_acknowledgement(answer: bytes, match: str) -> None:
    def talk(caller: socket.socket) -> None:
        caller.recv(4096)
        caller.sendall(answer)

    with talking(talk) as port, pytest.raises(PeerError, match=match):
        send(port)


def test_a_receiver_that_drips_is_left() -> None:
    def drip(caller: socket.socket) -> None:
        while True:
            caller.sendall(b"M")
            time.sleep(0.05)

    started = time.monotonic()
    with talking(drip) as port, pytest.raises(PeerError, match="did not finish its acknowledgement within 1 s"):
        send(port, 0.5)
    assert time.monotonic() - started < 20


def test_a_silent_receiver_and_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(PeerError, match="did not acknowledge within 0.3 s"):
            send(port, 0.3)
        assert mllp.echo(server(port)) > 0
    with pytest.raises(PeerError, match="no connection"):
        send(port)


def test_by_tls_both_prove_who_they_are(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    files = ours.files("ris")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours.certificate))
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = MllpReceiver(context=context).start()
    mllp.exchange(server(receiver.port, 5, Security(ours.files("node"))), MESSAGE, "N1")
    assert list(receiver.held) == ["N1"]
    for security in (None, Security(other.files("stranger"))):
        with pytest.raises(PeerError):
            mllp.exchange(server(receiver.port, 5, security), MESSAGE, "N1")
    assert receiver.came == ["N1"]
    receiver.stop()
