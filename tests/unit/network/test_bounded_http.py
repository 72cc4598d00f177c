"""An HTTP server may answer what it likes: the caller is bounded in memory and time, and learns what was wrong."""

import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from dicomnode.config import NotifyTable
from dicomnode.errors import PeerError
from dicomnode.network.bounded_http import MOST_BYTES, HttpAnswer, ask
from dicomnode.outbound.notify import mail
from tests.helpers.web import http_client

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """What `talk` says to each caller, on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    with caller, suppress(OSError):
                        talk(caller)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def said(talk: Callable[[socket.socket], None], timeout_s: float = 5.0) -> HttpAnswer:
    def heard(caller: socket.socket) -> None:
        caller.recv(65536)
        talk(caller)

    with server(heard) as port, http_client("", timeout=timeout_s) as client:
        return ask(client, "POST", f"http://127.0.0.1:{port}/", "archive", timeout_s, content=b"x")


def forever(piece: bytes, pause_s: float = 0.0) -> Callable[[socket.socket], None]:
    def talk(caller: socket.socket) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            caller.sendall(piece)
            time.sleep(pause_s)

    return talk


def test_an_answer_without_end_is_cut() -> None:
    def talk(caller: socket.socket) -> None:
        caller.sendall(OK + b"\r\n")
        forever(b" " * 65536)(caller)

    with pytest.raises(PeerError, match="more than 1 MB"):
        said(talk)


def test_a_packed_answer_is_unpacked_to_a_bound() -> None:
    packed = zlib.compress(bytes(100 << 20), 9)
    with pytest.raises(PeerError, match="more than 1 MB"):
        said(lambda c: c.sendall(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed))
    small = zlib.compress(b"[]")
    answer = said(
        lambda c: c.sendall(OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(small) + small)
    )
    assert answer.content == b"[]"
    assert MOST_BYTES == 1 << 20


@pytest.mark.parametrize("head", [b"", OK, OK + b"Content-Length: 100000\r\n\r\n"], ids=["status", "header", "body"])
def test_a_slow_drip_ends_when_the_time_is_over(head: bytes) -> None:
    def talk(caller: socket.socket) -> None:
        caller.sendall(head)
        forever(b"a", 0.05)(caller)

    started = time.monotonic()
    with pytest.raises(PeerError, match="did not finish its answer within 1 s"):
        said(talk, timeout_s=0.5)
    assert time.monotonic() - started < 8


def test_what_is_no_http_is_told() -> None:
    with pytest.raises(PeerError, match="not HTTP"):
        said(lambda c: c.sendall(b"SSH-2.0-x\r\n\r\n"))


def notify(port: int, security: str = "none") -> NotifyTable:
    return NotifyTable.model_validate(
        {
            "name": "it",
            "kind": "email",
            "events": ("failed",),
            "to": ("a@b.example",),
            "sender": "n@b.example",
            "server": f"127.0.0.1:{port}",
            "security": security,
            "timeout_s": 0.3,
        }
    )


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_mail_server_that_drips_is_left(security: str) -> None:
    with server(forever(b"2", 0.05)) as port:
        started = time.monotonic()
        with pytest.raises(Exception, match="mail server") as failure:
            mail.reachable(notify(port, security))
        assert time.monotonic() - started < 10
        assert not isinstance(failure.value, ssl.SSLError)


def test_a_mail_server_that_does_not_stop_talking_is_left() -> None:
    with server(forever(b"220-hello\r\n" * 1000)) as port, pytest.raises(PeerError, match="mail server"):
        mail.reachable(notify(port))
