"""Many jobs by one command: those that the options choose and no others, with a count, and first as a dry run."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from dbos import run_dbos_database_migrations
from typer.testing import CliRunner, Result

from dicomnode import config
from dicomnode.analysis.findings import Findings, Risk
from dicomnode.cli import app
from dicomnode.errors import SpoolError, UsageError
from dicomnode.files import write_whole
from dicomnode.models import build
from dicomnode.operations import again, bulk, jobs
from dicomnode.operations.bulk import JobFilter
from dicomnode.routing.rules import Action, RoutingDecision
from dicomnode.service.clock import Housekeeping
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, JobState
from dicomnode.store.results_folder import FINDINGS, RECEPTION, results_folder
from dicomnode.workflows.queue import Queue

CONFIG = """
[routing]
ae_titles = ["THIN"]
[analysis]
bundle = ""
radiomics = false
[[profile]]
name = "thin"
[profile.selection]
max_thickness_mm = 1.5
[[route]]
name = "thin"
called_ae = ["THIN"]
analyse = "thin"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = 105
"""


class Many:
    """A catalogue with studies, and a queue in which nobody works."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ae_config.toml"
        self.path.write_text(CONFIG)
        self.config = config.load(self.path)
        self.config.storage.state.mkdir(parents=True)
        run_dbos_database_migrations(system_database_url=self.config.queue_url)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)

    def study(self, uid: str, state: JobState, *, at: float = 100.0, profile: str = "", lacks: str = "") -> None:
        self.catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.5", "/x", "0" * 64, 1, at, None, "a" * 32))
        self.catalog.settle(uid, at, held="x" if state == "held" else None)
        if profile:
            decision = RoutingDecision(("a rule",), Action(analyse=profile)).recorded()
            self.catalog.note_routing(uid, 1, json.dumps(decision), now=at)
        if lacks:
            self.catalog.plan_delivery(uid, 1, lacks, "seg", "1.9", f"{uid}.9", "/out", now=at)
            self.catalog.mark_delivery(uid, 1, lacks, "seg", "rejected", status=1, text="no", attempts=1, now=at)
        if state != "held":
            self.catalog.set_state(uid, 1, state, now=at)

    def found(self, uid: str, digest: str, bundle: str = "", *, refused: bool = False) -> None:
        risk = Risk(bundle, "f" * 64, "research", ()) if bundle else None
        findings = replace(Findings("analysed"), algorithm_digest=digest, risk=risk)
        if refused:
            findings = Findings("refused", refused_by=digest)
        folder = results_folder(self.config.storage.results, uid, 1)
        folder.mkdir(parents=True)
        (folder / FINDINGS).write_text(findings.to_json())

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["jobs", *arguments, "--config", str(self.path)])

    def states(self) -> dict[str, str]:
        return {study.study_uid: study.state for study in self.catalog.studies(100)}


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Many]:
    made = Many(tmp_path)
    yield made
    made.catalog.close()


def test_a_dry_run_shows_them_and_their_number_and_changes_nothing(many: Many) -> None:
    many.study("1.1", "failed", lacks="pacs")
    many.study("1.2", "failed", lacks="archive")
    many.study("1.3", "delivered")
    done = many.run("retry", "--destination", "pacs", "--dry-run")
    assert done.output.splitlines() == ["1.1", "1 study would be retried"]
    assert set(many.states().values()) == {"failed", "delivered"}
    assert many.run("retry", "--destination", "pacs").output == "1 study retried\n"
    assert many.states() == {"1.1": "analysed", "1.2": "failed", "1.3": "delivered"}
    (delivery,) = many.catalog.deliveries("1.1", 1)
    assert delivery.state == "pending"


def test_without_a_queue_nothing_is_changed_and_a_message_says_so(many: Many) -> None:
    many.study("1.1", "failed", lacks="pacs")
    (many.config.storage.state / "queue.sqlite").unlink()
    for one in (("1.1",), ("--state", "failed")):
        done = many.run("retry", *one)
        assert isinstance(done.exception, SpoolError) and "the queue does not answer" in str(done.exception)
    assert many.states() == {"1.1": "failed"}
    (delivery,) = many.catalog.deliveries("1.1", 1)
    assert delivery.state == "rejected"


def test_one_that_is_not_taken_holds_up_no_other(many: Many) -> None:
    many.study("1.1", "failed")
    many.study("1.2", "failed")
    many.study("1.3", "cancelled")
    (study,) = [s for s in many.catalog.studies(9) if s.study_uid == "1.1"]
    assert many.catalog.release(study, lambda: None)
    dry = many.run("retry", "--state", "failed", "--dry-run").output.splitlines()
    assert dry[0] == "1.2" and dry[1].startswith("1.1: not") and dry[2] == "1 study would be retried, 1 not"
    lines = many.run("retry", "--state", "failed").output.splitlines()
    assert lines[0].startswith("1.1: not retried: the study has no images here")
    assert lines[1:] == ["1 study retried, 1 not"]
    assert many.states() == {"1.1": "failed", "1.2": "queued", "1.3": "cancelled"}


def test_cancel_by_state_profile_and_time(many: Many) -> None:
    many.study("1.1", "held", at=1000.0, profile="thin")
    many.study("1.2", "held", at=2000.0)
    many.study("1.3", "queued", at=3000.0, profile="thin")
    many.study("1.4", "delivered", at=4000.0, profile="thin")

    def chosen(**filters: str) -> list[str]:
        found = bulk.choose(many.config, many.catalog, "cancel", JobFilter(**filters), 4000.0)
        return [job.study_uid for job in found]

    assert chosen(state="held") == ["1.1", "1.2"]
    assert chosen(profile="thin") == ["1.1", "1.3"]
    assert chosen(profile="default") == ["1.2"]
    assert chosen(since="20m") == ["1.3"]  # 1,200 s
    assert chosen(state="held", profile="thin", since="1h") == ["1.1"]
    assert many.run("cancel", "--state", "held").output == "2 studies cancelled\n"
    assert many.states() == {"1.1": "cancelled", "1.2": "cancelled", "1.3": "queued", "1.4": "delivered"}


@pytest.mark.parametrize(
    ("command", "state"),
    [("cancel", "delivered"), ("cancel", "refused"), ("retry", "queued"), ("retry", "running"), ("retry", "routed")],
)
def test_a_dry_run_promises_nothing_that_is_refused(many: Many, command: str, state: JobState) -> None:
    many.path.write_text(f'{CONFIG}[audit]\nto = "file"\n')
    many.study("1.1", state)
    for more in (["--dry-run"], []):
        done = many.run(command, "--state", state, *more)
        assert done.exit_code == 3
        assert f"1.1: not {command[:5]}" in done.output.replace("retried", "retry").replace("cancelled", "cance")
        assert done.output.splitlines()[-1].startswith("0 studies ") and done.output.endswith(", 1 not\n")
    assert isinstance(many.run(command, "1.1").exception, UsageError)
    assert many.states() == {"1.1": state}
    assert many.catalog.audit_backlog() == (0, None), "what was refused is not noted as done"


def test_what_has_queued_work_is_cancelled_as_the_dry_run_says(many: Many) -> None:
    many.path.write_text(f'{CONFIG}[audit]\nto = "file"\n')
    many.study("1.1", "delivered")
    many.study("1.2", "delivered")
    with closing(Queue(many.config)) as queue:
        queue.enqueue("1.1", 1)
        dry = many.run("cancel", "--state", "delivered", "--dry-run").output.splitlines()
        assert (dry[0], dry[-1]) == ("1.1", "1 study would be cancelled, 1 not")
        done = many.run("cancel", "--state", "delivered")
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "1 study cancelled, 1 not")
    assert many.states() == {"1.1": "cancelled", "1.2": "delivered"}
    assert many.catalog.audit_backlog()[0] == 1


def test_a_study_that_is_receiving_is_refused_before_anything_is_noted(many: Many) -> None:
    many.path.write_text(f'{CONFIG}[audit]\nto = "file"\n')
    many.study("1.1", "delivered")
    many.catalog.plan_delivery("1.1", 1, "pacs", "seg", "1.9", "1.1.9", "/out", now=100.0)
    many.catalog.mark_delivery("1.1", 1, "pacs", "seg", "delivered", status=0, text="", attempts=1, now=100.0)
    many.catalog.record(Instance("1.1.2", "1.9", "1.1", "1.5", "/y", "1" * 64, 1, 200.0, None, "a" * 32))
    loaded = config.load(many.path)
    for act in (lambda: jobs.retry(loaded, "1.1", None), lambda: again.reanalyse(loaded, "1.1", "thin")):
        with pytest.raises(UsageError, match="is receiving"):
            act()
    assert bulk.run(loaded, "retry", JobFilter("delivered"), dry_run=True).done == ()
    assert many.catalog.audit_backlog() == (0, None)


def test_the_words_of_a_generation_that_has_just_settled_are_not_overwritten(
    many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock settles it between a person's look and the decision, and has noted which images it lacks."""
    many.study("1.1", "delivered")
    older, newer = (results_folder(many.config.storage.results, "1.1", generation) / RECEPTION for generation in (1, 2))
    write_whole(older, b'{"arrived": 2}')
    write_whole(newer, b'{"arrived": 8}')
    with monkeypatch.context() as quicker, pytest.raises(UsageError, match="just settled"):
        quicker.setattr(Catalog, "open_generation", lambda *_, **__: None)
        again.reanalyse(many.config, "1.1", "thin")
    assert newer.read_bytes() == b'{"arrived": 8}'
    again.reanalyse(many.config, "1.1", "thin")  # and else it says what the same images lacked
    assert newer.read_bytes() == b'{"arrived": 2}'


def test_what_no_rule_holds_is_not_released_and_not_noted(many: Many) -> None:
    many.path.write_text(f'{CONFIG}[audit]\nto = "file"\n')
    many.study("1.1", "held")
    assert isinstance(many.run("release", "1.1").exception, UsageError)
    assert many.catalog.audit_backlog() == (0, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give a STUDY, or at least one of"),
        (["--dry-run"], "give a STUDY, or at least one of"),
        (["1.2", "--state", "failed"], "give either a STUDY or"),
        (["1.2", "--dry-run"], "give either a STUDY or"),
        (["--state", "lost"], "'lost' is not a job state"),
        (["--destination", "pax"], "'pax' is not a destination (known: pacs, archive)"),
        (["--profile", "thick"], "'thick' is not a profile (known: default, thin)"),
        (["--since", "yesterday"], "'yesterday' is no time"),
    ],
)
def test_options_that_mean_nothing(many: Many, arguments: list[str], text: str) -> None:
    for command in ("retry", "cancel"):
        done = many.run(command, *arguments)
        assert isinstance(done.exception, UsageError) and text in str(done.exception)


def test_points_in_time() -> None:
    assert bulk.point_in_time("90m", 10_000.0) == 10_000.0 - 5400
    assert bulk.point_in_time("1.5h", 10_000.0) == 10_000.0 - 5400
    assert bulk.point_in_time("2d", 0.0) == -172_800
    assert bulk.point_in_time("2026-11-28", 0.0) == datetime(2026, 11, 28).timestamp()
    assert bulk.point_in_time("2026-11-28T14:30", 0.0) == datetime(2026, 11, 28, 14, 30).timestamp()


# Re-analysis


def test_what_a_changed_method_would_change(many: Many) -> None:
    today = {name: build.method(many.config.analysis_of(name)).digest for name in ("default", "thin")}
    assert today["default"] != today["thin"]
    many.study("1.1", "delivered")
    many.found("1.1", today["default"])
    many.study("1.2", "delivered")
    many.found("1.2", "0" * 64)
    many.study("1.3", "committed", profile="thin")
    many.found("1.3", today["default"])
    many.study("1.4", "held")
    many.study("1.5", "delivered", profile="gone")
    many.found("1.5", "0" * 64)
    done = many.run("reanalyse", "--where", "method", "--dry-run")
    assert done.output.splitlines()[:2] == ["1.2", "1.3"]
    assert "1.5: not analysed again: profile 'gone' is no longer configured" in done.output
    assert done.output.splitlines()[-1] == "2 studies would be analysed again, 1 not"
    assert many.catalog.reanalyses_waiting() == 0
    done = many.run("reanalyse", "--where", "method", "--where", "profile=thin", "--per-hour", "60")
    assert done.output == "1 study analysed again\n"
    assert many.catalog.take_reanalysis(1e9) == "1.3"


def test_a_refused_study_is_taken_where_another_method_would_judge_it(many: Many) -> None:
    today = {name: build.method(many.config.analysis_of(name)).digest for name in ("default", "thin")}
    for uid, judged_by, profile in (("1.1", "default", ""), ("1.2", "thin", ""), ("1.3", "thin", "thin")):
        many.study(uid, "refused", profile=profile)
        many.found(uid, today[judged_by], refused=True)
    many.study("1.4", "refused")
    many.found("1.4", "", refused=True)  # by a version that did not say so
    assert bulk.reanalyse(many.config, ["method"], 30, dry_run=True).done == ("1.2", "1.4")
    assert bulk.reanalyse(many.config, ["bundle"], 30, dry_run=True).done == ()


def test_a_scan_that_todays_bundle_does_not_fit_is_not_taken_for_ever(
    many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk._Today, "method", lambda _self, _profile: ("today", "f" * 64))
    for uid, digest in (("1.1", "today"), ("1.2", "before")):
        many.study(uid, "delivered")
        many.found(uid, digest)  # without a risk
    assert bulk.reanalyse(many.config, ["bundle"], 30, dry_run=True).done == ("1.2",)


def test_what_another_bundle_would_change(many: Many) -> None:
    for uid, bundle in (("1.1", "old"), ("1.2", ""), ("1.3", "older")):
        many.study(uid, "delivered")
        many.found(uid, "0" * 64, bundle)
    assert bulk.reanalyse(many.config, ["bundle"], 30, dry_run=True).done == ("1.1", "1.3")  # none is served now
    assert bulk.reanalyse(many.config, ["bundle=old"], 30, dry_run=True).done == ("1.1",)
    assert bulk.reanalyse(many.config, ["bundle=ffffffff"], 30, dry_run=True).done == ("1.1", "1.3")
    assert bulk.reanalyse(many.config, ["bundle=f"], 30, dry_run=True).done == ()


def test_the_list_can_be_emptied(many: Many) -> None:
    many.study("1.1", "delivered")
    many.found("1.1", "0" * 64)
    many.run("reanalyse", "--where", "method")
    assert many.run("reanalyse", "--stop").output == "taken off the list: 1\n"
    assert many.catalog.take_reanalysis(1e9) is None


@pytest.mark.parametrize("where", [[], ["everything"], ["profile="], ["profile=thick"], ["method=x"]])
def test_words_that_mean_nothing(many: Many, where: list[str]) -> None:
    with pytest.raises(UsageError):
        bulk.reanalyse(many.config, where, 30, dry_run=True)


def test_many_more_than_fit_into_one_transaction(many: Many) -> None:
    uids = [f"1.{n}" for n in range(60)]
    for uid in uids:
        many.study(uid, "failed", lacks="pacs" if uid.endswith("7") else "")
    (gone,) = [s for s in many.catalog.studies(100) if s.study_uid == "1.30"]
    assert many.catalog.release(gone, lambda: None)
    outcome = bulk.run(many.config, "retry", JobFilter("failed"), dry_run=False)
    assert set(outcome.done) == {*uids} - {"1.30"} and len(outcome.done) == 59
    assert [uid for uid, _ in outcome.failed] == ["1.30"]
    queue = Queue(many.config)
    assert all(queue.is_live(uid, 1) for uid in outcome.done) and not queue.is_live("1.30", 1)
    queue.close()


def test_a_retry_that_was_killed_before_the_queue_is_found_by_the_clock(
    many: Many, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    many.study("1.1", "failed")
    many.study("1.2", "queued")
    queue = Queue(many.config)
    queue.enqueue("1.1", 1)
    queue.cancel("1.1", 1)  # its first run has ended
    queue.enqueue("1.2", 1)

    def killed(_self: Queue) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Queue, "together", killed)
        with pytest.raises(KeyboardInterrupt):
            bulk.run(many.config, "retry", JobFilter("failed"), dry_run=False)
    assert many.states() == {"1.1": "queued", "1.2": "queued"}
    now = [time.time()]
    clock = Housekeeping(many.config, many.catalog, queue, clock=lambda: now[0])
    clock.reconcile()
    assert not queue.is_live("1.1", 1)  # it may be on its way
    now[0] += 61
    clock.reconcile()
    assert queue.is_live("1.1", 1)
    clock.reconcile()
    assert [r.getMessage() for r in caplog.records if "enqueued again" in r.getMessage()] == [
        "study 1.1 generation 1 was not in the queue: enqueued again"
    ]
    queue.close()
