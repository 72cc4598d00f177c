"""The console's process: HTTP and HTTPS, half requests, an address that is taken."""

import socket
import ssl
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from dicomnode.config import Config
from dicomnode.console import server
from dicomnode.errors import ConfigurationError
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers import web
from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port


def served(
    node: Config, verify: ssl.SSLContext | bool = False, **values: object
) -> AbstractContextManager[httpx.Client]:
    """The process' own work, in a thread."""
    console = node.console.model_copy(update={"port": free_port(), **values})
    node = node.model_copy(update={"console": console})
    scheme = "http" if console.certificate is None else "https"
    return web.serving(lambda stop: server.run(node, stop), f"{scheme}://127.0.0.1:{console.port}", "/login", verify)


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


def test_an_address_that_is_taken_is_told(node: Config, catalog: Catalog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        console = node.console.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(ConfigurationError, match=r"\[console\] cannot listen"):
            server.run(node.model_copy(update={"console": console}), threading.Event())


def test_https_is_that_of_dicom(node: Config, catalog: Catalog, tmp_path: Path) -> None:
    """Old ciphers are refused, and a new certificate counts from the next connection on."""
    authority = Authority(tmp_path / "ca")
    files = authority.files("console")
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    old = ssl.create_default_context(cafile=str(authority.certificate))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ECDHE-ECDSA-AES256-SHA384")

    def shown(context: ssl.SSLContext = trusted) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", client.base_url.port or 0), 30) as near,
            context.wrap_socket(near, server_hostname="localhost") as connection,
        ):
            certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    with served(node, trusted, certificate=files.certificate, key=files.key) as client:
        with pytest.raises(ssl.SSLError):
            shown(old)
        first = shown()
        new = authority.files("new")
        files.certificate.write_bytes(new.certificate.read_bytes())
        assert shown() == first  # the key is not its own yet
        files.key.write_bytes(new.key.read_bytes())
        assert shown() == ssl.PEM_cert_to_DER_cert(new.certificate.read_text()) != first


@pytest.mark.parametrize(
    ("written", "told"),
    [("nothing", "no PEM pair"), (None, r"cannot be read \(No such file.*correct the path in \[console\]")],
)
def test_a_key_that_is_none_is_told(
    written: str | None, told: str, node: Config, catalog: Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "no.pem"
    if written is not None:
        path.write_text(written)
    console = node.console.model_copy(update={"port": free_port(), "certificate": path, "key": path})
    with pytest.raises(ConfigurationError, match=told):
        server.run(node.model_copy(update={"console": console}), threading.Event())
