"""The jobs of the node as `dicomnode jobs` shows and changes them. No patient data: a study is named by its UID."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast, get_args

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations.audited import note_command
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import ARRIVED, REJECTION, Delivery, Job, JobState, Routing, Study
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.workflows.queue import Queue

_ENDED = ("refused", "failed", "cancelled", "delivered", "committed", "analysed", "ignored")
_CONFLICTS = "SOP Instance UIDs received again with different content"


def overview(config: Config, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Return one row for each job, newest first."""
    if state is not None and state not in get_args(JobState):
        raise UsageError(f"{state!r} is not a job state; states: {', '.join(get_args(JobState))}")
    catalog = _open(config)
    rows = []
    for job in catalog.jobs(state=cast("JobState | None", state), limit=limit):
        deliveries = catalog.deliveries(job.study_uid, job.generation)
        done = sum(d.state in ARRIVED for d in deliveries)
        study = _study(catalog, job.study_uid)
        rows.append(
            {
                "study_uid": job.study_uid,
                "generation": job.generation,
                "state": job.state,
                "instances": study.instances,
                "last_seen": _text(study.last_seen),
                "delivered": f"{done}/{len(deliveries)}",
                "reason": job.reason or "",
                "flags": "; ".join(_flags(catalog, job, deliveries)),
            }
        )
    return rows


def _flags(catalog: Catalog, job: Job, deliveries: list[Delivery]) -> list[str]:
    """Return what a person should know of a job that its state does not say."""
    conflicts = len(catalog.conflicts(job.study_uid))
    warnings = sum(d.text == "warning" for d in deliveries)
    return [
        *([f"{_CONFLICTS}: {conflicts} (quarantined: accept or reject)"] if conflicts else []),
        *([f"{warnings} objects stored with a warning"] if warnings else []),
        *(["prior scan, fetched for comparison"] if catalog.is_prior(job.study_uid) else []),
    ]


def details(config: Config, study_uid: str, generation: int | None) -> dict[str, Any]:
    """All that the node knows of one job."""
    catalog = _open(config)
    job = _find(catalog, study_uid, generation)
    study = _study(catalog, study_uid)
    folder = results_folder(config.storage.results, study_uid, job.generation)
    deliveries = catalog.deliveries(study_uid, job.generation)
    findings = folder / FINDINGS
    return {
        "study_uid": study_uid,
        "generation": job.generation,
        "state": job.state,
        "reason": job.reason or "",
        "flags": "; ".join(_flags(catalog, job, deliveries)),
        "instances": study.instances,
        "first_seen": _text(study.first_seen),
        "last_seen": _text(study.last_seen),
        "results": str(folder) if findings.exists() else "",
        "series": _series(findings),
        "routing": _routing(catalog.routing(study_uid, job.generation)),
        "deliveries": _deliveries(deliveries),
        "conflicts": [
            {"sop_instance_uid": c.sop_instance_uid, "sha256": c.sha256, "received": _text(c.received_at)}
            for c in catalog.conflicts(study_uid)
        ],
        "corrections": _corrections(catalog, study_uid),
    }


def _corrections(catalog: Catalog, study_uid: str) -> list[dict[str, Any]]:
    """Return a row for each decision: what one person or caller decided at one time is one."""
    alike = Counter((c.action, c.who, _text(c.at)) for c in catalog.corrections(study_uid))
    return [{"action": action, "objects": n, "who": who, "at": at} for (action, who, at), n in alike.items()]


def _deliveries(deliveries: list[Delivery]) -> list[dict[str, Any]]:
    """Return a row for each object of a result; received images of one destination that fared alike share a row."""
    alike: dict[tuple[object, ...], list[Delivery]] = {}
    for d in deliveries:
        object_ = d.object if d.kind == "results" else "originals"
        text = d.text or ""
        key = (d.destination, object_, d.state, d.status, text.replace(d.sop_instance_uid, ""))
        alike.setdefault(key, []).append(d)
    return [
        {
            "destination": some[0].destination,
            "object": some[0].object if some[0].kind == "results" else f"{len(some)} received images",
            "state": some[0].state,
            "attempts": max(d.attempts for d in some),
            "status": "" if some[0].status is None else f"0x{some[0].status:04X}",
            "text": some[0].text or "",
        }
        for some in alike.values()
    ]


def _routing(noted: Routing | None) -> dict[str, Any]:
    """Return what the rules decided, and why; {} where none were asked."""
    if noted is None:
        return {}
    released = "" if noted.released_at is None else _text(noted.released_at)
    return {**json.loads(noted.decision), "decided_at": _text(noted.decided_at), "released_at": released}


def _series(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    findings = Findings.from_json(path.read_text("utf-8"))
    rows: list[dict[str, Any]] = []
    if findings.series is not None:
        s = findings.series
        rows.append(
            {"series_uid": s.series_uid, "modality": "CT", "slices": s.slices, "decided": f"chosen: {s.why_chosen}"}
        )
    rows.extend(
        {
            "series_uid": r.series_uid,
            "modality": r.modality,
            "slices": r.slices,
            "decided": "; ".join(f"{x.code}: {x.text}" for x in r.reasons),
        }
        for r in findings.rejected
    )
    return rows


def retry(config: Config, study_uid: str, generation: int | None) -> str:
    """Run an ended job again. Return a sentence for the caller.

    If only deliveries failed, only they are repeated: the result stays as it is.

    Raises:
        UsageError: there is no such job, it has not ended, or a newer generation has taken its place.
    """
    catalog = _open(config)
    job = _find(catalog, study_uid, generation)
    newest = _study(catalog, study_uid).generation
    if job.generation < newest:
        raise UsageError(f"generation {job.generation} has been superseded by generation {newest}")
    if job.state not in _ENDED:
        raise UsageError(f"the job is {job.state}: only an ended job can be retried ({', '.join(_ENDED)})")
    if not _study(catalog, study_uid).instances:
        raise UsageError("the study has no images here (removed to free space, or dropped): send it again")
    note_command(config, "jobs retry", {"generation": str(job.generation)}, study_uid)
    lost = [d for d in catalog.deliveries(study_uid, job.generation) if d.state in ("failed", "rejected")]
    for d in lost:
        _pending_again(catalog, d)
    made = _made(config, catalog, job)
    queue = Queue(config)
    try:
        if job.state == "failed" and lost and made is not None:
            catalog.set_state(study_uid, job.generation, made, "deliveries retried manually", now=time.time())
            queue.deliver(study_uid, job.generation, sorted({(d.destination, d.kind) for d in lost}))
            names = sorted({d.destination for d in lost})
            return f"{len(lost)} deliveries to {', '.join(names)} queued again"
        if _is_out(catalog, job):
            return _next_version(catalog, queue, job)
        if not config.routes_studies:
            catalog.forget_routing(study_uid, job.generation)
        catalog.set_state(study_uid, job.generation, "queued", "retried manually", now=time.time())
        return f"queued again as {queue.enqueue(study_uid, job.generation, again=True)}"
    finally:
        queue.close()


def _is_out(catalog: Catalog, job: Job) -> bool:
    """Whether a destination holds a result of this job: another one must be told from it."""
    return any(d.kind == "results" and d.state in ARRIVED for d in catalog.deliveries(job.study_uid, job.generation))


def _next_version(catalog: Catalog, queue: Queue, job: Job) -> str:
    made = catalog.open_generation(job.study_uid, job.generation, "retried manually", now=time.time())
    if made is None:
        raise UsageError("the study is receiving, or has just settled anew: its next generation comes by itself")
    return f"queued as generation {made}: {queue.enqueue(job.study_uid, made)}"


def _made(config: Config, catalog: Catalog, job: Job) -> JobState | None:
    """Return the state of a job of which only deliveries were lost; None if its result itself was not made."""
    noted = catalog.routing(job.study_uid, job.generation)
    if noted is not None and json.loads(noted.decision)["action"]["analyse"] is None:
        return "routed"
    planned = {d.object for d in catalog.deliveries(job.study_uid, job.generation) if d.kind == "results"} - {REJECTION}
    if planned:
        return "refused" if planned == {"refusal"} else "analysed"
    findings = results_folder(config.storage.results, job.study_uid, job.generation) / FINDINGS
    refused = findings.exists() and Findings.from_json(findings.read_text("utf-8")).status == "refused"
    return "refused" if refused else None


def release(config: Config, study_uid: str) -> str:
    """Release a study that a rule holds, and do what the rule decided. Return a sentence for the caller.

    Raises:
        UsageError: there is no such job, or no rule holds it.
    """
    catalog = _open(config)
    job = _find(catalog, study_uid, None)
    if job.state != "held":
        raise UsageError(f"the job is {job.state}: only a held job can be released")
    note_command(config, "jobs release", {"generation": str(job.generation)}, study_uid)
    if not catalog.release_held(study_uid, job.generation, now=time.time()):
        raise UsageError(
            f"not held by a rule: {job.reason}; see `dicomnode jobs show`, then accept, reject or drop what is wrong"
        )
    catalog.set_state(study_uid, job.generation, "queued", "released manually", now=time.time())
    queue = Queue(config)
    try:
        return f"released as {queue.release(study_uid, job.generation)}"
    finally:
        queue.close()


def _pending_again(catalog: Catalog, d: Delivery) -> None:
    catalog.mark_delivery(
        d.study_uid,
        d.generation,
        d.destination,
        d.object,
        "pending",
        status=None,
        text="retried manually",
        attempts=d.attempts,
        now=time.time(),
    )


def cancel(config: Config, study_uid: str, generation: int | None) -> str:
    """Cancel a job that has not ended; received images are kept. Return a sentence for the caller.

    Raises:
        UsageError: there is no such job, or nothing of it is left to cancel.
    """
    catalog = _open(config)
    job = _find(catalog, study_uid, generation)
    note_command(config, "jobs cancel", {"generation": str(job.generation)}, study_uid)
    queue = Queue(config)
    try:
        live = queue.cancel(study_uid, job.generation)
    finally:
        queue.close()
    if not live:
        raise UsageError(f"the job is {job.state}: it has nothing queued or running")
    catalog.set_state(study_uid, job.generation, "cancelled", "cancelled manually", now=time.time())
    return f"cancelled; {live} queued or running workflows stopped, received images kept"


def _open(config: Config) -> Catalog:
    if not config.storage.database_url and not config.storage.state.is_dir():
        raise UsageError(f"{config.storage.state}: the node has never run with this configuration")
    return Catalog.open(config.catalog_url, config.storage.state)


def _find(catalog: Catalog, study_uid: str, generation: int | None) -> Job:
    if generation is None:
        study = catalog.study(study_uid)
        generation = 0 if study is None else study.generation
    job = catalog.job(study_uid, generation)
    if job is None:
        raise UsageError(f"{study_uid}: no such job; see `dicomnode jobs list`")
    return job


def _study(catalog: Catalog, study_uid: str) -> Study:
    study = catalog.study(study_uid)
    if study is None:
        raise SpoolError(f"study {study_uid} has a job but is not in the catalogue: the database was edited")
    return study


def _text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
