"""`jobs list` and `jobs show`: what they take, the JSON that others build on, and that nobody is named unasked."""

import json
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.errors import UsageError
from dicomnode.operations import jobs, looking
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label
from dicomnode.store.records import Instance

ROOT = Path(__file__).resolve().parents[3]
KEYS = [
    "study_uid", "generation", "state", "priority", "instances", "sender", "called", "first_seen", "last_seen",
    "settled_at", "started_at", "analysed_at", "delivered_at", "changed_at", "next_attempt_at", "delivered", "objects",
    "priors", "reason", "flags",
]  # fmt: skip
WHOSE = ["patient_id", "issuer_of_patient_id", "accession_number", "study_date", "study_description"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> config.Config:
    """A node that has received one study and holds another."""
    tmp_path = tmp_path_factory.mktemp("node")
    (tmp_path / "ae_config.toml").write_text("")
    made = config.load(tmp_path / "ae_config.toml")
    made.storage.state.mkdir(parents=True)
    catalog = Catalog.open(made.catalog_url, made.storage.state)
    for number, uid in enumerate(("1.1", "1.2")):
        row = Instance(f"{uid}.1", "1.9", uid, "1.3", "/x", "0" * 64, 10, 1000.0 + number, None, "a" * 32)
        catalog.record(row)
    catalog.settle("1.2", 2000.0, held="two-patients")
    for study in catalog.unlabelled(0.0, 1e9, 10):
        catalog.note_label(study, Label("PATIENT-KOELN", "", "ACC-1"))
    catalog.close()
    return made


def test_the_json_of_a_page_is_what_the_documentation_says(node: config.Config) -> None:
    held, arriving = jobs.overview(node, None, 10)
    assert list(held) == list(arriving) == KEYS
    assert (held["study_uid"], held["state"], held["reason"], held["generation"]) == ("1.2", "held", "two-patients", 1)
    assert (arriving["study_uid"], arriving["state"], arriving["settled_at"]) == ("1.1", "receiving", "")
    assert arriving["last_seen"] == "1970-01-01 00:16:40Z"
    documented = (ROOT / "docs" / "admin" / "looking-at-jobs.md").read_text("utf-8")
    assert [key for key in (*KEYS, *WHOSE) if f"`{key}`" not in documented] == []


def test_nobody_is_named_unasked(node: config.Config) -> None:
    assert "KOELN" not in json.dumps([jobs.overview(node, None, 10), jobs.details(node, "1.1", None)])
    (row,) = jobs.overview(node, "held", 10, identify=True)
    assert [key for key in row if key not in KEYS] == WHOSE
    assert (row["patient_id"], row["accession_number"]) == ("PATIENT-KOELN", "ACC-1")
    assert jobs.details(node, "1.1", None, identify=True)["patient_id"] == "PATIENT-KOELN"


def test_an_arriving_study_can_be_shown(node: config.Config) -> None:
    shown = jobs.details(node, "1.1", None)
    assert (shown["state"], shown["series"], shown["deliveries"], shown["timeline"]) == ("receiving", [], [], [])
    assert [t["state"] for t in jobs.details(node, "1.2", None)["timeline"]] == ["held"]
    for uid, generation in (("1.9", None), ("1.1", 1), ("1.2", 2)):
        with pytest.raises(UsageError, match="no such job"):
            jobs.details(node, uid, generation)


def test_the_command_line(node: config.Config) -> None:
    def run(*words: str) -> str:
        given = [*words, "--config", str(node.storage.state.parents[1] / "ae_config.toml")]
        done = CliRunner().invoke(app, ["jobs", *given])
        assert done.exit_code == 0, done.output
        return done.output

    assert [r["study_uid"] for r in json.loads(run("list", "--json", "--state", "held", "--state", "failed"))] == [
        "1.2"
    ]
    assert [r["study_uid"] for r in json.loads(run("list", "--json", "--accession", "ACC-1"))] == ["1.2", "1.1"]
    assert json.loads(run("list", "--json", "--patient", "NOBODY", "--text", "x", "--sender", "CT")) == []
    local = datetime.fromtimestamp(1000.0).strftime("%Y-%m-%d %H:%M:%S")
    shown = run("list", "--identify")
    assert "PATIENT-KOELN" in shown
    assert local in shown
    assert local in run("show", "1.1")
    assert "KOELN" not in run("show", "1.1")


@pytest.mark.parametrize("state", ["superseded", "lost"])
def test_a_state_that_no_study_is_in_is_told(state: str) -> None:
    with pytest.raises(UsageError, match="states: receiving, queued"):
        looking.wanted(states=(state,))


def test_nothing_is_shown_where_nothing_came(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text("")
    made = config.load(tmp_path / "ae_config.toml")
    made.storage.state.mkdir(parents=True)
    Catalog.open(made.catalog_url, made.storage.state).close()
    for words, shown in ((("--json",), "[]\n"), (("--identify",), None)):
        done = CliRunner().invoke(app, ["jobs", "list", *words, "--config", str(tmp_path / "ae_config.toml")])
        assert done.exit_code == 0, done.output
        assert shown is None or done.output == shown


def test_spaces_around_what_is_looked_for_are_no_part_of_it() -> None:
    given = looking.wanted(patient=" P 1 ", accession="A\t", sender=" CT ", text=" 1.2\n")
    assert (given.patient_id, given.accession_number, given.sender, given.text) == ("P 1", "A", "CT", "1.2")


def test_since() -> None:
    assert looking.since_s("30m", 10_000.0) == 8200.0
    assert looking.since_s("2h", 10_000.0) == 2800.0
    assert looking.since_s("1d", 100_000.0) == 13_600.0
    assert looking.since_s("2026-11-29T18:30:00+00:00", 0.0) == 1_795_977_000.0
    assert looking.since_s("2026-11-29", 0.0) == datetime(2026, 11, 29).timestamp()
    for text in ("yesterday", "-1h", "2h30", "2026-13-01", "9" * 20 + "d"):
        with pytest.raises(UsageError, match="is no time"):
            looking.since_s(text, 0.0)


def test_a_node_that_never_ran_has_nothing_made_by_looking(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text("")
    made = config.load(tmp_path / "ae_config.toml")
    with pytest.raises(UsageError, match="never run"):
        jobs.overview(made, None, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["ae_config.toml"]


def test_watch_goes_on_until_it_is_interrupted(node: config.Config) -> None:
    path = node.storage.state.parents[1] / "ae_config.toml"
    command = [sys.executable, "-m", "dicomnode", "jobs", "list", "--watch", "--json", "--config", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert looks[0] == looks[1]
    assert len(looks[0]) == 2


def test_times_are_told_in_this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert looking.local("2026-11-29 06:00:00Z") == "2026-11-29 15:00:00"
        assert looking.local("") == ""
    finally:
        monkeypatch.undo()
        time.tzset()
