"""What became of a study as a trace: its spans, that it names no patient, and that nobody needs a collector."""

import gzip
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import ConfigurationError
from dicomnode.monitoring import traces
from dicomnode.monitoring.collector import Metrics
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label
from dicomnode.store.records import Instance

UID = "1.2.3"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield opened
    opened.close()


def loaded(tmp_path: Path, url: str) -> config.Config:
    (tmp_path / "ae_config.toml").write_text(f'[monitoring]\nport = 9108\ntraces = "{url}"\n')
    return config.load(tmp_path / "ae_config.toml")


def deliver(catalog: Catalog) -> None:
    association = catalog.begin_association("run", "EVIL", "NODE", "192.0.2.1", 99.0)
    catalog.record(Instance("1.1", "1.9", UID, "1.3", "/x", "0" * 64, 10, 100.0, association, "a" * 32))
    catalog.end_association(association, "released", 101.0)
    for study in catalog.unlabelled(0.0, 1e12, 10):
        catalog.note_label(study, Label("PATIENT-KOELN", "", "ACC-1"))
    catalog.settle(UID, 110.0, held=None)
    catalog.set_state(UID, 1, "running", now=120.0)
    catalog.set_state(UID, 1, "analysed", now=150.0)
    catalog.plan_delivery(UID, 1, "pacs", "seg", "1.9", "1.5", "/x", now=150.0)
    catalog.mark_delivery(UID, 1, "pacs", "seg", "delivered", status=0, text="stored", attempts=3, now=170.0)
    catalog.conclude(UID, 1, now=170.0)


def test_a_study_from_its_association_to_its_delivery(
    tmp_path: Path, catalog: Catalog, extra: Callable[[str, str], None]
) -> None:
    extra("opentelemetry.exporter.otlp.proto.http", "tracing")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    made = loaded(tmp_path, "http://127.0.0.1:4318/v1/traces")
    sending = traces.Traces(made, exporter)
    metrics = Metrics(made, tmp_path, lambda: catalog, sending)
    metrics.follow()
    deliver(catalog)
    metrics.follow()
    metrics.follow()
    catalog.set_state(UID, 1, "committed", now=200.0)
    metrics.follow()
    sending.close()
    spans = exporter.get_finished_spans()
    told = sorted((s.name, s.start_time / 1e9, s.end_time / 1e9) for s in spans)
    assert told == sorted([
        ("study", 99.0, 170.0), ("association", 99.0, 101.0), ("receive", 100.0, 100.0), ("settle", 100.0, 110.0),
        ("queue", 110.0, 120.0), ("analysis", 120.0, 150.0), ("delivery", 150.0, 170.0), ("commitment", 170.0, 200.0),
    ])  # fmt: skip
    (root,) = [s for s in spans if s.name == "study"]
    assert root.parent is None
    assert {s.parent.span_id for s in spans if s is not root} == {root.context.span_id}
    assert {s.context.trace_id for s in spans} == {root.context.trace_id}
    assert len({s.context.span_id for s in spans}) == len(spans)
    (delivery,) = [s for s in spans if s.name == "delivery"]
    assert (delivery.attributes["dicomnode.destination"], delivery.attributes["dicomnode.attempts"]) == ("pacs", 3)
    text = "".join(s.to_json() for s in spans)
    assert [word for word in ("KOELN", "ACC-1", "EVIL", "192.0.2.1") if word in text] == []


def test_it_goes_to_a_collector(tmp_path: Path, catalog: Catalog, extra: Callable[[str, str], None]) -> None:
    extra("opentelemetry.exporter.otlp.proto.http", "tracing")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(server.serve_forever)
        made = loaded(tmp_path, f"http://127.0.0.1:{server.server_port}/v1/traces")
        try:
            sending = traces.begin(made)
            assert sending is not None
            metrics = Metrics(made, tmp_path, lambda: catalog, sending)
            metrics.follow()
            deliver(catalog)
            metrics.follow()
            sending.close()
        finally:
            server.shutdown()
            serving.result(30)
    found = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    assert sum(len(s.spans) for one in found for r in one.resource_spans for s in r.scope_spans) == 7


def test_without_the_packages_it_is_said_and_all_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    made = loaded(tmp_path, "http://127.0.0.1:4318/v1/traces")
    assert traces.begin(made) is None
    assert "install.sh --upgrade --tracing" in caplog.text
    with pytest.raises(ConfigurationError):
        traces.Traces(made)
    assert traces.begin(made.model_copy(update={"monitoring": config.Config().monitoring})) is None
    assert len(caplog.records) == 1


def test_traces_need_monitoring(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text('[monitoring]\ntraces = "http://127.0.0.1:4318/v1/traces"\n')
    with pytest.raises(ConfigurationError, match="traces needs a port"):
        config.load(tmp_path / "ae_config.toml")
