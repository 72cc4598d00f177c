"""Rejection notes for results that are replaced or withdrawn, for the destinations that want them (`reject_old`).

A note goes out after the new results, and takes back whatever else its destination holds of older ones. Where nothing
takes their place (the study is refused now), it goes out only if objects were corrected or taken out since: else the
old result is still true.
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread, dcmwrite

from dicomnode.analysis.series.headers import read_source
from dicomnode.config import DestinationTable
from dicomnode.files import write_whole
from dicomnode.report import codes, rejection_note, uids
from dicomnode.report.context import ATTENUATION, MEASUREMENTS, PDF, REFUSAL, RISK, SEGMENTATION, SUMMARY, Kind
from dicomnode.report.rejection_note import RejectedObject
from dicomnode.results import encode
from dicomnode.store.records import REJECTION, Correction, Delivery
from dicomnode.store.results_folder import rejection_file, results_folder
from dicomnode.words.numerals import plural
from dicomnode.workflows import versions
from dicomnode.workflows.worker import Work

log = logging.getLogger(__name__)

_KINDS: Final[dict[str, Kind]] = {
    "seg": SEGMENTATION,
    "attenuation": ATTENUATION,
    "measurements": MEASUREMENTS,
    "risk": RISK,
    "summary": SUMMARY,
    "refusal": REFUSAL,
    "pdf": PDF,
    "refusal-summary": SUMMARY,
    "refusal-pdf": PDF,
}
_QUALITY, _SAFETY, _EXPIRED = "113001", "113037", "113039"


def plan(work: Work, study_uid: str, generation: int) -> list[str]:
    """Write the notes and plan their deliveries, once the new results' are planned. Returns their destinations."""
    return [d.name for d in work.config.destination if d.reject_old and _plan(work, study_uid, generation, d)]


def planned(work: Work, study_uid: str, generation: int) -> list[str]:
    """Return the destinations for which a note has been planned."""
    return [d.destination for d in work.catalog.deliveries(study_uid, generation) if d.object == REJECTION]


def _plan(work: Work, study_uid: str, generation: int, destination: DestinationTable) -> bool:
    old = versions.standing(work.catalog, study_uid, destination.name, generation)
    rows = work.catalog.deliveries(study_uid, generation)
    new = {d.sop_instance_uid for d in rows if d.destination == destination.name and d.kind == "results"}
    outdated = [d for uid, d in sorted(old.items()) if uid not in new]
    if not outdated:
        return False
    since = versions.job_of(work.catalog, study_uid, max(d.generation for d in outdated)).created_at
    # What was decided just as the old one settled had led to it.
    decided = [c for c in work.catalog.corrections(study_uid) if c.at > since and c.action != "rejected"]
    replaced = any(
        d.destination == destination.name and not d.object.startswith("refusal") and d.object != REJECTION for d in rows
    )
    if not (replaced or decided):
        return False
    return _write(work, study_uid, generation, destination, outdated, _title(work, study_uid, decided))


def _title(work: Work, study_uid: str, decided: Sequence[Correction]) -> str:
    """Return why the old results go: another patient's are a danger; what expired is not wrong; else their quality."""
    now = work.catalog.whose(study_uid)
    if any(c.code in (_SAFETY, "113038") or (now and c.patient_hash and c.patient_hash != now) for c in decided):
        return _SAFETY
    return _EXPIRED if any(c.code == _EXPIRED for c in decided) else _QUALITY


def _write(
    work: Work, study_uid: str, generation: int, destination: DestinationTable, outdated: Sequence[Delivery], code: str
) -> bool:
    findings = versions.findings_of(work, study_uid, generation)
    objects = [one for one in (_named(work, d) for d in outdated) if one is not None]
    header = _header(work, study_uid, outdated)
    if findings is None or header is None or not objects:
        log.error("study %s: old results at %s cannot be rejected: nothing tells of them", study_uid, destination.name)
        return False
    made_at = versions.job_of(work.catalog, study_uid, generation).created_at
    context = encode.context(made_at, work.config.node.ae_title, None, None, findings.highest_series_number)
    note = rejection_note.encode(header, objects, codes.REJECTIONS[code], destination.name, findings, context)
    content = BytesIO()
    dcmwrite(content, note, enforce_file_format=True)
    path = rejection_file(results_folder(work.config.storage.results, study_uid, generation), destination.name)
    write_whole(path, content.getvalue())
    work.catalog.plan_delivery(
        study_uid,
        generation,
        destination.name,
        REJECTION,
        str(note.SOPClassUID),
        str(note.SOPInstanceUID),
        str(path),
        now=time.time(),
        commitment=destination.commitment,
    )
    older = plural(len(objects), "older object")
    log.info("study %s: %s at %s will be rejected (%s)", study_uid, older, destination.name, code)
    return True


def _named(work: Work, sent: Delivery) -> RejectedObject | None:
    """Return the reference to an object: its series is in its file, or follows from its findings."""
    header = _read(Path(sent.path))
    if header is not None and str(header.get("SOPInstanceUID")) == sent.sop_instance_uid:
        return RejectedObject(sent.sop_class_uid, sent.sop_instance_uid, str(header.SeriesInstanceUID))
    kind, found = _KINDS.get(sent.object), versions.findings_of(work, sent.study_uid, sent.generation)
    if kind is None or found is None or uids.sop_instance(kind, sent.study_uid, found) != sent.sop_instance_uid:
        return None
    return RejectedObject(sent.sop_class_uid, sent.sop_instance_uid, uids.series(kind, sent.study_uid, found))


def _header(work: Work, study_uid: str, outdated: Sequence[Delivery]) -> Dataset | None:
    """Return whose the old results are, as they were sent; where their files have gone, as the images say."""
    here = sorted(work.catalog.instances(study_uid), key=lambda one: one.is_note)
    sent = (_read(Path(d.path)) for d in outdated)
    received = (_read(Path(i.path), read=read_source) for i in here)
    return next((header for header in itertools.chain(sent, received) if header is not None), None)


def _own(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def _read(path: Path, read: Callable[[Path], Dataset] = _own) -> Dataset | None:
    try:
        return read(path)
    except Exception:  # noqa: BLE001  (it has gone, or is damaged: there are others)
        return None
