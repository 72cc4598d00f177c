"""The console in Chromium, before a running node: every page and the actions, as each role, looked at by axe-core."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from dicomnode.operations import console_users
from dicomnode.operations.looking import Pages
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.overview import Wanted
from tests.conftest import absent
from tests.faults.studies import make_study, study_uid
from tests.helpers import browser
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import MissingError
from tests.helpers.rich_findings import write_findings
from tests.helpers.running import Node, storescu_process
from tests.helpers.waiting import until
from tests.helpers.web import answers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ColorScheme, Page

SCAN = "chest_tiny_cip/ct-64Dicom"
PASSWORD = "correct horse battery"
ROLES = ("reader", "operator", "administrator", "researcher")
READER = ["Now", "Studies", "Worklist", "Model"]
LINKS = {
    "reader": READER,
    "operator": [*READER, "Peers", "Rules"],
    "administrator": [*READER, "Peers", "Rules", "Configuration"],
    "researcher": ["Studies", "Model"],
}
WIDTHS = (1280, 390)


@dataclass
class Running:
    """A node with two refused studies, the report of which cannot be delivered; and where its console is."""

    node: Node
    url: str
    studies: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: Path, peer: Callable[[str, str], str]) -> Iterator[Running]:
    storescu, port = peer("storescu", "dcmtk"), free_port()
    tables = f"""
[console]
enabled = true
port = {port}
[audit]
to = "file"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {free_port()}
refused_report = true
retry_first_s = 600
"""
    folder = tmp_path_factory.mktemp("console")
    node = Node(folder / "node", tables, "radiomics = false\n")
    added = dicomnode_with_input("console", "user", "add", "reader", "--role", "reader", "--config", node.config_path)
    assert "may log in as reader" in added
    for role in ROLES[1:]:
        console_users.add(node.config, role, role, PASSWORD, time.time())
    node.start()
    found = Running(node, f"http://127.0.0.1:{port}")
    try:
        for name in ("first", "second"):
            make_study(data / SCAN, folder / name, name, 30)
            assert storescu_process(storescu, node.port, folder / name).returncode == 0
            found.studies.append(study_uid(name))
        for uid in found.studies:
            assert node.ended(uid) == "refused"
        write_findings(node.config, found.studies[1])
        until("the console answers", lambda: answers(f"{found.url}/login"), 30)
        until("whose the studies are is known", lambda: labelled(node), 30)
        yield found
    finally:
        node.stop()


def labelled(node: Node) -> bool:
    with Pages(node.config) as pages:
        return all(row["patient_id"] for row in pages.rows(Wanted(), identify=True))


def dicomnode_with_input(*arguments: str | Path) -> str:
    """The command line, with the password on its standard input: never among its arguments."""
    command = [sys.executable, "-m", "dicomnode", *map(str, arguments)]
    return subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def axe() -> str:
    try:
        return browser.axe()
    except MissingError as error:
        absent(str(error))


class Person:
    """Somebody in a role, at a browser; what goes wrong there is noted."""

    def __init__(
        self, chromium: "Browser", running: Running, role: str, width: int = 1280, scheme: "ColorScheme" = "light"
    ) -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(1000 * browser.PATIENCE_S)
        self.url, self.faults, self.asked = running.url, list[str](), list[str]()
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{running.url}/")
        self.page.get_by_label("Name").fill(role)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_text("Log out").wait_for()

    def look(self, axe: str, name: str, pictures: Path | None) -> list[str]:
        """What is wrong with the page that is shown, beside what was noted."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        found = [f"{self.page.url}: wider than the window by {wide}"] if wide > 0 else []
        if pictures is not None:
            self.page.screenshot(path=pictures / f"{name}.png", full_page=True)
        return found + browser.violations(self.page, axe)

    def end(self, running: Running) -> None:
        """Nothing came from elsewhere, no address names a patient or a study, and the browser had no complaint."""
        assert self.faults == []
        assert {urlsplit(one).netloc for one in self.asked} == {urlsplit(self.url).netloc}
        telling = [*running.studies, "TEST-"]
        assert not [one for one in self.asked if any(word in one for word in telling)]
        self.context.close()


def pictures_folder() -> Path | None:
    """Where the pictures of the pages go, for a person to look at: DICOMNODE_PICTURES."""
    given = os.environ.get("DICOMNODE_PICTURES")
    return Path(given) if given else None


@pytest.mark.parametrize(
    ("role", "width", "scheme"),
    [
        ("reader", 390, "dark"),
        ("operator", 1280, "light"),
        ("administrator", 1280, "dark"),
        ("researcher", 390, "light"),
    ],
)
def test_each_role_sees_its_pages_and_axe_finds_nothing_serious(
    role: str, width: int, scheme: "ColorScheme", running: Running, chromium: "Browser", axe: str
) -> None:
    pictures, faults = pictures_folder(), list[str]()
    person = Person(chromium, running, role, width, scheme)
    page = person.page

    def look(name: str) -> None:
        faults.extend(person.look(axe, f"{role}-{width}-{scheme}-{name}", pictures))

    shown = page.get_by_role("navigation", name="Pages").get_by_role("link")
    until("the pages of the role", lambda: shown.all_inner_texts() == LINKS[role], 30)
    for link in LINKS[role]:
        page.get_by_role("link", name=link, exact=True).click()
        page.get_by_role("heading", level=1).wait_for()
        look(link.lower())
    page.get_by_role("link", name="Studies", exact=True).click()
    page.wait_for_load_state()
    # The newest comes first: it is the one with findings.
    page.get_by_role("table").get_by_role("link").first.click()
    page.get_by_role("heading", name="Numbers").wait_for()
    words = page.inner_text("main")
    assert "12 %" in words and "4321" in words
    if role == "researcher":
        assert not re.search(r"TEST-|20260102|2\.25\.|the thinnest", page.content())
    else:
        assert "TEST-second" in words and "the thinnest" in words and study_uid("second") in words
    look("study")
    actions = page.get_by_role("navigation", name="Actions").get_by_role("link")
    page.wait_for_load_state()
    names = actions.all_inner_texts()
    assert bool(names) == (role in ("operator", "administrator"))
    for name in names if role == "operator" else []:
        page.get_by_role("navigation", name="Actions").get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=f"{name}?").wait_for()
        look(f"confirm-{name.lower().replace(' ', '-')}")
        page.get_by_role("link", name="Do nothing").click()
        page.get_by_role("heading", name="Timeline").wait_for()
    assert faults == []
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    look("login")
    assert faults == []
    person.end(running)


def test_an_operator_tests_a_peer_and_tries_the_rules(running: Running, chromium: "Browser") -> None:
    person = Person(chromium, running, "operator")
    page = person.page
    page.get_by_role("link", name="Peers", exact=True).click()
    page.get_by_role("button", name="Test destination pacs").click()
    page.get_by_role("heading", name="destination pacs does not answer as it should").wait_for()
    page.get_by_role("link", name="Back to the peers").click()
    page.get_by_role("heading", name="Peers", exact=True).wait_for()
    page.wait_for_load_state()
    assert "never" not in page.inner_text("main")
    page.get_by_role("link", name="Rules", exact=True).click()
    page.get_by_label("Attributes, a line each").fill("Modality = CT")
    page.get_by_role("button", name="Try").click()
    page.get_by_text("no rules configured").wait_for()
    page.get_by_role("link", name="Studies", exact=True).click()
    page.get_by_role("table").get_by_role("link").first.click()
    page.get_by_role("heading", name="Log", exact=True).wait_for()
    page.wait_for_load_state()
    assert "settled as generation 1" in page.inner_text("main")
    page.get_by_role("link", name="Try the rules").click()
    page.get_by_role("heading", name="What the rules would decide now").wait_for()
    person.end(running)


def test_an_operator_searches_acts_and_sees_it_live(running: Running, chromium: "Browser") -> None:
    person = Person(chromium, running, "operator")
    page = person.page
    page.get_by_role("button", name=re.compile("Theme")).click()
    page.get_by_role("button", name=re.compile("Theme")).click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    wall = person.context.new_page()
    wall.goto(f"{running.url}/")
    wall.get_by_role("heading", name="Studies by state").wait_for()
    assert wall.locator('a[href="/studies?state=cancelled"]').inner_text().split() == ["cancelled", "0"]
    page.get_by_role("link", name="Studies", exact=True).click()
    page.get_by_label("Patient ID").fill("TEST-first")
    page.get_by_role("button", name="Search").click()
    rows = page.get_by_role("table").get_by_role("link")
    until("what was searched for", lambda: rows.all_inner_texts() == ["TEST-first"], 30)
    rows.click()
    for action in ("Retry", "Drop images"):
        page.get_by_role("navigation", name="Actions").get_by_role("link", name=action, exact=True).click()
        page.get_by_role("button", name=action).click()
        page.get_by_role("heading", name=f"{action}: done").wait_for()
        running.node.ended(running.studies[0])
        page.get_by_role("link", name="Back to the study").click()
        page.get_by_role("heading", name="Timeline").wait_for()
    page.wait_for_load_state()
    assert "retried manually" in page.inner_text("main")
    catalog = Catalog.open(running.node.config.catalog_url, running.node.config.storage.state)
    catalog.set_state(running.studies[1], 1, "cancelled", now=time.time())
    catalog.close()
    # Without a reload: the page looks by itself.
    shown = wall.locator('a[href="/studies?state=cancelled"]')
    until("the wall shows it", lambda: shown.inner_text().split() == ["cancelled", "1"], 30)
    wall.close()
    person.end(running)
    kept = running.node.folder / "var" / "audit" / "audit.log"
    until("the audit trail has it", lambda: "dicomnode jobs drop" in kept.read_text("utf-8"), 30)
    told = kept.read_text("utf-8")
    assert 'UserID="operator (console)"' in told and "User Authentication" in told
    log = running.node.log()
    assert "TEST-" not in log and PASSWORD not in log and "Traceback" not in log
