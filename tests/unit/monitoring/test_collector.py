"""What `/metrics` and `/ready` say: counters of several processes added up, figures of the catalogue, no patient."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from dicomnode import config
from dicomnode.errors import ConfigurationError
from dicomnode.metrics import counters
from dicomnode.monitoring import collector, server
from dicomnode.monitoring.collector import Metrics
from dicomnode.monitoring.readiness import ready
from dicomnode.network.certificates import TlsFinding
from dicomnode.service.processes import begin_counting
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label
from dicomnode.store.records import Instance
from tests.helpers import web
from tests.helpers.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
_COUNT = """
import sys
from pathlib import Path
from dicomnode.metrics import counters
counters.begin(Path(sys.argv[1]), "receiver")
counters.association_accepted()
counters.begin(Path(sys.argv[1]), "worker", ["pacs"])
counters.association_refused("caller")
counters.object_received("stored", 500)
counters.object_received("0xC000")
counters.delivery_attempted("pacs", "again")
counters.ticked(1000.0)
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path) -> config.Config:
    written = f"""
[node]
port = {free_port()}
[monitoring]
port = {free_port()}
[storage]
minimum_free_gb = 0.001
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
"""
    (tmp_path / "ae_config.toml").write_text(written)
    made = config.load(tmp_path / "ae_config.toml")
    for folder in (made.storage.spool, made.storage.results, made.storage.state / "metrics"):
        folder.mkdir(parents=True)
    return made


@pytest.fixture
def catalog(node: config.Config) -> Iterator[Catalog]:
    opened = Catalog.open(node.catalog_url, node.storage.state)
    yield opened
    opened.close()


def counting(folder: Path) -> "subprocess.Popen[str]":
    """A process that counts, and lives until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COUNT, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def values(page: bytes) -> dict[str, float]:
    """By name and labels."""
    return {
        f"{s.name}{json.dumps(s.labels, sort_keys=True) if s.labels else ''}": s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }


def fresh(metrics: Metrics) -> dict[str, float]:
    metrics._page_at = float("-inf")
    return values(metrics.page())


def served(node: config.Config) -> AbstractContextManager[httpx.Client]:
    """The process' own work, in a thread."""
    return web.serving(lambda stop: server.run(node, stop), f"http://127.0.0.1:{node.monitoring.port}", "/live")


def metrics_of(node: config.Config, catalog: Catalog) -> Metrics:
    assert node.counters_folder is not None
    return Metrics(node, node.counters_folder, lambda: catalog)


def test_processes_count_for_themselves_and_a_killed_one_loses_nothing(node: config.Config, catalog: Catalog) -> None:
    assert node.counters_folder is not None
    one, other = (counting(node.counters_folder) for _ in range(2))
    page = metrics_of(node, catalog)
    try:
        found = fresh(page)
        assert found["dicomnode_associations_accepted_total"] == 2
        assert found["dicomnode_associations_open"] == 2
        assert found['dicomnode_associations_refused_total{"reason": "caller"}'] == 2
        # What has not happened yet is there: else Prometheus would see no increase when it does.
        assert found['dicomnode_associations_refused_total{"reason": "rate"}'] == 0
        assert found['dicomnode_delivery_attempts_total{"destination": "pacs", "outcome": "rejected"}'] == 0
        assert found['dicomnode_jobs_total{"state": "failed"}'] == 0
        assert found['dicomnode_stage_seconds_count{"stage": "delivery"}'] == 0
        assert found['dicomnode_objects_received_total{"result": "0xC000"}'] == 2
        assert found["dicomnode_received_bytes_total"] == 1000
        assert found['dicomnode_processes{"role": "receiver"}'] == 2
        assert found["dicomnode_clock_last_tick_timestamp_seconds"] == 1000.0
        one.kill()
        one.wait()
        found = fresh(page)
        assert found["dicomnode_associations_accepted_total"] == 2
        assert found["dicomnode_associations_open"] == 1
        assert found['dicomnode_processes{"role": "receiver"}'] == 1
    finally:
        for process in (one, other):
            process.kill()
            process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()


def test_the_catalogue_in_figures(node: config.Config, catalog: Catalog) -> None:
    page = metrics_of(node, catalog)
    found = fresh(page)
    assert found['dicomnode_deliveries_open{"destination": "pacs", "state": "pending"}'] == 0
    now = time.time()
    uid = "1.2.3"
    catalog.record(Instance("1.1", "1.9", uid, "1.3", "/x", "0" * 64, 10, now - 100, None, "a" * 32))
    catalog.settle(uid, now - 90, held=None)
    catalog.register_worker("host-0", "4")
    found = fresh(page)
    assert found['dicomnode_queue_length{"priority": "routine"}'] == 1
    assert 85 < found['dicomnode_queue_oldest_seconds{"priority": "routine"}'] < 600
    assert found['dicomnode_stage_seconds_sum{"stage": "settle"}'] == pytest.approx(10, abs=0.1)
    assert found['dicomnode_worker_heartbeat_age_seconds{"worker": "host-0"}'] < 60
    assert found["dicomnode_database_up"] == 1
    assert found['dicomnode_disk_free_bytes{"folder": "spool"}'] > 0
    catalog.set_state(uid, 1, "running", now=now - 50)
    catalog.set_state(uid, 1, "analysed", now=now - 20)
    catalog.plan_delivery(uid, 1, "pacs", "seg", "1.9", "1.5", "/x", now=now)
    (planned,) = catalog.deliveries(uid, 1)
    catalog.note_attempt(planned, "pending", text="away", now=now)
    found = fresh(page)
    assert found['dicomnode_deliveries_retrying{"destination": "pacs"}'] == 1
    assert found['dicomnode_stage_seconds_sum{"stage": "queue"}'] == pytest.approx(40, abs=0.1)
    assert found['dicomnode_stage_seconds_sum{"stage": "analysis"}'] == pytest.approx(30, abs=0.1)
    assert found['dicomnode_jobs_total{"state": "analysed"}'] == 1
    assert found['dicomnode_studies{"state": "analysed"}'] == 1
    # Nothing is counted twice.
    assert fresh(page)['dicomnode_jobs_total{"state": "analysed"}'] == 1


def test_a_step_that_becomes_visible_late_is_counted(node: config.Config, catalog: Catalog) -> None:
    """Two transactions: the one with the smaller number is committed last."""
    page = metrics_of(node, catalog)
    fresh(page)
    row = "INSERT INTO transitions (id, study_uid, generation, state, at) VALUES ({}, '1.2', 1, 'failed', 1.0)"
    for number, counted in ((12, 1), (11, 2), (13, 3)):
        with catalog._engine.begin() as connection:
            connection.execute(text(row.format(number)))
        assert fresh(page)['dicomnode_jobs_total{"state": "failed"}'] == counted


def test_figures_without_a_database(node: config.Config) -> None:
    assert node.counters_folder is not None

    def away() -> Catalog:
        return Catalog.reading(f"sqlite:///{node.storage.state}/nowhere.sqlite", node.storage.state)

    found = fresh(Metrics(node, node.counters_folder, away))
    assert found["dicomnode_database_up"] == 0
    assert found['dicomnode_disk_size_bytes{"folder": "state"}'] > 0


def test_the_pages(node: config.Config, catalog: Catalog) -> None:
    association = catalog.begin_association("run", "EVIL_TITLE", "NODE", "192.0.2.1", 1.0)
    catalog.record(Instance("1.1", "1.9", "1.2.3.77", "1.3", "/x", "0" * 64, 10, 1.0, association, "a" * 32))
    for study in catalog.unlabelled(0.0, 1e12, 10):
        catalog.note_label(study, Label("PATIENT-KOELN", "", "ACC-1"))
    with served(node) as client:
        assert client.get("/live").text == "alive\n"
        answer = client.get("/ready")
        checks = answer.json()["checks"]
        assert answer.status_code == 503
        wrong = {what for what, check in checks.items() if not check["ok"]}
        assert wrong == {"worker", f"receiver on port {node.node.port}"}
        catalog.register_worker("host-0", "4")
        with socket.create_server(("127.0.0.1", node.node.port)):
            answer = client.get("/ready")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)
        # Nobody is named, and nothing that a peer may choose is a label.
        pages = "".join(client.get(path).text for path in ("/live", "/ready", "/metrics"))
        assert [word for word in ("KOELN", "ACC-1", "EVIL", "1.2.3.77") if word in pages] == []
        assert "dicomnode_studies" in pages
        assert [client.get(path).status_code for path in ("/", "/metrics/x", "/..%2fetc/passwd")] == [404] * 3
        assert [client.request(m, "/metrics").status_code for m in ("POST", "PUT", "DELETE")] == [405] * 3


def test_a_full_disk_is_not_ready(node: config.Config, catalog: Catalog) -> None:
    storage = node.storage.model_copy(update={"minimum_free_gb": 1e9})
    checks = {c.what: c for c in ready(node.model_copy(update={"storage": storage}), lambda: catalog)}
    assert (checks["database"].ok, checks["disk"].ok) == (True, False)
    assert "storage.minimum_free_gb is 1e+09" in checks["disk"].text


def test_an_address_that_is_taken_is_told(node: config.Config) -> None:
    with (
        socket.create_server(("127.0.0.1", node.monitoring.port)),
        pytest.raises(
            ConfigurationError, match=r"\[monitoring\] cannot listen on 127.0.0.1:\d+: Address already in use"
        ),
    ):
        server.run(node, threading.Event())


def test_whose_process_has_ended_is_buried(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in (ended.pid, os.getpid()):
        (tmp_path / f"gauge_livesum_{number}.db").touch()
        (tmp_path / f"counter_{number}.db").touch()
    counters.forget_dead(tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted([f"counter_{ended.pid}.db", f"counter_{os.getpid()}.db", f"gauge_livesum_{os.getpid()}.db"])
    counters.forget_dead(tmp_path, counted=True)
    assert f"counter_{ended.pid}.db" not in [p.name for p in tmp_path.iterdir()]
    assert (tmp_path / f"counter_{os.getpid()}.db").exists()


def test_without_monitoring_nothing_is_counted(node: config.Config) -> None:
    off = node.model_copy(update={"monitoring": node.monitoring.model_copy(update={"port": 0})})
    begin_counting(off, "receiver")
    assert off.counters_folder is None
    assert list((off.storage.state / "metrics").iterdir()) == []


def test_the_bundled_certificates_tell_their_days(
    node: config.Config, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime.now(UTC) + timedelta(days=10)
    one = TlsFinding(Path("/tls/node.crt"), ok=True, text="", until=end)
    monkeypatch.setattr(collector, "inspect", lambda _files, _now: [one, replace(one, until=end + timedelta(days=90))])
    monkeypatch.setattr(config.Config, "all_tls_files", property(lambda _self: (None,)))
    found = fresh(metrics_of(node, catalog))
    assert found['dicomnode_certificate_days{"file": "/tls/node.crt"}'] == pytest.approx(10, abs=0.1)
