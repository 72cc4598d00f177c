"""The console's login by a real OpenID provider (npm's oidc-provider), in Chromium.

Console and provider have different host names, so that the browser comes back from another site, as in a hospital.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomnode import config
from dicomnode.config import Config
from dicomnode.operations import checks, console_users
from dicomnode.store.catalog.catalog import Catalog
from tests.conftest import absent
from tests.helpers import browser
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import ROOT, MissingError
from tests.helpers.waiting import until
from tests.helpers.web import answers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROVIDER = ROOT / "build" / "oidc-provider"
SECRET = "of the test"


@dataclass(frozen=True)
class Running:
    config: Config
    console: str
    provider: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]) -> Iterator[Running]:
    if not (PROVIDER / "node_modules" / "oidc-provider").is_dir():
        absent(f"no oidc-provider in {PROVIDER}: make provider")
    folder, port, theirs = tmp_path_factory.mktemp("openid"), free_port(), free_port()
    console, provider = f"http://localhost:{port}", f"http://127.0.0.1:{theirs}"
    (folder / "ae_config.toml").write_text(f"""
[console]
enabled = true
port = {port}
[console.oidc]
issuer = "{provider}"
client_id = "dicomnode"
client_secret = "env:DICOMNODE_OIDC_SECRET"
public_url = "{console}"
label = "the clinic's account"
scopes = ["openid", "profile", "groups"]
roles = {{ "ct-otto" = "operator", "ct-rita" = "researcher" }}
local_users = false
[audit]
to = "file"
""")
    made = config.load(folder / "ae_config.toml")
    console_users.add(made, "lena", "administrator", "correct horse battery", time.time())  # and with her the catalogue
    # A module of node is looked for above the file that names it.
    (folder / "node_modules").symlink_to(PROVIDER / "node_modules")
    script = folder / "provider.mjs"
    script.write_bytes((ROOT / "tests/fixtures/oidc-provider/provider.mjs").read_bytes())
    commands = (
        [sys.executable, "-m", "dicomnode", "console", "serve", "--config", str(folder / "ae_config.toml")],
        [peer("node", "nodejs"), str(script), str(theirs), SECRET, f"{console}/login/provider/back"],
    )
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        for command in commands:
            environment = os.environ | {"DICOMNODE_OIDC_SECRET": SECRET}
            started = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
            stack.callback(started.wait, 30)
            stack.callback(started.terminate)
        until("the provider answers", lambda: answers(f"{provider}/.well-known/openid-configuration"), 30)
        until("the console answers", lambda: answers(f"{console}/login"), 30)
        yield Running(made, console, provider)


def log_in(chromium: "Browser", running: Running, name: str) -> "Page":
    """Log in at the provider's own pages, as somebody who was never there."""
    page = chromium.new_context().new_page()
    page.set_default_timeout(1000 * browser.PATIENCE_S)
    page.goto(running.console)
    assert page.get_by_label("Password").count() == 0
    page.get_by_role("link", name="Log in with the clinic's account").click()
    page.wait_for_url(f"{running.provider}/**")
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{running.console}/**")
    return page


def audited(running: Running) -> list[str]:
    catalog = Catalog.open(running.config.catalog_url, running.config.storage.state)
    try:
        return [one.xml for one in catalog.audit_waiting(1000)]
    finally:
        catalog.close()


def test_an_operator_logs_in_by_the_provider_and_out(
    running: Running, chromium: "Browser", monkeypatch: pytest.MonkeyPatch
) -> None:
    page = log_in(chromium, running, "otto")
    page.get_by_text("Log out").wait_for()
    assert page.url == f"{running.console}/"
    assert page.locator(".who .name").inner_text() == "otto operator"
    page.get_by_role("link", name="Peers").click()
    page.get_by_role("heading", name="Peers", exact=True).wait_for()
    cookies = {one["name"]: one for one in page.context.cookies(running.console)}
    assert cookies["dicomnode"]["sameSite"] == "Strict" and cookies["dicomnode"]["httpOnly"]
    assert "dicomnode-provider" not in cookies
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in with").wait_for()
    page.goto(f"{running.console}/peers")
    assert page.url == f"{running.console}/login"
    noted = [one for one in audited(running) if 'UserID="otto"' in one]
    assert "Login" in noted[0] and "Logout" in noted[-1]
    monkeypatch.setenv("DICOMNODE_OIDC_SECRET", SECRET)
    (told,) = list(checks._provider(running.config))
    assert told.ok, told.text


def test_who_has_no_role_is_told_so_and_noted(running: Running, chromium: "Browser") -> None:
    page = log_in(chromium, running, "nora")
    page.get_by_role("heading", name="You are not logged in").wait_for()
    assert page.get_by_text("nora has no role on this node").count() == 1
    page.goto(running.console)
    assert page.url == f"{running.console}/login"
    assert any('UserID="nora"' in one and "no role here" in one for one in audited(running))


def test_a_researcher_sees_pseudonyms_alone_and_axe_finds_nothing(running: Running, chromium: "Browser") -> None:
    page = log_in(chromium, running, "rita")
    page.get_by_text("Log out").wait_for()
    assert page.url == f"{running.console}/studies"
    page.goto(f"{running.console}/peers")
    page.get_by_role("heading", name="Not allowed").wait_for()
    try:
        script = browser.axe()
    except MissingError as error:
        absent(str(error))
    other = chromium.new_context().new_page()
    for path in ("/login", "/login/provider/back"):
        other.goto(running.console + path)
        assert browser.violations(other, script) == []


def test_a_code_that_the_provider_does_not_know_is_refused(running: Running, chromium: "Browser") -> None:
    page = chromium.new_context().new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto(f"{running.console}/login/provider")
    (asked,) = [url for url in sent if "/auth?" in url]
    state = asked.partition("state=")[2].partition("&")[0]
    page.goto(f"{running.console}/login/provider/back?code=guessed&state={state}&iss={running.provider}")
    assert "invalid_grant" in page.locator("main").inner_text()


def test_it_was_brought_as_it_was_tried() -> None:
    """What is fetched is named with its digest, and by the name of no registry."""
    lock = Path(ROOT / "tests/fixtures/oidc-provider/package-lock.json").read_text()
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/') and '"resolved"' not in lock
