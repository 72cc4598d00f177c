"""The console's process: HTTP and HTTPS, half requests, an address that is taken."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dicomnode.config import Config
from dicomnode.console import server
from dicomnode.errors import ConfigurationError
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port
from tests.helpers.waiting import until


@contextmanager
def served(node: Config, verify: ssl.SSLContext | bool = False, **values: object) -> Iterator[httpx.Client]:
    """The process' own work, in a thread."""
    console = node.console.model_copy(update={"port": free_port(), **values})
    node = node.model_copy(update={"console": console})
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run, node, stop)
        scheme = "http" if console.certificate is None else "https"
        client = httpx.Client(base_url=f"{scheme}://127.0.0.1:{console.port}", timeout=30, verify=verify)

        def answers() -> bool:
            assert not running.done(), running.exception()
            try:
                return client.get("/login").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until("the console answers", answers, 30)
            yield client
        finally:
            client.close()
            stop.set()
        running.result(30)


def test_it_answers_without_saying_what_it_is(node: Config, catalog: Catalog) -> None:
    with served(node) as client:
        answer = client.get("/login")
        assert "server" not in answer.headers and "Secure" not in answer.headers["set-cookie"]
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_by_https_cookies_are_secure(node: Config, catalog: Catalog, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    files = authority.files("console")
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    with served(node, trusted, certificate=files.certificate, key=files.key) as client:
        cookie = client.get("/login").headers["set-cookie"]
        assert cookie.startswith("__Host-dicomnode-login=") and "Secure" in cookie


@pytest.mark.parametrize("sent", [b"", b"GET /login HT", b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_half_a_request_is_not_waited_for(
    sent: bytes, node: Config, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_REQUEST_S", 0.2)
    with served(node) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), 30) as half:
            half.sendall(sent)
            assert half.recv(1) == b""
        assert client.get("/login").status_code == 200


def test_a_head_without_end_is_refused(node: Config, catalog: Catalog) -> None:
    with served(node) as client, socket.create_connection(("127.0.0.1", client.base_url.port or 0), 30) as long:
        long.sendall(b"GET /login HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert long.recv(12) == b"HTTP/1.1 400"


def test_an_address_that_is_taken_is_told(node: Config, catalog: Catalog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        console = node.console.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(ConfigurationError, match=r"\[console\] cannot listen"):
            server.run(node.model_copy(update={"console": console}), threading.Event())


def test_a_key_that_is_none_is_told(node: Config, catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    console = node.console.model_copy(
        update={"port": free_port(), "certificate": tmp_path / "no.pem", "key": tmp_path / "no.pem"}
    )
    with pytest.raises(ConfigurationError, match="cannot be used"):
        server.run(node.model_copy(update={"console": console}), threading.Event())
