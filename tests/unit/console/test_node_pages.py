"""Model, peers, rules and worklist: what the pages show of the node around a study."""

import html
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode import config
from dicomnode.config import WorklistTable
from dicomnode.console import model_page, rules_page
from dicomnode.console.site import ConsoleSite
from dicomnode.errors import UsageError
from dicomnode.logs.kept import KeptLines
from dicomnode.operations import peer_tests
from dicomnode.operations.peer_tests import CheckResult
from dicomnode.outbound.peers import KnownPeer
from tests.conftest import ROOT
from tests.unit.console.conftest import STUDY, Browser

LogIn = Callable[[str], Browser]


def test_the_card_of_the_shipped_bundle() -> None:
    card = model_page.card(ROOT / "weights", "demo-synthetic")
    assert card.is_demo and ("intended use", "synthetic-demo") in card.facts
    assert card.limits and "For demonstration only" in card.card


@pytest.mark.parametrize("content", ["", "[", "population = 3", 'name = "x"\n[population]\n', "a" + "[" * 3000])
def test_a_bundle_that_cannot_be_read_is_said_to_be_so(
    content: str, site: ConsoleSite, logged_in: LogIn, tmp_path: Path
) -> None:
    folder = tmp_path / "weights" / "<b>odd"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(content)
    table = site.config.analysis.model_copy(update={"weights": tmp_path / "weights", "bundle": "<b>odd"})
    site.config = site.config.model_copy(update={"analysis": table})
    answer = logged_in("researcher").get("/model")
    assert answer.status_code == 200 and "<b>odd" not in answer.text
    assert "The bundle <b>odd cannot be read" in html.unescape(answer.text)


def test_what_the_last_look_found(site: ConsoleSite, logged_in: LogIn) -> None:
    browser = logged_in("reader")
    assert "The registry has not been looked at" in browser.get("/model").text
    folder = site.config.registry.folder / "monitor"
    folder.mkdir(parents=True)
    drift = [{"title": "kernel <i>", "scanner": "A", "since": "2026-W40", "raised": True}]
    told = {
        "format": 1, "until": "2026-11-01", "month": "2026-11", "scans": 12, "month_scans": 3, "month_outside": 1,
        "note": "", "drift": drift,
    }  # fmt: skip
    (folder / "latest.json").write_text(json.dumps(told))
    page = browser.get("/model").text
    assert "kernel &lt;i&gt; of A has changed since 2026-W40" in page and "12 scans were looked at" in page
    (folder / "latest.json").write_text(json.dumps({"format": 1}))
    assert "The registry has not been looked at" in browser.get("/model").text


def test_peers_are_shown_and_tested(site: ConsoleSite, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = logged_in("operator")
    page = browser.get("/peers").text
    assert "destination pacs" in page and "127.0.0.1:4242" in page and "never" in page
    monkeypatch.setattr(peer_tests, "ask", lambda peer: CheckResult(peer.what, False, "<refused>"))
    answer = browser.post("/peers/0")
    assert answer.status_code == 200 and "&lt;refused&gt;" in answer.text
    page = browser.get("/peers").text
    assert "&lt;refused&gt;" in page and "never" not in page
    assert "console test of a peer" in site.catalog.audit_waiting(100)[-1].xml


@pytest.mark.parametrize("number", ["1", "-1", "x", "0x0", "²", "99999999999", "\u0660"])
def test_there_is_no_other_peer(number: str, logged_in: LogIn) -> None:
    assert logged_in("operator").post(f"/peers/{number}").status_code == 404


def test_a_peer_is_asked_by_one_at_a_time(site: ConsoleSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(peer: KnownPeer) -> CheckResult:
        with pytest.raises(UsageError, match="is being tested"):
            site.peers.ask(0)
        return CheckResult(peer.what, True, "")

    monkeypatch.setattr(peer_tests, "ask", ask)
    assert site.peers.ask(0).ok


RULES = """
[[route]]
name = "thin <b>"
analyse = "thin"
when = [{ keyword = "Modality", equals = "CT" }]
"""


@pytest.fixture
def ruled(site: ConsoleSite, tmp_path: Path) -> ConsoleSite:
    path = tmp_path / "ae_config.toml"
    path.write_text(path.read_text() + RULES)
    site.config = config.load(path)
    return site


def test_rules_are_shown_and_tried(ruled: ConsoleSite, logged_in: LogIn) -> None:
    browser = logged_in("operator")
    page = html.unescape(browser.get("/rules").text)
    assert "Modality is CT" in page and "analysed with 'thin'" in page
    tried = browser.post("/rules", {"calling": "CT1", "attributes": "Modality = ct\n\nPatientName = <i>Doe"}).text
    assert "matched by thin &lt;b&gt;" in tried and "(found: ct)" in tried and "<i>" not in tried
    assert "no rule matches" in browser.post("/rules", {"attributes": "Modality = MR"}).text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"attributes": "Modality"}, "Line 1 is not of the form"),
        ({"attributes": "Modality = CT\nMood = bad"}, "Line 2: the standard has no attribute"),
        ({"calling": "A" * 17}, "at most 16 characters"),
        ({"attributes": "Modality = CT\n" * 101}, "At most 100 lines"),
    ],
)
def test_what_cannot_be_tried(form: dict[str, str], said: str, ruled: ConsoleSite, logged_in: LogIn) -> None:
    answer = logged_in("operator").post("/rules", form)
    assert answer.status_code == 400 and said in html.unescape(answer.text)


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_description_is_a_study_or_refused(attributes: str, calling: str) -> None:
    try:
        found = rules_page.described(calling, "NODE", attributes)
    except UsageError:
        return
    assert len(found.series) == 1


def test_the_rules_on_a_study_that_is_here(ruled: ConsoleSite, logged_in: LogIn) -> None:
    key = ruled.keys.key(STUDY)
    browser = logged_in("operator")
    assert f"/rules/{key}" in browser.get(f"/study/{key}").text
    assert "no rule matches" in browser.get(f"/rules/{key}").text  # its file is not there
    assert browser.get("/rules/nonsense").status_code == 404


def test_without_a_worklist_the_page_says_so(logged_in: LogIn) -> None:
    assert "No worklist is queried" in logged_in("reader").get("/worklist").text


@pytest.mark.parametrize("day", ["nonsense", "0001-01-01", "9999-12-31", "2026-13-01", "2026-1-1 OR 1=1"])
def test_a_day_that_is_none(day: str, site: ConsoleSite, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with_worklist(site)
    answer = logged_in("reader").get("/worklist", params={"date": day})
    assert answer.status_code == 400 and "write it as 2026-12-31" in answer.text


def with_worklist(site: ConsoleSite) -> None:
    table = WorklistTable(ae_title="RIS", host="127.0.0.1", port=104, calling_ae_title="NODE")
    site.config = site.config.model_copy(update={"worklist": table})


def test_orders_of_a_day_lead_to_their_studies(
    site: ConsoleSite, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_worklist(site)
    asked: list[date] = []

    def orders(_catalog: object, day: date) -> list[dict[str, object]]:
        asked.append(day)
        common = {
            "scheduled": "20261130 0800", "patient_name": "<b>Doe", "patient_id": "7", "issuer_of_patient_id": "",
            "accession_number": "A1", "procedure": "CT chest", "modality": "CT", "station": "CT1",
            "seen_at": "2026-11-30 07:00:00Z",
        }  # fmt: skip
        here = {**common, "study_uid": STUDY, "state": "delivered", "others": [{"study_uid": "1.9", "state": "failed"}]}
        return [here, {**common, "study_uid": "1.8", "state": "not received", "others": []}]

    monkeypatch.setattr("dicomnode.context.worklist.overview", orders)
    page = logged_in("reader").get("/worklist?date=2026-11-30").text
    assert asked == [date(2026, 11, 30)] and "<b>Doe" not in page and "&lt;b&gt;Doe" in page
    assert f"/study/{site.keys.key(STUDY)}" in page and f"/study/{site.keys.key('1.9')}" in page
    assert site.keys.key("1.8") not in page
    assert "/worklist?date=2026-11-29" in page and "/worklist?date=2026-12-01" in page
    assert "console worklist" in site.catalog.audit_waiting(100)[-1].xml


def test_a_study_shows_its_log_lines_and_a_researcher_does_not_see_them(site: ConsoleSite, logged_in: LogIn) -> None:
    lines = KeptLines(site.config.storage.state, 1_000_000)
    for study in (STUDY, "1.2.3"):
        told = {"time": "t", "level": "INFO", "process": "worker-0", "message": f"<b>{study} done", "study": study}
        lines.keep(json.dumps(told))
    key = site.keys.key(STUDY)
    page = logged_in("reader").get(f"/study/{key}").text
    assert f"&lt;b&gt;{STUDY} done" in page and "1.2.3 done" not in page
    assert "worker-0" not in logged_in("researcher").get(f"/study/{key}").text
