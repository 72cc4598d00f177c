"""Prometheus scrapes a node and loads our rules; the alert of a PACS that is away fires, and ends when it is back."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.running import ROOT, Node, Orthanc, storescu_process
from tests.helpers.waiting import until
from tests.helpers.web import http_client

DEPLOY = ROOT / "deploy" / "prometheus"
#: Too few slices: refused at once, and the report that says so is what is delivered.
SCAN = "chest_tiny_cip/ct-64Dicom"
AWAY = "DicomnodeDestinationAway"


def test_the_rules_and_the_configuration_hold(peer: Callable[[str, str], str]) -> None:
    promtool = peer("promtool", "prometheus")
    for words in (
        ["check", "rules", "dicomnode-rules.yml"],
        ["test", "rules", "dicomnode-rules-test.yml"],
        ["check", "config", "prometheus.yml"],
    ):
        done = subprocess.run([promtool, *words], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_board_asks_for_figures_that_the_node_has(peer: Callable[[str, str], str], tmp_path: Path) -> None:
    promtool = peer("promtool", "prometheus")
    board = json.loads((ROOT / "deploy" / "grafana" / "dicomnode.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    # promtool has no command that checks a query: a rule of each has to load.
    rules = [{"record": f"board:{number}", "expr": expr} for number, expr in enumerate(asked)]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    command = [promtool, "check", "rules", tmp_path / "board.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    documented = (ROOT / "docs" / "admin" / "monitoring.md").read_text("utf-8")
    named = {name for expr in asked for name in re.findall(r"dicomnode_\w+", expr)}
    named |= set(re.findall(r"dicomnode_\w+", (DEPLOY / "dicomnode-rules.yml").read_text()))
    assert {name for name in named if name.removesuffix("_bucket") not in documented} == set()


class Prometheus:
    """A server with our configuration, which looks every second and alerts without delay."""

    def __init__(self, folder: Path, program: str, target: int) -> None:
        self.port = free_port()
        folder.mkdir()
        written = (DEPLOY / "prometheus.yml").read_text()
        assert "127.0.0.1:9108" in written
        written = written.replace("127.0.0.1:9108", f"127.0.0.1:{target}").replace("15s", "1s")
        (folder / "prometheus.yml").write_text(written)
        rules = (DEPLOY / "dicomnode-rules.yml").read_text()
        (folder / "dicomnode-rules.yml").write_text(re.sub(r"for: \w+", "for: 0s", rules))
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log
            )
        self.client = http_client(f"http://127.0.0.1:{self.port}/api/v1", timeout=10)

    def get(self, path: str, **parameters: str) -> Any:
        try:
            answer = self.client.get(path, params=parameters)
        except httpx.TransportError:
            return {}
        return answer.json()["data"] if answer.status_code == 200 else {}

    def alerts(self) -> set[str]:
        found = self.get("/alerts").get("alerts", [])
        return {f"{a['labels']['alertname']} {a['labels'].get('destination', '')}" for a in found}

    def value(self, query: str) -> float | None:
        found = self.get("/query", query=query).get("result", [])
        return float(found[0]["value"][1]) if found else None

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Node, int, int]]:
    """A node with monitoring whose PACS is not there yet; the ports of monitoring and PACS."""
    monitoring, pacs = free_port(), free_port()
    destination = f"""
[monitoring]
port = {monitoring}
[[destination]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs}
refused_report = true
retry_first_s = 1
retry_longest_s = 1
"""
    node = Node(tmp_path / "node", destination, "radiomics = false\n", bundle="").start()
    yield node, monitoring, pacs
    node.stop()


def test_an_alert_fires_while_the_pacs_is_away_and_ends_when_it_is_back(
    data: Path, tmp_path: Path, node: tuple[Node, int, int], peer: Callable[[str, str], str]
) -> None:
    running, monitoring, pacs = node
    storescu, orthanc = peer("storescu", "dcmtk"), peer("Orthanc", "orthanc")
    ready = f"http://127.0.0.1:{monitoring}/ready"
    prometheus = Prometheus(tmp_path / "prometheus", peer("prometheus", "prometheus"), monitoring)
    back: Orthanc | None = None
    try:
        until("the node is ready", lambda: _status(ready) == 200, 120)
        until("Prometheus scrapes", lambda: prometheus.value("dicomnode_database_up") == 1, 60)
        groups = prometheus.get("/rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        make_study(data / SCAN, tmp_path / "study", "away", 30)
        assert storescu_process(storescu, running.port, tmp_path / "study").returncode == 0
        until("the alert fires", lambda: f"{AWAY} pacs" in prometheus.alerts(), 120)
        # The refusal and its page.
        assert prometheus.value('dicomnode_deliveries_open{destination="pacs",state="pending"}') == 2
        assert (prometheus.value("dicomnode_objects_received_total") or 0) > 0
        assert prometheus.value('dicomnode_jobs_total{state="refused"}') == 1
        (tmp_path / "pacs").mkdir()
        back = Orthanc(tmp_path / "pacs", orthanc, {"DicomPort": pacs})
        until("the alert ends", lambda: prometheus.alerts().isdisjoint({f"{AWAY} pacs"}), 120)
        assert running.jobs()[study_uid("away")] == "refused"
        (row,) = json.loads(running.cli("jobs", "list", "--json", "--state", "refused").stdout)
        assert row["delivered"] == "2/2"
        # What a patient's images say stands in no figure.
        page = httpx.get(f"http://127.0.0.1:{monitoring}/metrics").text
        assert study_uid("away") not in page
        figures = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
        assert sorted(set(figures)) == sorted(figures)
        running.child("receive").kill()
        until("it is not ready without a receiver", lambda: _status(ready) == 503, 30)
        until("its receiver is back", lambda: _status(ready) == 200, 90)
    finally:
        if back is not None:
            back.stop()
        prometheus.stop()
        shutil.rmtree(tmp_path / "prometheus" / "data", ignore_errors=True)


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.TransportError:
        return 0
