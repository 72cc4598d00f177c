"""The server of web pages: what a caller could make grow, or keep, has an end."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dicomnode.errors import ConfigurationError
from dicomnode.network import web
from tests.helpers.ports import free_port
from tests.helpers.waiting import until
from tests.helpers.web import serving


def _page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("a page\n")


@pytest.fixture
def ticks() -> list[float]:
    return []


@pytest.fixture
def client(ticks: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(web, "_REQUEST_S", 0.2)
    port = free_port()

    def run(stop: threading.Event) -> None:
        with web.listen(web.WebAddress("pages", "127.0.0.1", port, "port = 0")) as listener:
            pages = Starlette(routes=[Route("/", _page)])
            web.serve(pages, listener, stop, most_connections=20, tick=lambda: ticks.append(time.monotonic()))

    with serving(run, f"http://127.0.0.1:{port}", "/") as found:
        yield found


def _connected(client: httpx.Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.base_url.port or 0), 30)


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


def test_it_does_not_say_what_it_is_and_ticks(client: httpx.Client, ticks: list[float]) -> None:
    assert "server" not in client.get("/").headers
    until("it ticks", lambda: bool(ticks), 10)


def test_an_address_that_is_taken_is_told_with_its_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = rf"\[pages\] cannot listen on 127.0.0.1:{port}: .*; change host or port, or give port = 0"
        with pytest.raises(ConfigurationError, match=told):
            web.listen(web.WebAddress("pages", "127.0.0.1", port, "port = 0"))
