"""The durable workflow of one study, on DBOS: analyse → encode → one delivery per destination, each with its own queue.

A finished step is never run again: its outcome is in the database, its files are in the results folder. A step that
was cut short runs once more from its start, which is harmless, because files are written whole, the objects' UIDs are
derived from the input and the method, and what a destination has accepted is recorded object by object.

The study's workflow ends when the deliveries are queued; a PACS that is away for hours holds back neither the next
study nor another destination.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from dbos import DBOS, DBOSConfig

from dicomnode import logs, peers, results
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.config import Config, Destination
from dicomnode.dimse import sender
from dicomnode.errors import DicomnodeError, PeerError, PeerRejectedError
from dicomnode.intake.catalog import Catalog
from dicomnode.queueing import STUDY_QUEUE, delivery_queue, results_folder, study_id
from dicomnode.report.context import Context

log = logging.getLogger(__name__)

#: Workflows of another version are left alone by a worker: raise it when steps change their order or meaning.
WORKFLOW_VERSION = "1"
#: A study that takes its worker down this often is set aside instead of taking it down for ever.
MOST_RECOVERIES = 20


@dataclass(frozen=True)
class Work:
    """What a worker needs to do its work."""

    config: Config
    catalog: Catalog
    method: Method


_work: Work | None = None


def _current() -> Work:
    if _work is None:
        raise RuntimeError("the worker was not started: call start() first")
    return _work


@DBOS.workflow(name="study", max_recovery_attempts=MOST_RECOVERIES)
def study(study_uid: str, generation: int, run: int) -> str:
    """Analyse a settled study and hand its results over. Returns the job's state."""
    catalog = _current().catalog
    try:
        status = analyse_step(study_uid, generation)
        destinations = encode_step(study_uid, generation, status)
    except DicomnodeError as e:
        return _end(study_uid, generation, "failed", str(e))
    except Exception as e:  # noqa: BLE001  (whatever it is: this study fails visibly, the worker goes on)
        logs.trouble(log, e, "study %s generation %d failed", study_uid, generation)
        return _end(study_uid, generation, "failed", f"{type(e).__name__}: see the worker's log")
    for name in destinations:
        _enqueue_delivery(study_uid, generation, run, name, attempt=1, waited=0.0, pause=0.0)
    if catalog.job(study_uid, generation).state == "cancelled":
        return "cancelled"
    return status


@DBOS.step(name="analyse")
def analyse_step(study_uid: str, generation: int) -> str:
    """Select and analyse; leaves a checkpoint in the results folder. Returns "analysed" or "refused"."""
    work = _current()
    work.catalog.set_state(study_uid, generation, "running", now=time.time())
    files = [Path(i.path) for i in work.catalog.instances(study_uid)]
    folder = results_folder(work.config, study_uid, generation)
    log.info("study %s generation %d: analysing %d files", study_uid, generation, len(files))
    analysis = analyse(files, work.method)
    if analysis.findings.status == "analysed":
        results.Checkpoint.of(analysis).save(folder)
    else:
        results.write_whole(folder / "findings.json", analysis.findings.to_json().encode())
    return analysis.findings.status


@DBOS.step(name="encode")
def encode_step(study_uid: str, generation: int, status: str) -> list[str]:
    """Write the reports and plan their deliveries. Returns the destinations that get something."""
    work = _current()
    job = work.catalog.job(study_uid, generation)
    folder = results_folder(work.config, study_uid, generation)
    context = Context.at(job.queued_at, station_name=work.config.node.ae_title)
    if status == "refused":
        findings = Findings.from_json((folder / "findings.json").read_text("utf-8"))
        wanting = [d for d in work.config.destination if d.refused_report]
        if wanting:
            source = Path(work.catalog.instances(study_uid)[0].path)
            _plan(work, study_uid, generation, wanting, [results.encode_refusal(findings, source, context, folder)])
        work.catalog.set_state(study_uid, generation, "refused", refusal_reason(findings), now=time.time())
        return [d.name for d in wanting]
    checkpoint = results.Checkpoint.restore(folder)
    objects = results.encode(checkpoint, context, folder)
    for destination in work.config.destination:
        wanted = [o for o in objects if o.name in destination.objects]
        _plan(work, study_uid, generation, [destination], wanted)
    work.catalog.set_state(study_uid, generation, "analysed", now=time.time())
    log.info("study %s generation %d: analysed, %d objects", study_uid, generation, len(objects))
    return [d.name for d in work.config.destination]


def _plan(
    work: Work, study_uid: str, generation: int, to: list[Destination], objects: list[results.ResultObject]
) -> None:
    for destination in to:
        for o in objects:
            work.catalog.plan_delivery(
                study_uid, generation, destination.name, o.name, o.sop_class_uid, o.sop_instance_uid, str(o.path)
            )


def refusal_reason(findings: Findings) -> str:
    """One line for the table of jobs: the commonest words first, no patient data."""
    if not findings.rejected:
        return "the study holds no readable series"
    codes = [f"{r.modality or 'no modality'}: {', '.join(x.code for x in r.reasons)}" for r in findings.rejected]
    return "; ".join(dict.fromkeys(codes))


def _enqueue_delivery(
    study_uid: str, generation: int, run: int, destination: str, *, attempt: int, waited: float, pause: float
) -> None:
    """Each attempt is a workflow of its own: one that waits for its time holds no place in the destination's queue."""
    DBOS.enqueue_workflow_with_options(
        {
            "queue_name": delivery_queue(destination),
            "workflow_name": "deliver",
            "workflow_id": f"{study_id(study_uid, generation, run)}/{destination}/{attempt}",
            "delay_seconds": pause,
        },
        study_uid,
        generation,
        run,
        destination,
        attempt,
        waited + pause,
    )


@DBOS.workflow(name="deliver", max_recovery_attempts=MOST_RECOVERIES)
def deliver(study_uid: str, generation: int, run: int, destination: str, attempt: int, waited: float) -> str:
    """Send a study's objects to one destination; where that fails in passing, queue the next attempt.

    Returns how it ended: the job's state, or "again".
    """
    peer = next((d for d in _current().config.destination if d.name == destination), None)
    if peer is None:
        return give_up_step(study_uid, generation, destination, "the destination is no longer configured")
    problem = send_step(study_uid, generation, destination)
    if problem is None:
        return conclude_step(study_uid, generation)
    if waited >= peer.retry_for_s:
        return give_up_step(study_uid, generation, destination, f"gave up after {waited:.0f} s: {problem}")
    pause = min(peer.retry_first_s * 2.0 ** min(attempt - 1, 30), peer.retry_longest_s)
    _enqueue_delivery(study_uid, generation, run, destination, attempt=attempt + 1, waited=waited, pause=pause)
    return "again"


@DBOS.step(name="send")
def send_step(study_uid: str, generation: int, destination: str) -> str | None:
    """Send what the destination has not yet accepted. Returns None when all is settled, else the passing failure."""
    work = _current()
    settings = next(d for d in work.config.destination if d.name == destination)
    peer = peers.to_peer(settings, work.config)
    for planned in work.catalog.deliveries(study_uid, generation):
        if planned.destination != destination or planned.state != "pending":
            continue
        attempt = planned.attempts + 1
        mark = work.catalog.mark_delivery
        key = (study_uid, generation, destination, planned.object)
        try:
            sent = sender.send(peer, [Path(planned.path)])[0]
        except PeerRejectedError as e:
            mark(*key, "rejected", None, str(e), attempt, now=time.time())
            log.error("%s refuses %s for good: %s", destination, planned.object, e)
        except PeerError as e:
            mark(*key, "pending", None, str(e), attempt, now=time.time())
            log.warning("%s did not take %s, will try again: %s", destination, planned.object, e)
            return str(e)
        else:
            mark(*key, "delivered", sent.status, sent.outcome, attempt, now=time.time())
            log.info("%s stored %s (0x%04X)", destination, planned.object, sent.status)
    return None


@DBOS.step(name="give-up")
def give_up_step(study_uid: str, generation: int, destination: str, why: str) -> str:
    """Set aside what could not be delivered; `dicomnode jobs retry` takes it up again."""
    catalog = _current().catalog
    for d in catalog.deliveries(study_uid, generation):
        if d.destination == destination and d.state == "pending":
            catalog.mark_delivery(
                study_uid, generation, destination, d.object, "failed", None, why, d.attempts, now=time.time()
            )
    return conclude(catalog, study_uid, generation)


@DBOS.step(name="conclude")
def conclude_step(study_uid: str, generation: int) -> str:
    """Bring the job's state in line with its deliveries."""
    return conclude(_current().catalog, study_uid, generation)


def conclude(catalog: Catalog, study_uid: str, generation: int) -> str:
    """The job's state from its deliveries: delivered when all are, failed when one was given up or rejected."""
    deliveries = catalog.deliveries(study_uid, generation)
    lost = [d for d in deliveries if d.state in ("failed", "rejected")]
    state = catalog.job(study_uid, generation).state
    if lost:
        what = "; ".join(f"{d.object} to {d.destination}: {d.text}" for d in lost)
        return _end_with(catalog, study_uid, generation, "failed", what)
    if state == "analysed" and all(d.state == "delivered" for d in deliveries):
        return _end_with(catalog, study_uid, generation, "delivered", None)
    return state


def _end(study_uid: str, generation: int, state: str, reason: str | None) -> str:
    return _end_with(_current().catalog, study_uid, generation, state, reason)


def _end_with(catalog: Catalog, study_uid: str, generation: int, state: str, reason: str | None) -> str:
    catalog.set_state(study_uid, generation, state, reason, now=time.time())
    return state


def start(work: Work, executor_id: str) -> None:
    """Start taking work from the queues, and take up again what this executor had begun before it was killed."""
    global _work  # noqa: PLW0603  (DBOS calls plain functions: their surroundings have to stand somewhere)
    _work = work
    settings: DBOSConfig = {
        "name": "dicomnode",
        "system_database_url": work.config.queue_url,
        "application_version": WORKFLOW_VERSION,
        "executor_id": executor_id,
        "enable_otlp": False,
        "log_level": "WARNING",
        "notification_listener_polling_interval_sec": 0.5,
    }
    DBOS(config=settings)
    DBOS.launch()
    DBOS.register_queue(
        STUDY_QUEUE,
        worker_concurrency=work.config.worker.concurrency,
        polling_interval_sec=0.5,
        on_conflict="always_update",
    )
    for d in work.config.destination:
        DBOS.register_queue(
            delivery_queue(d.name),
            global_concurrency=d.concurrency,
            polling_interval_sec=0.5,
            on_conflict="always_update",
        )


def stop(drain_s: float) -> None:
    """Stop taking work; what still runs after `drain_s` seconds is taken up again at the next start."""
    DBOS.destroy(workflow_completion_timeout_sec=int(drain_s))
