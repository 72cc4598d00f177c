"""A study's results as versions: which one comes before, which number it has, and when the same result is another.

A result is told by what it was made from and how (`Findings.version`); the UIDs of its objects derive from that. The
same result as the last one that a destination holds is the same objects: nothing is sent. The same as an older one,
which another has replaced since, gets UIDs of its own, or the PACS would keep showing the one in between as the newest.
"""

from collections.abc import Iterator
from dataclasses import replace

from dicomnode.analysis.findings import Findings
from dicomnode.context import order
from dicomnode.errors import SpoolError
from dicomnode.files import write_whole
from dicomnode.report.context import Context
from dicomnode.results import encode
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import ARRIVED, REJECTION, Delivery, Job
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.workflows.worker import Work


def result_context(work: Work, study_uid: str, generation: int) -> Context:
    """Return the circumstances of a generation's result.

    The same result as an earlier generation's gets the same UIDs, so it must be the same bytes: its time, predecessor,
    number and series numbers are those of the generation that came to it first.
    """
    found = findings_of(work, study_uid, generation)
    first, result = generation, found
    for earlier in range(generation - 1, 0, -1):
        before = findings_of(work, study_uid, earlier)
        if found is not None and before is not None and before.version == found.version:
            first, result = earlier, before
    previous = predecessor(work, study_uid, first)
    made_at = job_of(work.catalog, study_uid, first).created_at
    folder = results_folder(work.config.storage.results, study_uid, generation)
    highest = 0 if result is None else result.highest_series_number
    number = 1 + len({before.version for before in _sent_before(work, study_uid, first)})
    return encode.context(made_at, work.config.node.ae_title, previous, order.decided(folder), highest, number)


def predecessor(work: Work, study_uid: str, generation: int) -> Findings | None:
    """Return what the newest earlier generation found of which a destination holds anything."""
    return next(_sent_before(work, study_uid, generation), None)


def revise(work: Work, study_uid: str, generation: int) -> None:
    """Give a result UIDs of its own where it is the same as an older one than the last, or as one that was rejected.

    Noted in its findings, so that a step that runs again does the same.
    """
    path = results_folder(work.config.storage.results, study_uid, generation) / FINDINGS
    found = findings_of(work, study_uid, generation)
    if found is None or found.revision:
        return
    revision = ""
    for number, before in enumerate(_sent_before(work, study_uid, generation)):
        if replace(before, revision="").version != found.version:
            continue
        is_last = number == 0 and not _is_rejected(work, study_uid, generation)
        revision = before.revision if is_last else str(generation)
        break
    if revision:
        write_whole(path, replace(found, revision=revision).to_json().encode())


def standing(catalog: Catalog, study_uid: str, destination: str, before: int) -> dict[str, Delivery]:
    """Return what a destination holds, or may hold, of the results of the generations before this one, by UID.

    What a rejection note that arrived there has taken back is not in it.
    """
    found: dict[str, Delivery] = {}
    for generation in range(1, before):
        rows = [d for d in catalog.deliveries(study_uid, generation) if d.destination == destination]
        arrived = [d for d in rows if d.kind == "results" and d.may_have_arrived]
        if any(d.object == REJECTION and d.state in ARRIVED for d in arrived):
            found.clear()
        found |= {d.sop_instance_uid: d for d in arrived if d.object != REJECTION}
    return found


def _sent_before(work: Work, study_uid: str, generation: int) -> Iterator[Findings]:
    """Yield the findings of earlier generations of which a destination holds results, the newest first."""
    for earlier in range(generation - 1, 0, -1):
        if _sent(work.catalog, study_uid, earlier):
            found = findings_of(work, study_uid, earlier)
            if found is not None:
                yield found


def _sent(catalog: Catalog, study_uid: str, generation: int) -> list[Delivery]:
    rows = catalog.deliveries(study_uid, generation)
    return [d for d in rows if d.kind == "results" and d.object != REJECTION and d.may_have_arrived]


def _is_rejected(work: Work, study_uid: str, generation: int) -> bool:
    """Whether a destination has been told to take back what it was given last."""
    for earlier in range(generation - 1, 0, -1):
        sent = _sent(work.catalog, study_uid, earlier)
        if sent:
            return any(
                d.sop_instance_uid not in standing(work.catalog, study_uid, d.destination, generation) for d in sent
            )
    return False


def findings_of(work: Work, study_uid: str, generation: int) -> Findings | None:
    """Return what a generation found; None where it has found nothing (yet)."""
    path = results_folder(work.config.storage.results, study_uid, generation) / FINDINGS
    return Findings.from_json(path.read_text("utf-8")) if path.exists() else None


def job_of(catalog: Catalog, study_uid: str, generation: int) -> Job:
    """Return a generation's job. Raises SpoolError: there is none."""
    job = catalog.job(study_uid, generation)
    if job is None:
        raise SpoolError(f"study {study_uid} generation {generation} is not in the catalogue")
    return job
