"""What the code before the packages were rearranged has left on disk goes on under this code, on both databases.

`tests/fixtures/before_the_move` holds such a state, and the script that made it.
"""

import base64
import json
import pickletools
import sqlite3
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dicomnode.analysis.findings import Findings
from dicomnode.operations import jobs
from tests.conftest import ROOT
from tests.faults.station import Pacs, Station, running
from tests.helpers.databases import PostgreSQL
from tests.helpers.ports import free_port
from tests.helpers.receivers import Webhook
from tests.helpers.waiting import until

STATE = ROOT / "tests" / "fixtures" / "before_the_move" / "state.tar.xz"
#: The worker that was killed after an analysis comes back; the other two do not.
WORKER = "hospital-0"
OBJECTS = {"seg", "measurements", "summary"}
#: As the node was configured, but for ports and pauses; the priors' PACS is away for good now.
CONFIG = """
[routing]
ae_titles = ["ARCHIVE", "HOLD"]
[[route]]
name = "forward"
called_ae = ["ARCHIVE"]
forward_to = ["archive"]
[[route]]
name = "wait"
called_ae = ["HOLD"]
hold = true
[[route]]
name = "all"
analyse = "default"
results_to = ["pacs"]
[[notify]]
name = "hook"
kind = "webhook"
events = ["delivered"]
url = "{hook}"
secret_file = "key"
[registry]
record = true
volumes = true
[priors]
ae_title = "PACS"
host = "127.0.0.1"
port = {away}
wait_s = 1
timeout_s = 2
"""


@dataclass
class Left:
    """The unpacked state: its folder, its database, and what `state.json` says of it."""

    folder: Path
    database_url: str
    noted: dict[str, Any]

    def uid(self, name: str) -> str:
        return str(self.noted["studies"][name]["uid"])

    def findings(self, name: str) -> Findings:
        path = self.folder / "var" / "results" / self.uid(name) / "g1" / "findings.json"
        return Findings.from_json(path.read_text("utf-8"))

    def stored_by_the_engine(self) -> list[str]:
        """Every value that the workflow engine has in a database, inputs, outputs and errors."""
        tables = {"workflow_input": ("inputs",), "workflow_output": ("output", "error")}
        tables["operation_outputs"] = ("output", "error")
        if self.database_url:
            with psycopg.connect(self.database_url) as server:
                server.execute("SET search_path TO dbos")
                rows = [row for t, columns in tables.items() for c in columns for row in server.execute(_values(t, c))]
        else:
            file = sqlite3.connect(self.folder / "var" / "state" / "queue.sqlite")
            rows = [row for t, columns in tables.items() for c in columns for row in file.execute(_values(t, c))]
            file.close()
        return [value for (value,) in rows]


def _values(table: str, column: str) -> Any:
    return f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"


@pytest.fixture(params=["sqlite", "postgresql"])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Left]:
    """The state, unpacked into another folder than the one in which it was made."""
    unpacked, kind = tmp_path / "unpacked", request.param
    with tarfile.open(STATE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python has none
        archive.extractall(unpacked)
    folder = unpacked / kind
    noted = json.loads((folder / "state.json").read_text())
    (folder / "key").write_text("secret")
    for sources in folder.rglob("sources.json"):
        sources.write_text(sources.read_text().replace(noted["root"], str(folder)))
    if kind == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        yield Left(folder, _restore(server, folder / "database.sql", noted["root"]), noted)
        return
    with sqlite3.connect(folder / "var" / "state" / "catalog.sqlite") as catalog:
        for table, column in (("instances", "path"), ("deliveries", "path"), ("registry_scans", "volume")):
            catalog.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (noted["root"], str(folder)))
    catalog.close()
    yield Left(folder, "", noted)


def _restore(server: PostgreSQL, dump: Path, root: str) -> str:
    """A database of the dump's content; its URL."""
    name = f"upgrade_{free_port()}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    url = server.url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(url) as connection:
        connection.execute(dump.read_text().replace(root, str(dump.parent)))  # type: ignore[call-overload]
    return url


def test_findings_of_before_give_the_same_uids(left: Left) -> None:
    """A result that is made again from the same images must not look like another one to the PACS."""
    known = {name: tuple(version) for name, version in left.noted["versions"].items() if version is not None}
    assert len(known) == 5
    assert left.findings("followed up").change is not None
    assert {name: left.findings(name).version for name in known} == known


def test_what_the_engine_keeps_names_no_module_of_ours(left: Left) -> None:
    """So modules may move: plain values only, and of our classes the errors."""
    stored = left.stored_by_the_engine()
    assert len(stored) > 50
    assert {name for value in stored for name in _classes(value)} == set()


def _classes(value: str) -> set[str]:
    """The classes that a pickled value names, but for our errors, which have their place."""
    names: set[str] = set()
    words: list[str] = []
    if value.startswith("dicomnode:"):  # written by this version: JSON, which names no class but those of errors
        named = {str(module) for module, _, _ in _errors(json.loads(value.partition(":")[2]))}
        return named - {"dicomnode.errors", "builtins"}
    for code, argument, _ in pickletools.genops(base64.b64decode(value)):
        if "UNICODE" in code.name:
            words.append(str(argument))
        elif code.name in ("GLOBAL", "STACK_GLOBAL"):
            names.add(".".join(words[-2:]) if argument is None else str(argument).replace(" ", "."))
    return {name for name in names if name.rpartition(".")[0] not in ("dicomnode.errors", "builtins")}


def _errors(read: Any) -> list[list[Any]]:
    if isinstance(read, dict):
        found = [read["~error"]] if "~error" in read else []
        return found + [e for v in read.values() for e in _errors(v)]
    return [e for v in read for e in _errors(v)] if isinstance(read, list) else []


@pytest.mark.slow
def test_all_that_was_left_ends_delivered_and_once(left: Left, tmp_path: Path) -> None:
    pacs, archive, hook = Pacs(tmp_path / "pacs"), Pacs(tmp_path / "archive", ae_title="PACS"), Webhook()
    more = CONFIG.format(hook=hook.url, away=free_port())
    destinations = pacs.destination() + archive.destination("archive")
    station = Station(left.folder, destinations, more=more, database_url=left.database_url)
    names = left.noted["studies"]
    with running(hook, pacs, archive, station):
        # As it was left, before anything runs.
        rows = jobs.overview(station.config, None, 50)
        shown = {row["study_uid"]: row["state"] for row in rows if row["state"] != "receiving"}
        assert shown == {s["uid"]: s["state"] for s in names.values() if s["state"] is not None}
        assert [d["state"] for d in jobs.details(station.config, left.uid("delivered"), 1)["deliveries"]] == (
            ["delivered"] * 3
        )
        analysed_before = left.findings("killed after its analysis").timings_s
        recorded_before = _scans(station)
        assert len(recorded_before) == 5

        pacs.start(), archive.start()
        station.clock.compare_spool()
        station.start_worker(WORKER)
        station.clock.recover()
        assert {w.name: w.state for w in station.catalog.workers()} == {
            WORKER: "alive", "hospital-1": "gone", "hospital-2": "gone"
        }  # fmt: skip
        station.settle(left.uid("arriving"))
        jobs.release(station.config, left.uid("held"))
        jobs.retry(station.config, left.uid("refused by the PACS"), None)
        for name in names:
            ended = station.ended(left.uid(name), 1, "delivered", "failed", seconds=90)
            assert ended["state"] == "delivered", (name, ended["reason"])
        station.clock.hand_over()
        until("nothing is left in the queue", lambda: not _live(station), 30)
        # That of the first study has waited, that of the second stood in the catalogue.
        assert [_told(hook, left.uid(name)) for name in names] == [1] * len(names)

        # Once each, at the PACS of before and of now together; what was there is not sent again.
        came = Counter([*left.noted["came"], *pacs.came])
        assert set(came.values()) == {1}
        forwarded = left.uid("forwarded")
        for name in names:
            if name == "forwarded":
                continue
            results = [d for d in station.catalog.deliveries(left.uid(name), 1) if d.destination == "pacs"]
            assert {d.object: came[d.sop_instance_uid] for d in results} == dict.fromkeys(OBJECTS, 1), name
        assert sum(came.values()) == len(OBJECTS) * (len(names) - 1)
        images = Counter(archive.came)
        assert set(images.values()) == {1}
        assert len(archive.held(forwarded)) == 50

        # A finished step is not run again, and what was found before is compared with.
        again = left.findings("killed after its analysis").timings_s
        assert {k: v for k, v in again.items() if k in analysed_before} == dict(analysed_before)
        assert [p.study_uid for p in left.findings("queued").trend] == [left.uid("delivered"), left.uid("followed up")]
        recorded = _scans(station)
        assert recorded.items() >= recorded_before.items()
        assert len(recorded) == len(names) - 1
        assert {name for value in left.stored_by_the_engine() for name in _classes(value)} == set()
        _the_command_line_works(left, station, tmp_path)


def _scans(station: Station) -> dict[str, tuple[str, str]]:
    return {s.scan: (s.patient, s.date) for s in station.catalog.registry_scans()}


def _live(station: Station) -> list[str]:
    found = station.queue._client.list_workflows(
        status=["ENQUEUED", "PENDING", "DELAYED"], load_input=False, load_output=False
    )
    return [w.workflow_id for w in found]


def _told(hook: Webhook, study_uid: str) -> int:
    return sum(json.loads(body)["study_uid"] == study_uid for _, body in hook.came)


def _the_command_line_works(left: Left, station: Station, tmp_path: Path) -> None:
    assert len(json.loads(_run(station, "jobs", "list", "--json"))) == len(left.noted["studies"])
    shown = json.loads(_run(station, "jobs", "show", left.uid("queued"), "--json"))
    assert shown["state"] == "delivered"
    _run(station, "registry", "export", "--out", str(tmp_path / "export"))
    lines = (tmp_path / "export" / "scans.csv").read_text().splitlines()
    assert len(lines) == 1 + len(left.noted["studies"]) - 1
    assert len(list((tmp_path / "export" / "volumes").iterdir())) == len(lines) - 1


def _run(station: Station, *words: str) -> str:
    command = [sys.executable, "-m", "dicomnode", *words, "--config", str(station.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
