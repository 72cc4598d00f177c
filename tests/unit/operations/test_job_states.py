"""No dead ends: every state of a job has a documented way on, and the commands of the page do what it says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from dbos import run_dbos_database_migrations
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.errors import UsageError
from dicomnode.operations import again, jobs
from dicomnode.routing.rules import Action, RoutingDecision
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import DeliveryState, Instance, JobState
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "admin" / "jobs.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
WAYS = [
    (state, *way) for state, row in ROWS.items() for way in re.findall(r"`dicomnode jobs (\w+) STUDY` → `(\w+)`", row)
]


def image(catalog: Catalog, number: int, patient: str = "a" * 32) -> None:
    uid = f"1.2.1.{number}"
    catalog.record(Instance(uid, "1.9", "1.2", "1.2.1", f"/x/{uid}", "0" * 64, 1, 100.0 + number, None, patient))


class Office:
    """A catalogue and a queue in which nobody works, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ae_config.toml"
        self.path.write_text("")
        self.config = config.load(self.path)
        self.config.storage.state.mkdir(parents=True)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)

    def bring(self, state: JobState) -> None:
        """A study whose newest job is in this state; of a superseded one, the generation before the newest."""
        image(self.catalog, 1)
        self.catalog.settle("1.2", 110.0, held="a rule" if state == "held" else None)
        if state == "held":
            decision = RoutingDecision(("a rule",), Action(analyse="default", hold=True)).recorded()
            self.catalog.note_routing("1.2", 1, json.dumps(decision), now=110.0)
        elif state == "superseded":
            image(self.catalog, 2)
            self.catalog.settle("1.2", 120.0, held=None)
            self.catalog.set_state("1.2", 2, "delivered", now=130.0)
        else:
            self.catalog.set_state("1.2", 1, state, now=120.0)
        job = self.catalog.job("1.2", 1)
        assert job is not None and job.state == state

    def run(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["jobs", *arguments, "--config", str(self.path)])
        assert done.exit_code == 0, done.output + repr(done.exception)
        return done.output

    def state(self) -> str:
        study = self.catalog.study("1.2")
        assert study is not None
        return study.state


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.catalog.close()


def test_every_state_is_on_the_page_with_a_way_on() -> None:
    assert set(ROWS) == set(get_args(JobState))
    assert {state for state, _, _ in WAYS} == set(ROWS)


@pytest.mark.parametrize(("state", "command", "after"), WAYS)
def test_the_way_leads_where_the_page_says(office: Office, state: JobState, command: str, after: str) -> None:
    run_dbos_database_migrations(system_database_url=office.config.queue_url)
    office.bring(state)
    office.run(command, "1.2")
    assert office.state() == after


@pytest.mark.parametrize("state", sorted({state for state, command, _ in WAYS if command == "cancel"}))
def test_cancelling_needs_no_queue(office: Office, state: JobState) -> None:
    """A node whose worker has never started (weights, bundle) is full of such studies."""
    office.bring(state)
    office.run("cancel", "1.2")
    assert office.state() == "cancelled"


@pytest.mark.parametrize("state", ["delivered", "committed", "refused", "ignored", "cancelled"])
def test_what_has_ended_cannot_be_cancelled(office: Office, state: JobState) -> None:
    run_dbos_database_migrations(system_database_url=office.config.queue_url)
    office.bring(state)
    with pytest.raises(UsageError, match="nothing queued or running"):
        jobs.cancel(office.config, "1.2", None)
    assert office.state() == state


def test_a_refusal_whose_reports_are_sent_again_stays_one(office: Office) -> None:
    run_dbos_database_migrations(system_database_url=office.config.queue_url)
    image(office.catalog, 1)
    office.catalog.settle("1.2", 110.0, held=None)
    office.catalog.set_state("1.2", 1, "refused", "too-few-slices", now=120.0)
    for number, name in enumerate(("refusal", "refusal-summary", "refusal-pdf")):
        uid = f"1.9.{number}"
        office.catalog.plan_delivery("1.2", 1, "pacs", name, "1.2", uid, "/x", now=130.0)
        office.catalog.mark_delivery("1.2", 1, "pacs", name, "failed", status=None, text="", attempts=9, now=140.0)
    office.catalog.set_state("1.2", 1, "failed", "3 deliveries given up", now=150.0)
    office.run("retry", "1.2")
    (row,) = jobs.overview(office.config, None, 10)
    assert (row["state"], row["reason"]) == ("refused", "too-few-slices")


def deliver(office: Office, state: DeliveryState) -> None:
    office.catalog.mark_delivery("1.2", 1, "pacs", "sr", state, status=0, text="", attempts=1, now=140.0)
    office.catalog.conclude("1.2", 1, now=150.0)


@pytest.mark.parametrize("again_by", ["retry", "send"])
def test_what_is_doubtful_about_a_result_stays_so_when_it_is_sent_again(office: Office, again_by: str) -> None:
    run_dbos_database_migrations(system_database_url=office.config.queue_url)
    office.path.write_text('[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104\n')
    image(office.catalog, 1)
    office.catalog.settle("1.2", 110.0, held=None)
    office.catalog.set_state("1.2", 1, "analysed", "images missing", now=120.0)
    office.catalog.plan_delivery("1.2", 1, "pacs", "sr", "1.2", "1.9.1", "/x", now=130.0)
    for _ in range(2):
        if again_by == "retry":
            deliver(office, "failed")
            office.run("retry", "1.2")
        else:
            deliver(office, "delivered")
            again.send(config.load(office.path), "1.2", "pacs")
        deliver(office, "delivered")
        (row,) = jobs.overview(office.config, None, 10)
        assert (row["state"], row["reason"]) == ("delivered", "images missing")


def test_a_study_of_two_patients_is_not_analysed_by_way_of_a_cancellation(office: Office) -> None:
    image(office.catalog, 1)
    image(office.catalog, 2, patient="b" * 32)
    office.catalog.settle("1.2", 110.0, held="two-patients")
    for _ in range(2):
        with pytest.raises(UsageError, match="two patients"):
            jobs.retry(office.config, "1.2", None)
        if office.state() == "held":
            office.run("cancel", "1.2")
    assert office.state() == "cancelled"
