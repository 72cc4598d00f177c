"""What the pages show, to whom, and with which headers."""

import html
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from dicomnode.analysis.findings import Findings, Horizon
from dicomnode.console import settings_page
from dicomnode.console.application import HEADERS, host_name
from dicomnode.console.site import ConsoleSite, _templates
from dicomnode.console.study_keys import StudyKeys
from dicomnode.errors import SpoolError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.patient_key import PatientKey
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, results_folder
from tests.helpers import report_cases as cases
from tests.helpers.rich_findings import write_findings
from tests.unit.console.conftest import DESCRIPTION, OTHER, PATIENT, REASON, STUDY, Browser

SHOWN = (
    "&lt;script&gt;alert(&#34;p&#34;)&lt;/script&gt;",
    "&lt;img src=x onerror=alert(1)&gt;",
    "&lt;b&gt;reason&lt;/b&gt;",
)
#: What a researcher must not see of these studies.
TELLING = (
    PATIENT,
    "alert(",
    DESCRIPTION,
    "onerror",
    "ACC100",
    "ACC200",
    STUDY,
    OTHER,
    "20260102",
    "2026-01-02",
    "reason<",
)


def found(site: ConsoleSite) -> None:
    """An analysis of the first study."""
    write_findings(site.config, STUDY, DESCRIPTION)


@pytest.mark.parametrize("path", ["/login", "/nowhere", "/static/console.css", "/", "/study/x"])
def test_every_answer_bears_the_headers(path: str, anybody: Callable[[], Browser]) -> None:
    answer = anybody().get(path)
    for name, value in HEADERS.items():
        if not (name == "Cache-Control" and path.startswith("/static")):
            assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert "server" not in answer.headers


def test_no_page_has_script_or_style_within_or_anything_from_elsewhere(
    site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    found(site)
    browser = logged_in("administrator")
    key = site.keys.key(STUDY)
    node = ("/", "/studies", "/worklist", "/model", "/peers", "/rules", "/configuration", "/nowhere")
    for path in (*node, f"/study/{key}", f"/rules/{key}", f"/study/{key}/drop"):
        page = browser.get(path).text
        assert re.findall(r"<script[^>]*>", page) == ['<script src="/static/console.js">']
        assert not re.search(r"<style|\sstyle=|\son\w+=\"|javascript:", page)
        assert not re.search(r"(src|href|action)=\"(?!/|#)", page)


def test_hostile_words_are_words(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    found(site)
    browser = logged_in("reader")
    for page in (browser.get("/studies").text, browser.get(f"/study/{site.keys.key(STUDY)}").text):
        assert all(one in page for one in SHOWN)
        assert not any(one in page for one in (PATIENT, DESCRIPTION, REASON, "<i>"))
    searched = browser.post("/studies", {"patient": PATIENT, "text": '"><script>'}).text
    assert '"><script>' not in searched and PATIENT not in searched


def test_the_first_page_says_what_is_stuck_and_why_and_names_no_patient(
    site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    browser = logged_in("reader")
    for path in ("/", "/now"):
        page = html.unescape(browser.get(path).text)
        assert "1 study failed" in page and REASON in page
        assert "worker: no worker has shown itself" in page
        assert PATIENT not in page and "ACC100" not in page


def test_all_is_well_where_it_is(
    site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomnode.console.glance.ready", lambda *_: [])
    catalog.set_state(STUDY, 1, "cancelled", now=300.0)
    assert "All is well" in logged_in("reader").get("/").text


def test_the_page_of_a_study_tells_numbers_risk_trend_and_series(
    site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    found(site)
    page = html.unescape(logged_in("reader").get(f"/study/{site.keys.key(STUDY)}").text)
    for words in ("4321", "12 %", "5 to 25 %", "mean nothing for a patient", "20250102", "7.7", "too-few-slices"):
        assert words in page, words
    assert "cut-off-base" in page and "the thinnest" in page
    assert f"/study/{site.keys.key(STUDY)}/" not in page  # a reader is offered no action
    assert "<title>Study · dicomnode</title>" in page


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 5000])
def test_damaged_findings_are_no_end_of_the_page(
    content: str, site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    found(site)
    (results_folder(site.config.storage.results, STUDY, 1) / FINDINGS).write_text(content)
    for role in ("reader", "researcher"):
        answer = logged_in(role).get(f"/study/{site.keys.key(STUDY)}")
        assert answer.status_code == 200 and "5 to 25 %" not in answer.text


def test_nobody_survives_or_dies_for_certain() -> None:
    risk = replace(cases.risk(), horizons=(Horizon(1, 0.0004, 0.0001, 0.002), Horizon(5, 0.9996, 0.6, 0.9999)))
    told = html.unescape(str(_templates().get_template("parts.html").module.risk(risk)))  # type: ignore[attr-defined]
    assert ">1 year<" in told and "<1 %" in told and ">60 to >99 %<" in told
    assert "0.0" not in told and "100 %" not in told


def test_a_page_of_a_study_reads_its_findings_once(
    site: ConsoleSite, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(site)
    read: list[str] = []
    parse = Findings.from_json
    monkeypatch.setattr(Findings, "from_json", lambda text: read.append(text) or parse(text))
    for role in ("reader", "researcher"):
        assert logged_in(role).get(f"/study/{site.keys.key(STUDY)}").status_code == 200
    assert len(read) == 2


def test_who_looks_at_a_study_is_in_the_audit_trail(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    browser = logged_in("reader")
    browser.get(f"/study/{site.keys.key(STUDY)}")
    xml = site.catalog.audit_waiting(100)[-1].xml
    assert "DICOM Instances Accessed" in xml and 'UserID="reader (console)"' in xml and STUDY in xml
    browser.post("/studies", {"patient": "PATIENT-KOELN"})
    xml = site.catalog.audit_waiting(100)[-1].xml
    assert "console list of studies" in xml and "KOELN" not in xml


def test_a_researcher_sees_pseudonyms_only(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    found(site)
    browser = logged_in("researcher")
    assert browser.get("/").headers["location"] == "/studies"
    pages = [browser.get("/studies").text, browser.post("/studies", {"state": "failed"}).text]
    pages.append(browser.get(f"/study/{site.keys.key(STUDY)}").text)
    for page in map(html.unescape, pages):
        assert [one for one in TELLING if one in page] == []
        assert site.pseudonyms.scan(STUDY)[:12] in page
    assert "4321" in pages[-1] and "too-few-slices" in pages[-1]


@pytest.mark.parametrize("term", ["patient", "accession", "sender", "since", "text"])
def test_a_researcher_cannot_look_for_a_patient(
    term: str, site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    """What is looked for is left out: that something was found would tell."""
    page = logged_in("researcher").post("/studies", {term: "ACC100"}).text
    assert site.pseudonyms.scan(STUDY)[:12] in page and site.pseudonyms.scan(OTHER)[:12] in page


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"accession": "ACC100"}, [STUDY]),
        ({"state": "failed"}, [STUDY]),
        ({"text": "99.22"}, [OTHER]),
        ({"text": "REASON"}, [STUDY]),
        ({"sender": "NOBODY"}, []),
        ({"since": "1h"}, []),
        ({}, [OTHER, STUDY]),
    ],
)
def test_studies_are_found_by_a_form(
    form: dict[str, str], wanted: list[str], site: ConsoleSite, logged_in: Callable[[str], Browser]
) -> None:
    page = logged_in("reader").post("/studies", form).text
    assert re.findall(r'href="/study/([\w-]+)"', page) == [site.keys.key(uid) for uid in wanted]


@pytest.mark.parametrize("form", [{"since": "yesterday"}, {"state": "<lost>"}])
def test_a_wrong_term_is_answered_with_what_to_give(form: dict[str, str], logged_in: Callable[[str], Browser]) -> None:
    answer = logged_in("reader").post("/studies", form)
    assert answer.status_code == 400
    assert "give 30m" in answer.text or "no job state" in answer.text


def test_pages_follow_one_another(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    for number in range(60):
        uid = f"1.3.{number}"
        catalog.record(Instance(f"{uid}.1", "1.9", uid, f"{uid}.7", f"/x/{uid}", "0" * 64, 1, 500.0, None, "a" * 32))
    browser = logged_in("reader")
    first = browser.get("/studies").text
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', first.partition('class="more"')[2]))
    second = browser.post("/studies", {**form, "csrf": browser.token("/studies")}).text
    keys = [re.findall(r'<a href="/study/([\w-]+)"', page) for page in (first, second)]
    assert (len(keys[0]), len(keys[1])) == (50, 12) and not set(keys[0]) & set(keys[1])
    assert "Older studies" not in second


@pytest.mark.parametrize("uid", ["1.2", "1.2.3", "1", "2.25." + "9" * 59, "1.2.840.10008.0.0"])
def test_a_study_is_sealed_in_its_url(uid: str) -> None:
    keys, others = StudyKeys(PatientKey(b"a" * 32)), StudyKeys(PatientKey(b"b" * 32))
    key = keys.key(uid)
    assert keys.study_uid(key) == uid and keys.key(uid) == key and re.fullmatch(r"[\w-]+", key)
    assert others.study_uid(key) is None and uid not in key
    for broken in (key[:-2], key + "AAAA", "A" + key[1:] if key[0] != "A" else "B" + key[1:], "", "../..", "é" * 40):
        assert keys.study_uid(broken) is None


@pytest.mark.parametrize("key", ["x", "A" * 64, STUDY, "..%2f..", "%00", "a" * 5000])
def test_what_is_no_study_is_not_found(key: str, logged_in: Callable[[str], Browser]) -> None:
    answer = logged_in("operator").get(f"/study/{key}")
    assert answer.status_code == 404 and STUDY not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]:80", "localhost@evil.example"])
def test_other_names_are_refused(host: str, anybody: Callable[[], Browser]) -> None:
    assert anybody().get("/login", headers={"Host": host}).status_code == 421


def test_our_names_are_taken(anybody: Callable[[], Browser]) -> None:
    for host in ("127.0.0.1", "localhost:8480", "LOCALHOST", "[::1]:8480"):
        assert anybody().get("/login", headers={"Host": host}).status_code == 200
    assert host_name("[fe80::1]:80") == "fe80::1"


def test_requests_are_bounded(logged_in: Callable[[str], Browser]) -> None:
    browser = logged_in("reader")
    assert browser.post("/studies", {"patient": "x" * 20_000}).status_code == 413
    assert browser.post("/studies", {f"n{n}": "x" for n in range(40)}).status_code == 400
    assert browser.client.post("/studies", json={"csrf": "x"}).status_code == 415
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"csrf=%ff", b"\xff=1", b"csrf=%C0%AF"):
        assert browser.client.post("/studies", content=body, headers=form).status_code == 400
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = browser.client.request(method, "/studies")
        assert answer.status_code == 405 and answer.headers["allow"]


def test_without_the_database_the_pages_say_so(
    site: ConsoleSite, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = logged_in("reader")

    def away() -> None:
        raise SpoolError("no answer from <secret>")

    monkeypatch.setattr(site, "reading", away)
    answer = browser.get("/studies")
    assert answer.status_code == 503 and "do not answer" in answer.text and "secret" not in answer.text


def test_an_error_of_ours_shows_nothing_of_it(
    site: ConsoleSite, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = logged_in("reader")

    def broken() -> None:
        raise RuntimeError(PATIENT)

    monkeypatch.setattr(site, "reading", broken)
    answer = browser.get("/studies")
    assert answer.status_code == 500 and "alert" not in answer.text


def test_the_configuration_hides_secrets(logged_in: Callable[[str], Browser]) -> None:
    page = logged_in("administrator").get("/configuration").text
    assert "[destination[1]]" in page and "4242" in page
    for key, value, shown in (
        ("password", "abc", settings_page.HIDDEN),
        ("token", "abc", settings_page.HIDDEN),
        ("token", "env:TOKEN", "env:TOKEN"),
        ("secret_file", "/etc/x", "/etc/x"),
        ("database_url", "postgresql://u:abc@h/db?x=abc", "postgresql://u:(hidden)@h/db?(hidden)"),
        ("url", "https://h:80/hook?key=abc", "https://h:80/hook?(hidden)"),
        ("names", (), ""),
        ("plain", True, "true"),
    ):
        assert settings_page.shown(key, value) == shown
