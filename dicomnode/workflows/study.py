"""The durable workflow of one study, on DBOS: analyse → encode → one delivery per destination, each with its own queue.

A finished step is never run again: its outcome is in the database, its files are in the results folder. A step that
was cut short runs once more from its start, which is harmless, because files are written whole, the objects' UIDs are
derived from the input and the method, and what a destination has accepted is recorded object by object.

The study's workflow ends when the deliveries are queued (`delivery`); a PACS that is away for hours holds back neither
the next study nor another destination. When a newer generation of the study settles, this one ends wherever it stands:
each step asks the catalogue, and the catalogue's answer is final.
"""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from dbos import DBOS

from dicomnode import logs
from dicomnode.analysis.findings import Findings
from dicomnode.config import DestinationTable, ObjectName
from dicomnode.context import order, priors
from dicomnode.errors import DicomnodeError, RefusedError
from dicomnode.registry_format.identity import lacks_patient_id
from dicomnode.report.context import Context
from dicomnode.results import encode, reader_flags
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.words.numerals import plural
from dicomnode.workflows import fetch, rejections, route, versions
from dicomnode.workflows.calls import deliver_call, enqueue, fetch_call, study_id, study_later_call
from dicomnode.workflows.failure import Ended, or_failed
from dicomnode.workflows.queue import MOST_RECOVERIES
from dicomnode.workflows.worker import RETRIES, Work, current

log = logging.getLogger(__name__)

#: So many of a refused study's images are tried for its report.
_LOOKED_AT = 5
#: What a delivery is called that brings a result to a system without DICOM.
REPORT = "report"
#: States of a job whose results are written.
_ENCODED = ("analysed", "delivered", "committed")


@DBOS.workflow(name="study", max_recovery_attempts=MOST_RECOVERIES)
@logs.about_study
def study(study_uid: str, generation: int, run: int, attempt: int = 1, waited: float = 0.0) -> str:
    """Analyse a settled study and hand its results over. Returns the job's state.

    While prior scans of its patient are on their way, it is put off, attempt after attempt.
    """
    done = or_failed(study_uid, generation, "failed", lambda: _analysed(study_uid, generation, run, attempt, waited))
    if isinstance(done, Ended):
        return done.state
    status, destinations = done
    for name in destinations:
        enqueue(deliver_call(study_uid, generation, run, name))
    return status


def _analysed(study_uid: str, generation: int, run: int, attempt: int, waited: float) -> tuple[str, list[str]] | Ended:
    """Whether it was analysed or refused, and which destinations get something."""
    pause, wanted, priority = priors_step(study_uid, generation, attempt, waited)
    for prior_uid in wanted:
        enqueue(fetch_call(prior_uid, study_id(study_uid, generation, run)))
    if pause > 0:
        later = study_later_call(
            study_uid, generation, run, attempt=attempt + 1, waited=waited, pause=pause, priority=priority
        )
        enqueue(later)
        return Ended("queued")
    status = analyse_step(study_uid, generation)
    if status not in ("analysed", "refused"):
        return Ended(status)
    link_step(study_uid, generation)
    return status, encode_step(study_uid, generation, status)


@DBOS.step(name="priors", **RETRIES)
def priors_step(study_uid: str, generation: int, attempt: int, waited: float) -> tuple[float, list[str], int | None]:
    """How long to wait for prior scans before the next look (0: not at all), and which are to be fetched.

    Also the study's place in the queue, which it keeps when it is put off (None where there are no rules).
    """
    work = current()
    outlook = priors.look(work.config, work.catalog, work.digest, study_uid, generation, attempt, waited)
    if outlook.pause_s > 0 and attempt == 1:
        work.catalog.set_state(study_uid, generation, "queued", "waiting for priors", now=time.time())
    return outlook.pause_s, list(outlook.wanted), route.place(work, study_uid, generation)


@DBOS.step(name="analyse", **RETRIES)
def analyse_step(study_uid: str, generation: int) -> str:
    """Select and analyse; leaves a checkpoint in the results folder.

    Returns "analysed" or "refused"; the job's state where it has been cancelled or superseded meanwhile.
    """
    work = current()
    state = work.catalog.set_state(study_uid, generation, "running", now=time.time())
    if state != "running":
        log.info("study %s generation %d is %s: skipped", study_uid, generation, state)
        return state
    try:
        if work.analyst is not None:
            return work.analyst.analyse(study_uid, generation)
        return _analysing().analyse_study(work, study_uid, generation)
    except RefusedError as error:
        return _analysing().refuse(work, study_uid, generation, error)


def _analysing() -> ModuleType:
    from dicomnode.workflows import analysing  # noqa: PLC0415  (an idle worker holds no library that analyses)

    return analysing


@DBOS.step(name="link", **RETRIES)
def link_step(study_uid: str, generation: int) -> None:
    """Look for the study's order, and note in the findings what of the surroundings the reader must know."""
    work = current()
    folder = results_folder(work.config.storage.results, study_uid, generation)
    received = work.catalog.instances(study_uid)
    image = encode.source_image(folder, received)
    if image is None or work.catalog.is_prior(study_uid):
        return
    try:
        linkage = order.decide(work.config, work.catalog, image, folder)
        unnamed = lacks_patient_id({i.patient_hash for i in received if not i.is_note})
        doubts = ("object-without-patient-id",) if unnamed else ()
        codes = (*doubts, *priors.doubts(folder), *(() if linkage is None else linkage.flags))
        reader_flags.note(folder, image, codes, None if linkage is None else linkage.order)
    except (DicomnodeError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  (an image that cannot be read has no order; its refusal says why)
        logs.log_unexpected(log, error, "study %s generation %d: no order is linked", study_uid, generation)


@DBOS.step(name="encode", **RETRIES)
def encode_step(study_uid: str, generation: int, status: str) -> list[str]:
    """Write the reports and plan their deliveries. Returns the destinations that get something."""
    work = current()
    job = versions.job_of(work.catalog, study_uid, generation)
    destinations = _receivers(work, study_uid, generation)
    everywhere = [d.name for d in destinations]
    if job.state in ("superseded", "cancelled"):
        log.info("study %s generation %d is %s: results not delivered", study_uid, generation, job.state)
        return []
    if job.state in _ENCODED:  # this step was cut short after its last change
        return _joined(everywhere, rejections.planned(work, study_uid, generation))
    folder = results_folder(work.config.storage.results, study_uid, generation)
    versions.revise(work, study_uid, generation)
    context = versions.result_context(work, study_uid, generation)
    if status == "refused":
        return _refuse(work, study_uid, generation, folder, context, destinations)
    checkpoint = encode.AnalysisCheckpoint.restore(folder)
    with_pdf = any("pdf" in destination.objects for destination in destinations)
    labelmaps = any(d.segmentation == "labelmap" for d in destinations)
    objects = encode.encode(checkpoint, context, folder, with_pdf=with_pdf, labelmaps=labelmaps)
    for destination in destinations:
        _plan(work, study_uid, generation, destination, _wanted(destination, objects))
    everywhere = _joined(everywhere, rejections.plan(work, study_uid, generation))
    doubts = " ".join(flag.text for flag in reader_flags.of_reception(folder)) or None
    state = work.catalog.set_state(study_uid, generation, "analysed", doubts, now=time.time())
    if everywhere:  # where the destinations hold all of it already (an unchanged result), nothing else would say so
        state = work.catalog.conclude(study_uid, generation, now=time.time())
    log.info("study %s generation %d: %s, %s", study_uid, generation, state, plural(len(objects), "object"))
    return everywhere if state in _ENCODED else []


def _wanted(destination: DestinationTable, objects: Sequence[encode.ResultObject]) -> list[encode.ResultObject]:
    """Return what a destination gets: some of the objects, or all of the result in one report."""
    if destination.takes_objects:
        flat = {o.name for o in objects if o.is_labelmap} if destination.segmentation == "labelmap" else set()
        mine = [o for o in objects if encode.is_for(o.name, destination.objects)]
        return [o for o in mine if o.is_labelmap == (o.name in flat)]
    # Measurements, or the refusal, are always there and stand for the result: another result has others.
    stands = [o for o in objects if o.name in ("measurements", "refusal") and not o.is_labelmap]
    return [replace(o, name=REPORT) for o in stands]


def _receivers(work: Work, study_uid: str, generation: int) -> list[DestinationTable]:
    """Where the results go: to all destinations, but where a rule names some, or the scan was only fetched."""
    if fetch.stays_here(work.config, work.catalog, study_uid):
        return []
    some = route.action_of(work, study_uid, generation).results_to
    return [d for d in work.config.destination if some is None or d.name in some]


def _refuse(
    work: Work,
    study_uid: str,
    generation: int,
    folder: Path,
    context: Context,
    destinations: Sequence[DestinationTable],
) -> list[str]:
    findings = Findings.from_json((folder / FINDINGS).read_text("utf-8"))
    wanting = [d for d in destinations if d.refused_report]
    sources = sorted(work.catalog.instances(study_uid), key=lambda one: one.is_note)
    verbatim = work.config.analysis.selection.invalid_identity == "verbatim"
    wanted = {name for d in wanting for name in d.objects}
    reports = _refusal_reports(findings, sources, context, folder, wanted, verbatim=verbatim) if wanting else ()
    for destination in wanting if reports else ():
        _plan(work, study_uid, generation, destination, _wanted(destination, reports))
    notes = rejections.plan(work, study_uid, generation)
    why = refusal_reason(findings) if sources else "nothing-left: every object was taken out of the study"
    reason = "; ".join([why, *(flag.text for flag in reader_flags.of_reception(folder))])
    state = work.catalog.set_state(study_uid, generation, "refused", reason, now=time.time())
    log.info("study %s generation %d is %s: %s", study_uid, generation, state, reason)
    work.catalog.conclude(study_uid, generation, now=time.time())  # forwarded images may have been lost meanwhile
    reported = [d.name for d in wanting] if reports else []
    return _joined(reported, notes) if state == "refused" else []


def _joined(names: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*names, *more]))


def _refusal_reports(
    findings: Findings,
    sources: Sequence[Instance],
    context: Context,
    folder: Path,
    wanted: Collection[ObjectName],
    *,
    verbatim: bool,
) -> tuple[encode.ResultObject, ...]:
    """Return the reports, with the patient of the first image that can be read; none where none can."""
    images_first = sorted(sources, key=lambda one: one.modality != "CT")
    for source in images_first[:_LOOKED_AT]:
        try:
            return encode.encode_refusal(findings, Path(source.path), context, folder, wanted, verbatim=verbatim)
        except Exception as error:  # noqa: BLE001  (a damaged image provokes anything)
            logs.log_unexpected(log, error, "no refusal report from %s", logs.uid(source.sop_instance_uid))
    return ()


def _plan(
    work: Work, study_uid: str, generation: int, destination: DestinationTable, objects: Sequence[encode.ResultObject]
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
            commitment=destination.commitment,
        )


def refusal_reason(findings: Findings) -> str:
    """One line for the table of jobs: the codes of each kind of series, no patient data."""
    if not findings.rejected:
        return "the study has no readable series"
    kinds = [f"{r.modality or 'no modality'}: {', '.join(x.code for x in r.reasons)}" for r in findings.rejected]
    return "; ".join(dict.fromkeys(kinds))
