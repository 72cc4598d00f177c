"""The server of web pages: what a caller could make grow, or keep, has an end."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dicomnode.errors import ConfigurationError
from dicomnode.network import web
from dicomnode.network.tls import page_context
from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port
from tests.helpers.waiting import until
from tests.helpers.web import serving


def _page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("a page\n")


def _long_page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("a long page\n" * 400_000)


async def _form(request: Request) -> PlainTextResponse:
    with suppress(ClientDisconnect):
        await request.body()
    return PlainTextResponse("a form\n")


@pytest.fixture
def ticks() -> list[float]:
    return []


@pytest.fixture
def client(ticks: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(web, "_REQUEST_S", 0.2)
    port = free_port()

    def run(stop: threading.Event) -> None:
        with web.listen(web.WebAddress("pages", "127.0.0.1", port, "port = 0")) as listener:
            form = Route("/", _form, methods=["POST"])
            pages = Starlette(routes=[Route("/", _page, methods=["GET"]), form, Route("/long", _long_page)])
            web.serve(pages, listener, stop, most_connections=20, tick=lambda: ticks.append(time.monotonic()))

    with serving(run, f"http://127.0.0.1:{port}", "/") as found:
        yield found


def _connected(client: httpx.Client, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.base_url.port or 0), 30, (source, 0))


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1 << 20) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_half_a_request_is_not_waited_for(sent: bytes, client: httpx.Client) -> None:
    with _connected(client) as half:
        half.sendall(sent)
        assert half.recv(1) == b""
    assert client.get("/").status_code == 200


def test_a_head_without_end_is_refused(client: httpx.Client) -> None:
    with _connected(client) as long:
        long.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert long.recv(12) == b"HTTP/1.1 400"


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/", headers={"Connection": "close"}).status_code == 200
    except httpx.TransportError:
        return False


SLOW_FORM = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
#: Its answers are not read.
MANY = 20 * b"GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", SLOW_FORM, MANY])
def test_who_keeps_places_loses_them_to_others(
    sent: bytes, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_REQUEST_S", 3600.0)
    with ExitStack() as opened:
        honest = opened.enter_context(_connected(client, "127.0.0.2"))
        kept = []
        for _ in range(30):
            kept.append(opened.enter_context(_connected(client)))
            kept[-1].sendall(sent)
            until("others are answered", lambda: _answers(client), 10)
        until("no more than 20 stay", lambda: sum(map(_is_open, kept)) <= 18, 30)
        honest.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert honest.recv(12) == b"HTTP/1.1 200"


def test_who_does_not_shake_hands_keeps_no_place(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    port = free_port()

    def run(stop: threading.Event) -> None:
        with web.listen(web.WebAddress("pages", "127.0.0.1", port, "port = 0")) as listener:
            pages = Starlette(routes=[Route("/", _page)])
            context = page_context(authority.files("pages"), "pages")
            web.serve(pages, listener, stop, most_connections=20, tls=context)

    with serving(run, f"https://127.0.0.1:{port}", "/", trusted) as client, ExitStack() as opened:
        honest = opened.enter_context(_connected(client, "127.0.0.2"))
        silent = [opened.enter_context(_connected(client)) for _ in range(60)]
        until("no more than 20 stay", lambda: sum(map(_is_open, silent)) < 20, 30)
        with trusted.wrap_socket(honest, server_hostname="127.0.0.1") as connection:
            assert connection.version() == "TLSv1.3"
        assert _answers(client)


def test_it_does_not_say_what_it_is_and_ticks(client: httpx.Client, ticks: list[float]) -> None:
    assert "server" not in client.get("/").headers
    until("it ticks", lambda: bool(ticks), 10)


def test_an_address_that_is_taken_is_told_with_its_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = rf"\[pages\] cannot listen on 127.0.0.1:{port}: .*; change host or port, or give port = 0"
        with pytest.raises(ConfigurationError, match=told):
            web.listen(web.WebAddress("pages", "127.0.0.1", port, "port = 0"))
