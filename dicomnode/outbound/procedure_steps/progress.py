"""How far the work on a study is, in the words of its procedure steps, and what it has made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydicom.filereader import dcmread

from dicomnode.config import Config
from dicomnode.network.ups import Reference
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import StepKind
from dicomnode.store.records import ARRIVED, Job, JobState, StudyState
from dicomnode.store.results_folder import report_files, results_folder

#: Jobs that changed so long ago get no step any more: they ended before the table was configured.
_LATEST_S = 3600.0
#: Procedure Step Progress in percent, and its description.
PROGRESS: Final[dict[StudyState, tuple[int, str]]] = {
    "receiving": (5, "images are being received"),
    "queued": (10, "waiting in the queue"),
    "held": (10, "held: a person has to decide"),
    "running": (30, "being analysed"),
    "analysed": (80, "results are being delivered"),
}
#: DCM codes of PS3.16 CID 9300 «Procedure Discontinuation Reason».
FAILED, UNSPECIFIED = ("110501", "DCM", "Equipment failure"), ("110513", "DCM", "Discontinued for unspecified reason")


@dataclass(frozen=True)
class StudyProgress:
    """How a study stands.

    Attributes:
        how: "absent" where nothing of it is here.
        percent, text: Procedure Step Progress and its description.
        generation: whose results these are.
        reason: why it ended without a result, no patient data; `code` in DICOM's terms.
    """

    how: Literal["absent", "in progress", "done", "ended without result"]
    percent: int = 0
    text: str = ""
    generation: int = 0
    reason: str = ""
    code: tuple[str, str, str] = UNSPECIFIED


def look(catalog: Catalog, study_uid: str, generation: int | None) -> StudyProgress:
    """How a study stands: in this generation, or in its newest (None)."""
    study = catalog.study(study_uid)
    if study is None or (generation is None and study.instances == 0):  # never here, or removed since
        return StudyProgress("absent")
    number = study.generation if generation is None else generation
    job = catalog.job(study_uid, number)
    state: StudyState = study.state if generation is None or job is None else job.state
    if state in ("delivered", "committed") or (state == "analysed" and not _on_their_way(catalog, study_uid, number)):
        return StudyProgress("done", 100, "done", number)
    if state in PROGRESS:
        return StudyProgress("in progress", *PROGRESS[state], number)
    told = f"{state}: {job.reason}" if job is not None and job.reason else state
    # Plain characters need no character set, and 1,000 of them fit into every attribute.
    reason = told.encode("ascii", "replace").decode()[:1000]
    code = FAILED if state == "failed" else UNSPECIFIED
    return StudyProgress("ended without result", generation=number, reason=reason, code=code)


def _on_their_way(catalog: Catalog, study_uid: str, generation: int) -> bool:
    return any(d.state == "pending" for d in catalog.deliveries(study_uid, generation))


def results(config: Config, catalog: Catalog, study_uid: str, generation: int) -> list[Reference]:
    """Return the objects that were made of a study; none where they were removed since, or it was only forwarded."""
    titles = {d.name: d.peer.ae_title for d in config.destination if d.peer is not None}
    stored: dict[str, list[str]] = {}
    for delivery in catalog.deliveries(study_uid, generation):
        if delivery.kind == "results" and delivery.state in ARRIVED:
            stored.setdefault(delivery.sop_instance_uid, []).append(titles.get(delivery.destination, ""))
    made = []
    for path in report_files(results_folder(config.storage.results, study_uid, generation)):
        header = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
        uid = str(header.SOPInstanceUID)
        held_by = tuple(title for title in stored.get(uid, []) if title) or (config.node.ae_title,)
        made.append(
            Reference(
                str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPClassUID), uid, held_by
            )
        )
    return made


def untold(
    config: Config, catalog: Catalog, kinds: Sequence[StepKind], states: Sequence[JobState], now: float
) -> Iterator[Job]:
    """Jobs in one of these states of which no step of these kinds tells yet, but should.

    None is told of what the node has fetched itself to compare with, or has only forwarded.
    """
    for job in catalog.jobs_without_step(kinds, states, now - _LATEST_S):
        is_end = job.state in ("delivered", "committed")
        if catalog.is_prior(job.study_uid) or (is_end and not results(config, catalog, job.study_uid, job.generation)):
            continue
        yield job
