"""The durable workflow of one study, on DBOS: analyse → encode → one delivery per destination, each with its own queue.

A finished step is never run again: its outcome is in the database, its files are in the results folder. A step that
was cut short runs once more from its start, which is harmless, because files are written whole, the objects' UIDs are
derived from the input and the method, and what a destination has accepted is recorded object by object.

The study's workflow ends when the deliveries are queued; a PACS that is away for hours holds back neither the next
study nor another destination.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbos import DBOS, DBOSConfig

from dicomnode import logs, peers, results
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.config import Config, Destination
from dicomnode.dimse import sender
from dicomnode.errors import DicomnodeError, PeerError, PeerRejectedError, SpoolError
from dicomnode.intake.catalog import Catalog
from dicomnode.intake.records import Delivery, DeliveryState, Job
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
    try:
        status = analyse_step(study_uid, generation)
        if status not in ("analysed", "refused"):
            return status
        destinations = encode_step(study_uid, generation, status)
    except DicomnodeError as e:
        return fail_step(study_uid, generation, str(e))
    except Exception as e:  # noqa: BLE001  (whatever it is: this study fails visibly, the worker goes on)
        logs.trouble(log, e, "study %s generation %d failed", study_uid, generation)
        return fail_step(study_uid, generation, f"{type(e).__name__}: see the worker's log")
    for name in destinations:
        _enqueue_delivery(study_uid, generation, run, name, attempt=1, waited=0.0, pause=0.0)
    return status


@DBOS.step(name="analyse")
def analyse_step(study_uid: str, generation: int) -> str:
    """Select and analyse; leaves a checkpoint in the results folder.

    Returns "analysed" or "refused"; the job's state where it has been cancelled or superseded meanwhile.
    """
    work = _current()
    state = work.catalog.set_state(study_uid, generation, "running", now=time.time())
    if state != "running":
        log.info("study %s generation %d is %s: not analysed", study_uid, generation, state)
        return state
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
    folder = results_folder(work.config, study_uid, generation)
    context = results.context(_job(work.catalog, study_uid, generation).created_at, work.config.node.ae_title)
    if status == "refused":
        return _refuse(work, study_uid, generation, folder, context)
    checkpoint = results.Checkpoint.restore(folder)
    objects = results.encode(checkpoint, context, folder)
    for destination in work.config.destination:
        _plan(work, study_uid, generation, destination, [o for o in objects if o.name in destination.objects])
    checkpoint.discard(folder)
    work.catalog.set_state(study_uid, generation, "analysed", now=time.time())
    log.info("study %s generation %d: analysed, %d objects", study_uid, generation, len(objects))
    return [d.name for d in work.config.destination]


def _refuse(work: Work, study_uid: str, generation: int, folder: Path, context: Context) -> list[str]:
    findings = Findings.from_json((folder / "findings.json").read_text("utf-8"))
    wanting = [d for d in work.config.destination if d.refused_report]
    sources = work.catalog.instances(study_uid)
    if wanting and sources:
        report = results.encode_refusal(findings, Path(sources[0].path), context, folder)
        for destination in wanting:
            _plan(work, study_uid, generation, destination, [report])
    reason = refusal_reason(findings)
    work.catalog.set_state(study_uid, generation, "refused", reason, now=time.time())
    log.info("study %s generation %d is refused: %s", study_uid, generation, reason)
    return [d.name for d in wanting]


def _plan(
    work: Work, study_uid: str, generation: int, destination: Destination, objects: Sequence[results.ResultObject]
) -> None:
    for o in objects:
        work.catalog.plan_delivery(
            study_uid,
            generation,
            destination.name,
            o.name,
            o.sop_class_uid,
            o.sop_instance_uid,
            str(o.path),
            now=time.time(),
        )


def refusal_reason(findings: Findings) -> str:
    """One line for the table of jobs: the codes of each kind of series, no patient data."""
    if not findings.rejected:
        return "the study holds no readable series"
    kinds = [f"{r.modality or 'no modality'}: {', '.join(x.code for x in r.reasons)}" for r in findings.rejected]
    return "; ".join(dict.fromkeys(kinds))


@DBOS.step(name="fail")
def fail_step(study_uid: str, generation: int, reason: str) -> str:
    """Make a failure visible in `dicomnode jobs`. Returns the job's state."""
    return _current().catalog.set_state(study_uid, generation, "failed", reason, now=time.time())


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
    peer = peers.to_peer(next(d for d in work.config.destination if d.name == destination), work.config)
    for planned in work.catalog.deliveries(study_uid, generation):
        if planned.destination != destination or planned.state != "pending":
            continue
        try:
            sent = sender.send(peer, [Path(planned.path)])[0]
        except PeerRejectedError as e:
            _mark(work.catalog, planned, "rejected", text=str(e))
            log.error("%s refuses %s for good: %s", destination, planned.object, e)
        except PeerError as e:
            _mark(work.catalog, planned, "pending", text=str(e))
            log.warning("%s did not take %s, will try again: %s", destination, planned.object, e)
            return str(e)
        else:
            _mark(work.catalog, planned, "delivered", status=sent.status, text=sent.outcome)
            log.info("%s stored %s (0x%04X)", destination, planned.object, sent.status)
    return None


def _mark(catalog: Catalog, d: Delivery, state: DeliveryState, *, status: int | None = None, text: str) -> None:
    catalog.mark_delivery(
        d.study_uid,
        d.generation,
        d.destination,
        d.object,
        state,
        status=status,
        text=text,
        attempts=d.attempts + 1,
        now=time.time(),
    )


@DBOS.step(name="give-up")
def give_up_step(study_uid: str, generation: int, destination: str, why: str) -> str:
    """Set aside what could not be delivered; `dicomnode jobs retry` takes it up again."""
    catalog = _current().catalog
    for d in catalog.deliveries(study_uid, generation):
        if d.destination == destination and d.state == "pending":
            _mark(catalog, d, "failed", text=why)
    return conclude(catalog, study_uid, generation)


@DBOS.step(name="conclude")
def conclude_step(study_uid: str, generation: int) -> str:
    """Bring the job's state in line with its deliveries."""
    return conclude(_current().catalog, study_uid, generation)


def conclude(catalog: Catalog, study_uid: str, generation: int) -> str:
    """The job's state from its deliveries: delivered when all are, failed when one was given up or rejected."""
    deliveries = catalog.deliveries(study_uid, generation)
    lost = [d for d in deliveries if d.state in ("failed", "rejected")]
    state = _job(catalog, study_uid, generation).state
    if lost:
        what = "; ".join(f"{d.object} to {d.destination}: {d.text}" for d in lost)
        return catalog.set_state(study_uid, generation, "failed", what, now=time.time())
    if state == "analysed" and all(d.state == "delivered" for d in deliveries):
        return catalog.set_state(study_uid, generation, "delivered", now=time.time())
    return state


def _job(catalog: Catalog, study_uid: str, generation: int) -> Job:
    job = catalog.job(study_uid, generation)
    if job is None:
        raise SpoolError(f"study {study_uid} generation {generation} is not in the catalogue")
    return job


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
