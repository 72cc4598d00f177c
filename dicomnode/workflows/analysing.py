"""The analysis of one study and what it leaves in the results folder: in the worker's child process (`analyst`).

Whatever a study does to its analysis, it ends in an answer: analysed, or refused with a reason.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dicomnode
from dicomnode.analysis.findings import Findings, Reason, RejectedSeries
from dicomnode.analysis.pipeline import Analysis, Measured, Method, analyse, conclude
from dicomnode.analysis.volume.size import nothing_left, too_large
from dicomnode.context.prior_findings import prior_findings
from dicomnode.errors import RefusedError
from dicomnode.files import write_whole
from dicomnode.registry import record_scan
from dicomnode.results import encode
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.words.numerals import plural
from dicomnode.workflows import fetch, reuse, route
from dicomnode.workflows.ahead import Ahead, StudyInputs
from dicomnode.workflows.worker import Work

log = logging.getLogger(__name__)


def analyse_study(work: Work, study_uid: str, generation: int, ahead: Ahead | None = None) -> str:
    """Select and analyse; leaves a checkpoint in the results folder. Returns "analysed" or "refused".

    Args:
        work: the worker's.
        study_uid: the study's.
        generation: of the study, settled.
        ahead: what was measured before it settled, if anything: taken where its inputs are the same.

    Raises:
        RefusedError: there is not the memory for it ("too-large").
    """
    received = work.catalog.instances(study_uid)
    if not received:
        raise nothing_left()
    files = [Path(i.path) for i in received]
    folder = results_folder(work.config.storage.results, study_uid, generation)
    log.info("study %s generation %d: analysing %s", study_uid, generation, plural(len(files), "file"))
    others = prior_findings(work.catalog, work.config, study_uid)
    method = work.served.method(route.action_of(work, study_uid, generation).analyse)
    maps = work.config.results.attenuation_maps
    last = reuse.reusable(work, study_uid, generation, method, others)
    if last is not None and (last.areas_in_source is not None or not maps):
        areas = last.areas_in_source if maps else None
        last = replace(last, findings=_marked(work, last.findings), areas_in_source=areas)
        stands = _still_stands(work, study_uid, generation)
        if stands:
            image, now = last.sources[0], time.time()
            record_scan.keep_corrected(work.config.registry, work.catalog, last.findings, image, now=now)
        last.save(folder)
        if stands:
            reuse.note_inputs(folder, received)
        return last.findings.status
    try:
        measured = None if ahead is None else ahead.take(StudyInputs.of(study_uid, received, method))
        found = _found(work, files, method, others, measured)
        analysis = replace(found, findings=_marked(work, found.findings))
        stands = _still_stands(work, study_uid, generation)
        if analysis.findings.status == "analysed":
            if stands:
                shadow, now = work.served.shadow(), time.time()
                record_scan.keep(work.config.registry, work.catalog, analysis, others, shadow, now=now)
            encode.AnalysisCheckpoint.of(analysis, attenuation_maps=maps).save(folder)
            if stands:
                reuse.note_inputs(folder, received)
        else:
            if stands:
                _withdraw(work, study_uid)
            write_whole(folder / FINDINGS, analysis.findings.to_json().encode())
    except MemoryError as error:
        raise too_large("its analysis needs more memory than there is (worker.memory_gb)") from error
    except RuntimeError as error:
        if "alloc" not in str(error):  # torch's and OpenMP's way of saying so
            raise
        raise too_large("its analysis needs more memory than there is (worker.memory_gb)") from error
    return analysis.findings.status


def _found(
    work: Work, files: Sequence[Path], method: Method, others: Sequence[Findings], measured: Measured | None
) -> Analysis:
    """Analyse the files, or go on with what was measured of them before they had settled."""
    if measured is None:
        return analyse(files, method, priors=others, memory_bytes=work.config.worker.limits.memory_bytes)
    log.info("study %s was measured before it had settled", measured.segmented.series.study_uid)
    return conclude(measured, method, priors=others)


def _still_stands(work: Work, study_uid: str, generation: int) -> bool:
    """Whether no correction has come since the images were read.

    It supersedes the job before it takes files away, so some may not have been there: what was found then is no later
    generation's to use, and the registry has, or gets, what that finds.
    """
    job = work.catalog.job(study_uid, generation)
    return job is not None and job.state != "superseded"


def _withdraw(work: Work, study_uid: str) -> None:
    """Take a refused study's scan out of the registry, where objects were corrected; else the last one still holds."""
    if work.catalog.corrections(study_uid):
        record_scan.withdraw(work.config.registry, work.catalog, study_uid)


def _marked(work: Work, findings: Findings) -> Findings:
    """Return the findings with a mark at each prior scan whose reports the destinations do not have."""
    trend = tuple(
        replace(point, stays_here=fetch.stays_here(work.config, work.catalog, point.study_uid))
        for point in findings.trend
    )
    return replace(findings, trend=trend)


def refuse(work: Work, study_uid: str, generation: int, error: RefusedError) -> str:
    """Leave the findings of a study that was refused as a whole: each series bears the reason. Returns "refused"."""
    images = work.catalog.instances(study_uid)
    series = Counter((i.series_uid, i.modality) for i in images)
    reasons = (Reason(error.code, error.text),)
    rejected = tuple(RejectedSeries(uid, modality, count, reasons) for (uid, modality), count in series.items())
    digest = work.digest_of(route.action_of(work, study_uid, generation).analyse)
    findings = Findings("refused", None, rejected, software_version=dicomnode.__version__, refused_by=digest)
    _withdraw(work, study_uid)
    folder = results_folder(work.config.storage.results, study_uid, generation)
    write_whole(folder / FINDINGS, findings.to_json().encode())
    level = logging.INFO if error.code == nothing_left().code else logging.ERROR  # as a person or a note has decided
    log.log(level, "study %s generation %d: %s", study_uid, generation, error.text)
    return "refused"
