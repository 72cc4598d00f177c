"""Actions: each says what it will do, does it, and is in the audit trail under the user's name."""

import html
import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import text

from dicomnode.console.actions import ACTIONS
from dicomnode.console.site import ConsoleSite
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import JobState
from dicomnode.store.spool import Spool
from dicomnode.workflows.queue import Queue
from tests.unit.console.conftest import OTHER, STUDY, Browser


def state(catalog: Catalog, study_uid: str = STUDY) -> str:
    study = catalog.study(study_uid)
    assert study is not None
    return study.state


def act(browser: Browser, site: ConsoleSite, action: str, **choice: str) -> str:
    """Look at what will be done, and do it. Returns both pages' words."""
    path = f"/study/{site.keys.key(STUDY)}/{action}"
    asked = browser.get(path)
    assert asked.status_code == 200, html.unescape(asked.text)
    seen = re.search(r'name="seen" value="(\w+)"', asked.text)
    assert seen is not None
    done = browser.post(path, {"seen": seen[1], **choice})
    assert done.status_code == 200, html.unescape(done.text)
    return html.unescape(asked.text + done.text)


def deliver(catalog: Catalog, states: dict[str, str]) -> None:
    """Plan objects for the PACS, and say how they fared."""
    for number, (name, found) in enumerate(states.items()):
        uid = f"1.9.{number}"
        catalog.plan_delivery(STUDY, 1, "pacs", name, "1.2", uid, "/x", now=130.0)
        catalog.mark_delivery(STUDY, 1, "pacs", name, found, status=0, text=None, attempts=1, now=140.0)  # type: ignore[arg-type]


def test_retry_of_an_analysis(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    words = act(logged_in("operator"), site, "retry")
    assert "decided on and analysed again" in words and "queued again as" in words
    assert state(catalog) == "queued"
    xml = [one.xml for one in catalog.audit_waiting(100) if "dicomnode jobs retry" in one.xml]
    assert len(xml) == 1 and 'UserID="operator (console)"' in xml[0] and STUDY in xml[0]


def test_retry_of_lost_deliveries(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    deliver(catalog, {"seg": "delivered", "sr": "rejected"})
    words = act(logged_in("operator"), site, "retry")
    assert "1 object is sent again to pacs" in words and "1 delivery to pacs queued again" in words
    assert state(catalog) == "analysed"


def test_cancel(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    assert "Received images are kept" in act(logged_in("operator"), site, "cancel")
    assert state(catalog) == "cancelled"


def test_release(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    decision = {
        "taken_by": ["a rule"],
        "action": {"analyse": "default", "results_to": None, "forward_to": [], "hold": True, "priority": "stat"},
        "verdicts": [],
    }
    catalog.note_routing(STUDY, 1, json.dumps(decision), now=125.0)
    catalog.set_state(STUDY, 1, "held", "held by 'a rule'", now=130.0)
    assert "held by 'a rule'" in act(logged_in("operator"), site, "release")
    assert state(catalog) == "queued"


def test_what_cannot_be_released_is_not_promised(
    site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    catalog.set_state(STUDY, 1, "held", "held by 'a rule'", now=130.0)
    with catalog._engine.begin() as connection:
        connection.execute(text("UPDATE studies SET instances = 0"))
    answer = logged_in("operator").get(f"/study/{site.keys.key(STUDY)}/release")
    assert answer.status_code == 400 and "no images here" in answer.text


def test_drop_says_why(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    stored = Spool(site.config.storage.spool).store(STUDY, f"{STUDY}.7", f"{STUDY}.1", b"meta", b"image")
    with catalog._engine.begin() as connection:
        mine = {"path": str(stored.path), "study_uid": STUDY}
        connection.execute(text("UPDATE instances SET path = :path WHERE study_uid = :study_uid"), mine)
    words = act(logged_in("operator"), site, "drop", because="patient-safety")
    assert "1 object of 1 series would be taken out" in words.lower()
    assert catalog.instances(STUDY) == []
    assert [one.who for one in catalog.corrections(STUDY)] == ["operator (console)"]


def test_another_profile_is_what_stays_decided(
    site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    words = act(logged_in("operator"), site, "reanalyse", profile="thin")
    assert "queued as generation 2, with the profile thin" in words
    assert state(catalog) == "queued"
    noted = catalog.routing(STUDY, 2)
    assert noted is not None and noted.released_at is not None
    assert json.loads(noted.decision)["action"]["analyse"] == "thin"
    # The rules look at it again when it comes to a worker, and change nothing.
    again = catalog.note_routing(STUDY, 2, json.dumps({"action": {"analyse": None}}), now=200.0)
    assert json.loads(again.decision)["action"]["analyse"] == "thin"
    queue = Queue(site.config)
    assert queue.is_live(STUDY, 2)
    queue.close()


@pytest.mark.parametrize("given", ["", "fat", "<script>"])
def test_a_profile_that_is_none_changes_nothing(
    given: str, site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    browser, path = logged_in("operator"), f"/study/{site.keys.key(STUDY)}/reanalyse"
    seen = re.search(r'name="seen" value="(\w+)"', browser.get(path).text)
    assert seen is not None
    answer = browser.post(path, {"seen": seen[1], "profile": given})
    assert answer.status_code == 400 and "is not a profile" in answer.text and "<script>'" not in answer.text
    assert state(catalog) == "failed"


def test_send_again(site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]) -> None:
    deliver(catalog, {"seg": "delivered", "sr": "delivered"})
    catalog.set_state(STUDY, 1, "delivered", now=150.0)
    words = act(logged_in("operator"), site, "send", destination="pacs")
    assert "pacs (2 objects)" in words and "2 objects to pacs queued again" in words
    assert {one.state for one in catalog.deliveries(STUDY, 1)} == {"pending"}
    assert state(catalog) == "analysed"


def test_what_has_changed_since_is_not_acted_on(
    site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    browser, path = logged_in("operator"), f"/study/{site.keys.key(STUDY)}/cancel"
    seen = re.search(r'name="seen" value="(\w+)"', browser.get(path).text)
    assert seen is not None
    catalog.set_state(STUDY, 1, "queued", now=500.0)
    answer = browser.post(path, {"seen": seen[1]})
    assert answer.status_code == 400 and "has changed since you looked" in answer.text
    assert state(catalog) == "queued"


@pytest.mark.parametrize("action", ["release", "accept", "reject", "send"])
def test_what_does_not_fit_is_refused_with_the_reason(
    action: str, site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    answer = logged_in("operator").get(f"/study/{site.keys.key(STUDY)}/{action}")
    assert answer.status_code == 400
    assert "That was not possible" in answer.text and state(catalog) == "failed"


def test_an_action_that_there_is_not_is_not_found(site: ConsoleSite, logged_in: Callable[[str], Browser]) -> None:
    assert logged_in("operator").get(f"/study/{site.keys.key(STUDY)}/destroy").status_code == 404


@pytest.mark.parametrize("job", ["queued", "running", "failed", "held", "delivered", "ignored", "cancelled"])
def test_every_action_that_is_offered_can_be_looked_at(
    job: JobState, site: ConsoleSite, catalog: Catalog, logged_in: Callable[[str], Browser]
) -> None:
    catalog.set_state(OTHER, 1, job, now=300.0)
    browser, key = logged_in("operator"), site.keys.key(OTHER)
    offered = re.findall(rf'href="/study/{key}/(\w+)"', browser.get(f"/study/{key}").text)
    assert set(offered) <= ACTIONS.keys() and offered
    for action in offered:
        answer = browser.get(f"/study/{key}/{action}")
        assert answer.status_code == 200, html.unescape(answer.text)
