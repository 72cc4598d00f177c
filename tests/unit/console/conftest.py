"""A node with two studies whose words are hostile, its console, and a browser for each role."""

import asyncio
import html
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dbos import run_dbos_database_migrations
from starlette.types import ASGIApp

from dicomnode import config
from dicomnode.audit import trail
from dicomnode.config import Config
from dicomnode.console.application import application
from dicomnode.console.roles import ROLES
from dicomnode.console.site import ConsoleSite
from dicomnode.operations import passwords
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.records import Instance

STUDY, OTHER = "1.2.840.99.1", "1.2.840.99.22"
PATIENT, DESCRIPTION, REASON = '<script>alert("p")</script>', "<img src=x onerror=alert(1)>", "<b>reason</b>'\""
PASSWORD = "correct horse battery"
URL = "http://127.0.0.1:8480"


class InProcess(httpx.BaseTransport):
    """Asks an ASGI application without a server."""

    def __init__(self, application: ASGIApp) -> None:
        self._inner = httpx.ASGITransport(application, client=("10.9.9.9", 1))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            answer = await self._inner.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(ask())


def client(application: ASGIApp, url: str = URL) -> httpx.Client:
    return httpx.Client(transport=InProcess(application), base_url=url, follow_redirects=False)


class Browser:
    """As a person uses it: forms bring what stands in them."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def token(self, path: str) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.get(path).text)
        assert found is not None, path
        return found[1]

    def post(self, path: str, form: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        given = {"csrf": self.token("/studies"), **(form or {})}
        return self.client.post(path, data=given, **more)

    def log_in(self, name: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
        form = {"name": name, "password": password, "csrf": self.token("/login")}
        return self.client.post("/login", data=form, **more)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """The hash that costs 64 MiB on purpose has its own test."""
    usual, passwords._hasher = passwords._hasher, passwords.PasswordHasher(1, 64, 1)
    yield
    passwords._hasher = usual
    passwords._nobody.clear()


WRITTEN = """
[node]
port = 1
[storage]
minimum_free_gb = 0.001
[audit]
to = "file"
[console]
enabled = true
[[profile]]
name = "thin"
radiomics = false
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
"""


def load(folder: Path) -> Config:
    (folder / "ae_config.toml").write_text(WRITTEN)
    return config.load(folder / "ae_config.toml")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, quick_passwords: None) -> Path:
    """The state of a node, made once: migrations of two databases take a second."""
    made = load(tmp_path_factory.mktemp("console"))
    made.storage.state.mkdir(parents=True)
    catalog = Catalog.open(made.catalog_url, made.storage.state)
    run_dbos_database_migrations(made.queue_url)
    for at, study_uid in ((100.0, STUDY), (200.0, OTHER)):
        uid = f"{study_uid}.1"
        catalog.record(Instance(uid, "1.9", study_uid, f"{study_uid}.7", f"/x/{uid}", "0" * 64, 1, at, None, "a" * 32))
        catalog.settle(study_uid, at + 10, held=None)
        label = Label(PATIENT, "ISS", f"ACC{at:.0f}", "20260102", DESCRIPTION)
        catalog.note_label(Unlabelled(study_uid, 1, at, None), label)
    catalog.set_state(STUDY, 1, "failed", REASON, now=120.0)
    for role in ROLES:
        catalog.add_console_user(role, role, passwords.hashed(PASSWORD), 1.0)
    catalog.close()
    return made.storage.state


@pytest.fixture
def node(tmp_path: Path, prepared: Path) -> Config:
    made = load(tmp_path)
    for folder in (made.storage.spool, made.storage.results):
        folder.mkdir(parents=True)
    shutil.copytree(prepared, made.storage.state)
    return made


@pytest.fixture
def catalog(node: Config) -> Iterator[Catalog]:
    opened = Catalog.open(node.catalog_url, node.storage.state)
    yield opened
    opened.close()


@pytest.fixture
def site(node: Config, catalog: Catalog) -> Iterator[ConsoleSite]:
    opened = ConsoleSite(node)
    yield opened
    opened.close()
    assert trail.source() is None


@pytest.fixture
def anybody(site: ConsoleSite) -> Iterator[Callable[[], Browser]]:
    """A browser in which nobody is logged in."""
    clients: list[httpx.Client] = []

    def make() -> Browser:
        clients.append(client(application(site)))
        return Browser(clients[-1])

    yield make
    for one in clients:
        one.close()


@pytest.fixture
def logged_in(anybody: Callable[[], Browser]) -> Callable[[str], Browser]:
    """The browser of somebody in a role, whose name is the role's."""

    def make(role: str) -> Browser:
        browser = anybody()
        answer = browser.log_in(role)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), html.unescape(answer.text)
        return browser

    return make
