"""The jobs of the node as `dicomnode jobs` shows and changes them. No patient data: a study is named by its UID."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from dicomnode import logs
from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.context import order
from dicomnode.errors import SpoolError, UsageError
from dicomnode.files import OutsideRootError
from dicomnode.operations import looking
from dicomnode.operations.audited import note_command
from dicomnode.operations.looking import Pages, text
from dicomnode.results import reader_flags
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.jobs import LIVE
from dicomnode.store.catalog.overview import Wanted
from dicomnode.store.records import ARRIVED, REJECTION, Delivery, Job, JobState, Routing, Study
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import Queue

log = logging.getLogger(__name__)

#: Those that `retry` takes; a held one is decided on again, by the rules of today.
ENDED = ("refused", "failed", "cancelled", "delivered", "committed", "analysed", "ignored", "held")
#: Those that `cancel` takes although none of their work is queued; a failed one is then given up.
CANCELLED = (*LIVE, "failed")
#: Why a job is back in the state in which its result was made.
RETRIED, SENT_AGAIN = "deliveries retried manually", "sent again manually"


def overview(
    config: Config, state: str | None, limit: int, given: Wanted | None = None, *, identify: bool = False
) -> list[dict[str, Any]]:
    """Return one row for each study with its newest generation, the last image's the newest first."""
    states = () if state is None else (state,)
    with Pages(config) as pages:
        return pages.rows(given or looking.wanted(states=states, limit=limit), identify=identify)


def details(config: Config, study_uid: str, generation: int | None, *, identify: bool = False) -> dict[str, Any]:
    """All that the node knows of one job, or of a study that is still arriving.

    Raises:
        UsageError: nothing of it is known.
    """
    with Pages(config) as pages:
        found, _ = described(config, pages, study_uid, generation, identify=identify)
    if identify:
        note_command(config, "jobs show --identify", study_uid=study_uid)
    return found


def described(
    config: Config, pages: Pages, study_uid: str, generation: int | None, *, identify: bool = False
) -> tuple[dict[str, Any], Findings | None]:
    """Return what `details` does, from an open catalogue, and what was found.

    Nothing is noted in the audit trail. Raises UsageError.
    """
    rows = pages.rows(Wanted(study_uid=study_uid, generation=generation), identify=identify)
    if not rows:
        raise UsageError(f"{logs.uid(study_uid)}: no such job; see `dicomnode jobs list`")
    number = rows[0]["generation"]
    job = find(pages.catalog, study_uid, number) if number or generation is not None else None
    found = kept_findings(config, study_uid, number)
    return {**rows[0], **_of_generation(config, pages.catalog, study_uid, number, job, found)}, found


def _of_generation(
    config: Config, catalog: Catalog, study_uid: str, generation: int, job: Job | None, found: Findings | None
) -> dict[str, Any]:
    folder = results_folder(config.storage.results, study_uid, generation)
    findings = folder / FINDINGS
    return {
        "state": "receiving" if job is None else job.state,
        "order": order.outcome(folder),
        "results": str(folder) if findings.exists() else "",
        "series": _series(found),
        "routing": _routing(catalog.routing(study_uid, generation)),
        "awaited": [{"study_uid": uid, "state": state} for uid, state in catalog.awaited_states(study_uid)],
        "timeline": [
            {"at": text(t.at), "generation": t.generation, "state": t.state, "reason": t.reason}
            for t in catalog.transitions(study_uid)
        ],
        "deliveries": _deliveries(catalog.deliveries(study_uid, generation)),
        "conflicts": [
            {"sop_instance_uid": c.sop_instance_uid, "sha256": c.sha256, "received": text(c.received_at)}
            for c in catalog.conflicts(study_uid)
        ],
        "corrections": _corrections(catalog, study_uid),
    }


def _corrections(catalog: Catalog, study_uid: str) -> list[dict[str, Any]]:
    """Return a row for each decision: what one person or caller decided at one time is one."""
    alike = Counter((c.action, c.who, text(c.at)) for c in catalog.corrections(study_uid))
    return [{"action": action, "objects": n, "who": who, "at": at} for (action, who, at), n in alike.items()]


def _deliveries(deliveries: list[Delivery]) -> list[dict[str, Any]]:
    """Return a row for each object of a result; received images of one destination that fared alike share a row."""
    alike: dict[tuple[object, ...], list[Delivery]] = {}
    for d in deliveries:
        object_ = d.object if d.kind == "results" else "originals"
        key = (d.destination, object_, d.state, d.status, (d.text or "").replace(d.sop_instance_uid, ""))
        alike.setdefault(key, []).append(d)
    return [
        {
            "destination": some[0].destination,
            "object": some[0].object if some[0].kind == "results" else plural(len(some), "received image"),
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
    released = "" if noted.released_at is None else text(noted.released_at)
    return {**json.loads(noted.decision), "decided_at": text(noted.decided_at), "released_at": released}


def kept_findings(config: Config, study_uid: str, generation: int) -> Findings | None:
    """Return what was found; None where nothing was, or it is not kept any more, or (logged) cannot be read."""
    try:
        path = results_folder(config.storage.results, study_uid, generation) / FINDINGS
        return Findings.from_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, OutsideRootError, ValueError, RecursionError) as error:
        log.error(
            "study %s generation %d: its findings cannot be read (%s)", study_uid, generation, type(error).__name__
        )
        return None


def _series(findings: Findings | None) -> list[dict[str, Any]]:
    if findings is None:
        return []
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
    with opened(config) as (catalog, queue):
        return retry_job(config, catalog, queue, find(catalog, study_uid, generation))


def refuse_retry(config: Config, catalog: Catalog, job: Job) -> None:
    """Raise UsageError, with the reason, where a job cannot be run again."""
    study = study_of(catalog, job)
    if job.generation < study.generation:
        raise UsageError(f"generation {job.generation} has been superseded by generation {study.generation}")
    if job.state not in ENDED:
        raise UsageError(f"the job is {job.state}: only an ended job can be retried ({', '.join(ENDED)})")
    refuse_as_it_stands(catalog, study)
    if study.state == "receiving" and _redelivered(config, catalog, job) is None and _is_out(catalog, job):
        raise _settling()


def refuse_as_it_stands(catalog: Catalog, study: Study) -> None:
    """Raise UsageError, with the reason, where no job of a study can do anything: no images, or two patients'."""
    if not study.instances:
        raise UsageError("the study has no images here (removed to free space, or dropped): send it again")
    if catalog.patient_ids(study.study_uid) > 1:
        raise UsageError("the images name two patients: see `dicomnode jobs show`, then accept, reject or drop")


def refuse_profile(config: Config, name: str) -> None:
    """Raise UsageError where no profile has this name."""
    known = config.profile_names
    if name not in known:
        raise UsageError(f"{name!r} is not a profile (known: {', '.join(known)})")


def retry_job(config: Config, catalog: Catalog, queue: Queue, job: Job) -> str:
    """Run an ended job again, as `retry`. Raises UsageError."""
    refuse_retry(config, catalog, job)
    with queue_failures():
        queue.look()  # before anything is changed
        return prepare_retry(config, catalog, job)(queue)


def prepare_retry(config: Config, catalog: Catalog, job: Job) -> Callable[[Queue], str]:
    """Note in the catalogue that an ended job runs again, and return what puts it into the queue after that.

    Raises:
        UsageError: as `retry`; then nothing of it is noted.
    """
    with catalog.together() as one:
        return _prepare_retry(config, one, job)


def _prepare_retry(config: Config, catalog: Catalog, job: Job) -> Callable[[Queue], str]:
    refuse_retry(config, catalog, job)
    study_uid = job.study_uid
    note_command(config, "jobs retry", {"generation": str(job.generation)}, study_uid, catalog=catalog)
    made, lost = _redelivered(config, catalog, job), _lost(catalog, job)
    for d in lost:
        pending_again(catalog, d)
    if made is not None:
        sent_again(catalog, job, made, RETRIED)
        return lambda queue: _delivered_again(queue, job, lost)
    if _is_out(catalog, job):
        return _next_version(config, catalog, job)
    if not config.routes_studies:
        catalog.forget_routing(study_uid, job.generation)
    catalog.set_state(study_uid, job.generation, "queued", "retried manually", now=time.time())
    return lambda queue: f"queued again as {queue.enqueue(study_uid, job.generation, again=True)}"


def sent_again(catalog: Catalog, job: Job, made: JobState, by: str) -> None:
    """Bring a job back to the state in which its result was made, with what was said of the result then; else `by`."""
    made_so = [t for t in catalog.transitions(job.study_uid) if (t.generation, t.state) == (job.generation, made)]
    said = [t.reason for t in made_so if t.reason not in (None, "", RETRIED, SENT_AGAIN)]
    catalog.set_state(job.study_uid, job.generation, made, said[-1] if said else by, now=time.time())


def foresee_retry(config: Config, catalog: Catalog, job: Job) -> str:
    """Return in a sentence what `retry` would do. Raises UsageError as `retry`."""
    refuse_retry(config, catalog, job)
    if _redelivered(config, catalog, job) is not None:
        lost = _lost(catalog, job)
        names = ", ".join(sorted({d.destination for d in lost}))
        return f"The result stays as it is: {plural(len(lost), 'object is', 'objects are')} sent again to {names}."
    if _is_out(catalog, job):
        number = job.generation + 1
        return f"The study is analysed again. As destinations hold its results, the new ones are generation {number}."
    return "The study is decided on and analysed again."


def _lost(catalog: Catalog, job: Job) -> list[Delivery]:
    return [d for d in catalog.deliveries(job.study_uid, job.generation) if d.state in ("failed", "rejected")]


def _redelivered(config: Config, catalog: Catalog, job: Job) -> JobState | None:
    """Return the state that a retry comes to where only deliveries are repeated; None where it begins anew."""
    return made_state(config, catalog, job) if job.state == "failed" and _lost(catalog, job) else None


def _delivered_again(queue: Queue, job: Job, lost: Sequence[Delivery]) -> str:
    queue.deliver(job.study_uid, job.generation, sorted({(d.destination, d.kind) for d in lost}))
    names = sorted({d.destination for d in lost})
    return f"{plural(len(lost), 'delivery', 'deliveries')} to {', '.join(names)} queued again"


def _is_out(catalog: Catalog, job: Job) -> bool:
    """Whether a destination holds a result of this job: another one must be told from it."""
    return any(d.kind == "results" and d.state in ARRIVED for d in catalog.deliveries(job.study_uid, job.generation))


def carry_doubts(config: Config, job: Job) -> None:
    """Let the generation after this job's, which a person opens over the same images, say what they lack.

    In the transaction that has opened it: one that the clock settles meanwhile has words of its own.

    Raises:
        UsageError: it cannot be written.
    """
    before, after = (results_folder(config.storage.results, job.study_uid, job.generation + n) for n in (0, 1))
    try:
        reader_flags.carry_reception(before, after)
    except OSError as error:
        raise UsageError(f"{after}: cannot be written: {error.strerror}") from error


def _next_version(config: Config, catalog: Catalog, job: Job) -> Callable[[Queue], str]:
    made = catalog.open_generation(job.study_uid, job.generation, "retried manually", now=time.time())
    if made is None:
        raise _settling()
    carry_doubts(config, job)
    return lambda queue: f"queued as generation {made}: {queue.enqueue(job.study_uid, made)}"


def _settling() -> UsageError:
    return UsageError("the study is receiving, or has just settled anew: its next generation comes by itself")


def made_state(config: Config, catalog: Catalog, job: Job) -> JobState | None:
    """Return the state of a job of which only deliveries were lost; None if its result itself was not made."""
    noted = catalog.routing(job.study_uid, job.generation)
    if noted is not None and json.loads(noted.decision)["action"]["analyse"] is None:
        return "routed"
    planned = {d.object for d in catalog.deliveries(job.study_uid, job.generation) if d.kind == "results"} - {REJECTION}
    if planned:
        return "refused" if all(name == "refusal" or name.startswith("refusal-") for name in planned) else "analysed"
    found = kept_findings(config, job.study_uid, job.generation)
    return "refused" if found is not None and found.status == "refused" else None


def release(config: Config, study_uid: str) -> str:
    """Release a study that a rule holds, and do what the rule decided. Return a sentence for the caller.

    Raises:
        UsageError: there is no such job, or no rule holds it.
    """
    with closing(open_catalog(config)) as catalog:
        job = find(catalog, study_uid, None)
        refuse_release(catalog, job)  # with or without a queue
        with closing(Queue(config)) as queue, queue_failures():
            queue.look()
            with catalog.together() as one:
                note_command(config, "jobs release", {"generation": str(job.generation)}, study_uid, catalog=one)
                if not one.release_held(study_uid, job.generation, now=time.time()):
                    raise _not_by_a_rule(job)
                one.set_state(study_uid, job.generation, "queued", "released manually", now=time.time())
            return f"released as {queue.release(study_uid, job.generation)}"


def refuse_release(catalog: Catalog, job: Job) -> None:
    """Raise UsageError, with the reason, where no rule holds a job."""
    if job.state != "held":
        raise UsageError(f"the job is {job.state}: only a held job can be released")
    refuse_as_it_stands(catalog, study_of(catalog, job))
    if catalog.routing(job.study_uid, job.generation) is None:
        raise _not_by_a_rule(job)


def _not_by_a_rule(job: Job) -> UsageError:
    return UsageError(
        f"not held by a rule: {job.reason}; see `dicomnode jobs show`, then accept, reject or drop what is wrong"
    )


@contextmanager
def queue_failures() -> Iterator[None]:
    """Raise SpoolError where the queue fails: the text of a database error may hold a row's values."""
    try:
        yield
    except SQLAlchemyError as error:
        raise SpoolError(
            f"the queue does not answer ({type(error).__name__}): see whether its database runs; before the first "
            "start of the node there is none"
        ) from None


def pending_again(catalog: Catalog, d: Delivery) -> None:
    """Note that a person wants an object sent again."""
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
    """Cancel a job that has not ended, or give up a failed one; received images are kept. Return a sentence.

    Raises:
        UsageError: there is no such job, or nothing of it is left to cancel.
    """
    with opened(config) as (catalog, queue):
        return cancel_job(config, catalog, queue, find(catalog, study_uid, generation))


def cancel_job(config: Config, catalog: Catalog, queue: Queue, job: Job) -> str:
    """Cancel a job, as `cancel`. Raises UsageError."""
    refuse_cancel(queue, job)
    note_command(config, "jobs cancel", {"generation": str(job.generation)}, job.study_uid, catalog=catalog)
    try:
        with queue_failures():
            live = queue.cancel(job.study_uid, job.generation)
    except SpoolError:
        if job.state not in CANCELLED:
            raise
        live = 0  # there is no queue before the first worker has started
    catalog.set_state(job.study_uid, job.generation, "cancelled", "cancelled manually", now=time.time())
    return f"cancelled; {plural(live, 'queued or running workflow')} stopped, received images kept"


def foresee_cancel(config: Config, job: Job) -> None:
    """Raise UsageError as `cancel`, before anybody has decided."""
    with closing(Queue(config)) as queue:
        refuse_cancel(queue, job)


def refuse_cancel(queue: Queue, job: Job) -> None:
    """Raise UsageError where nothing of a job is left to cancel; SpoolError: only the queue knows, and it is away."""
    if job.state in CANCELLED:
        return
    with queue_failures():
        if not queue.is_live(job.study_uid, job.generation):
            raise UsageError(f"the job is {job.state}: it has nothing queued or running")


@contextmanager
def opened(config: Config) -> Iterator[tuple[Catalog, Queue]]:
    """Open the catalogue and the queue, and close both. Raises as `open_catalog`."""
    with closing(open_catalog(config)) as catalog, closing(Queue(config)) as queue:
        yield catalog, queue


def open_catalog(config: Config) -> Catalog:
    """Return the catalogue. Raises UsageError: there is none yet; SpoolError: it cannot be opened."""
    refuse_never_run(config)
    return Catalog.open(config.catalog_url, config.storage.state)


def refuse_never_run(config: Config) -> None:
    """Raise UsageError where there is no catalogue yet."""
    if not config.storage.database_url and not config.storage.state.is_dir():
        raise UsageError(f"{config.storage.state}: the node has never run with this configuration")


def find(catalog: Catalog, study_uid: str, generation: int | None) -> Job:
    """Return a job; without a generation the newest. Raises UsageError: there is no such job."""
    if generation is None:
        study = catalog.study(study_uid)
        generation = 0 if study is None else study.generation
    job = catalog.job(study_uid, generation)
    if job is None:
        raise UsageError(f"{logs.uid(study_uid)}: no such job; see `dicomnode jobs list`")
    return job


def study_of(catalog: Catalog, job: Job) -> Study:
    """Return the study of a job. Raises SpoolError: there is none."""
    study = catalog.study(job.study_uid)
    if study is None:
        raise SpoolError(f"study {job.study_uid} has a job but is not in the catalogue: the database was edited")
    return study
