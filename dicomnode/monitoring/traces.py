"""What became of a study as an OpenTelemetry trace, from its associations to its deliveries, to an OTLP/HTTP collector.

Nothing is measured for it: the catalogue knows all times, and the trace is sent once the job has ended. So a study
waits for no collector, and workers of other machines are told too. Its ID follows from study and generation: what comes
later (storage commitment) finds its place in it.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.errors import ConfigurationError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.figures import Step
from dicomnode.store.catalog.overview import StudyRow, Wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

log = logging.getLogger(__name__)

#: With these a job ends, for the time being.
_ENDS = ("delivered", "refused", "failed", "cancelled", "routed", "ignored")
_TIMEOUT_S = 5


@dataclass(frozen=True)
class Stage:
    """A span. Times: UTC seconds."""

    name: str
    begin: float
    end: float
    more: dict[str, str | int]


class Traces:
    """Sends a trace for each job that ends. For one thread."""

    def __init__(self, config: Config, exporter: "SpanExporter | None" = None) -> None:
        """Begin to send; `exporter`: instead of the one for `monitoring.traces`.

        Raises:
            ConfigurationError: the packages for it are not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                "monitoring.traces needs packages that are not installed, those of the extra tracing: "
                "deploy/install.sh --upgrade --tracing; or give ''"
            ) from error
        about = {
            "service.name": "dicomnode",
            "service.version": __version__,
            "service.instance.id": config.node.ae_title,
        }
        self._ids = _Ids()
        self._provider = TracerProvider(resource=Resource(about), id_generator=cast("IdGenerator", self._ids))
        sending = exporter or OTLPSpanExporter(endpoint=config.monitoring.traces, timeout=_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(sending))
        self._tracer = self._provider.get_tracer("dicomnode")

    def step(self, catalog: Catalog, step: Step) -> None:
        """Send what a job's step has brought to an end. Raises SpoolError."""
        if step.state in _ENDS:
            rows = catalog.overview(Wanted(study_uid=step.study_uid, generation=step.generation))
            for row in rows:
                self._study(row, step, list(stages(catalog, row, step)))
        elif step.state == "committed":
            stage = Stage("commitment", step.at - step.seconds, step.at, {})
            self._span(stage, step, root=False)

    def close(self) -> None:
        """Send what waits, for a few seconds."""
        self._provider.shutdown()

    def _study(self, row: StudyRow, step: Step, parts: list[Stage]) -> None:
        about: dict[str, str | int] = {"dicomnode.state": step.state, "dicomnode.images": row.instances}
        begin = min([row.first_seen, *(part.begin for part in parts)])
        self._span(Stage("study", begin, max(begin, step.at), about), step, root=True)
        for part in parts:
            self._span(part, step, root=False)

    def _span(self, stage: Stage, step: Step, *, root: bool) -> None:
        from opentelemetry import trace  # noqa: PLC0415

        self._ids.of_job(step.study_uid, step.generation, root=root)
        parent = trace.SpanContext(self._ids.trace_id, self._ids.root_id, True, trace.TraceFlags(1))
        context = trace.set_span_in_context(trace.INVALID_SPAN if root else trace.NonRecordingSpan(parent))
        about = {"dicomnode.study": step.study_uid, "dicomnode.generation": step.generation, **stage.more}
        span = self._tracer.start_span(stage.name, context, attributes=about, start_time=_ns(stage.begin))
        if step.state == "failed" and root:
            span.set_status(trace.StatusCode.ERROR)
        span.end(_ns(max(stage.begin, stage.end)))


def stages(catalog: Catalog, row: StudyRow, step: Step) -> Iterator[Stage]:
    """Yield what a study has gone through. Raises SpoolError."""
    for number, opened, closed in catalog.associations_of(row.study_uid):
        yield Stage("association", opened, opened if closed is None else closed, {"dicomnode.association": number})
    yield Stage("receive", row.first_seen, row.last_seen, {})
    if row.settled_at is not None:
        yield Stage("settle", row.last_seen, row.settled_at, {})
    known = [one for one in catalog.transitions(row.study_uid) if one.generation == row.generation]
    for one, following in pairwise(known):
        if one.at <= step.at and one.state in ("held", "queued", "running"):
            name = {"queued": "queue", "running": "analysis"}.get(one.state, one.state)
            yield Stage(name, one.at, following.at, {"dicomnode.state": following.state})
    sent = catalog.deliveries(row.study_uid, row.generation)
    for name in dict.fromkeys(one.destination for one in sent):
        mine = [one for one in sent if one.destination == name]
        begin = row.analysed_at or row.settled_at or row.last_seen
        more: dict[str, str | int] = {
            "dicomnode.destination": name,
            "dicomnode.objects": len(mine),
            "dicomnode.attempts": max(one.attempts for one in mine),
        }
        yield Stage("delivery", begin, max(one.updated_at for one in mine), more)


class _Ids:
    """What the SDK asks for the IDs of a span: of a job's root always the same, of the others by chance."""

    def __init__(self) -> None:
        self.trace_id = self.root_id = 1
        self._is_root, self._count = True, 0

    def of_job(self, study_uid: str, generation: int, *, root: bool) -> None:
        """Give the next span an ID of this job's trace."""
        digest = hashlib.sha256(f"{study_uid} {generation}".encode()).digest()
        self.trace_id, self.root_id = int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1
        self._is_root = root

    def generate_trace_id(self) -> int:
        """As the SDK calls it."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """As the SDK calls it."""
        if self._is_root:
            return self.root_id
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

        return int(RandomIdGenerator().generate_span_id())

    def is_trace_id_random(self) -> bool:
        """As the SDK calls it."""
        return False


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def begin(config: Config) -> Traces | None:
    """Return what sends traces; None where none are wanted, or the packages for it are missing, which is logged."""
    if not config.monitoring.traces:
        return None
    try:
        return Traces(config)
    except ConfigurationError as error:
        log.error("no traces: %s", error)
        return None
