"""What an operator can do with a study: each first shows what will happen, then does it by `operations`."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from dicomnode.config import Config
from dicomnode.console.site import ConsoleSite, NotThereError, Visit
from dicomnode.errors import UsageError
from dicomnode.operations import again, corrections, jobs
from dicomnode.operations.audited import acting
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Job
from dicomnode.words.numerals import plural

#: Versions in quarantine that a confirmation shows with their differences.
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Foreseen:
    """What an action will do, and what a person has to choose first.

    Attributes:
        sentences: what will happen.
        choice: the name of the field, and its values with their labels.
        table: heads and rows.
    """

    sentences: Sequence[str]
    choice: tuple[str, Mapping[str, str]] | None = None
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None


@dataclass(frozen=True)
class MeantJob:
    """The newest job of the study that an action is meant for."""

    config: Config
    catalog: Catalog
    job: Job


@dataclass(frozen=True)
class StudyAction:
    """One of the actions. `takes_away`: images or work are put out of use."""

    label: str
    foresee: Callable[[MeantJob], Foreseen]
    do: Callable[[Config, str, Mapping[str, str]], str]
    fits: Callable[[Mapping[str, Any]], bool]
    takes_away: bool = False


def available(shown: Mapping[str, Any]) -> list[tuple[str, StudyAction]]:
    """Return the actions that fit a study as it stands; the confirmation says whether one is possible."""
    return [(name, one) for name, one in ACTIONS.items() if one.fits(shown)]


def confirm(site: ConsoleSite, visit: Visit) -> Response:
    """Show what an action would do."""
    action, job = _meant(site, visit)
    catalog = site.reading().catalog
    return site.page(
        visit,
        "confirm.html",
        action=action,
        name=visit.params["action"],
        foreseen=action.foresee(MeantJob(site.config, catalog, job)),
        key=visit.params["study"],
        job=job,
        seen=_seen(catalog, job),
    )


def act(site: ConsoleSite, visit: Visit) -> Response:
    """Carry an action out, and say what became of it."""
    action, job = _meant(site, visit)
    if visit.form.get("seen") != _seen(site.reading().catalog, job):
        raise UsageError("The study has changed since you looked at it. Nothing was done: look again.")
    with acting(visit.name):
        said = action.do(site.config, job.study_uid, visit.form)
    return site.page(visit, "done.html", action=action, said=said, key=visit.params["study"])


def _meant(site: ConsoleSite, visit: Visit) -> tuple[StudyAction, Job]:
    action, study_uid = ACTIONS.get(visit.params["action"]), site.study_uid(visit)
    catalog = site.reading().catalog
    study = catalog.study(study_uid)
    if action is None or study is None:
        raise NotThereError
    job = catalog.job(study_uid, study.generation)
    if job is None or study.state == "receiving":
        raise UsageError("The study is still arriving: wait until it has settled.")
    return action, job


def _seen(catalog: Catalog, job: Job) -> str:
    """Return what changes when a study, its job or what lies in quarantine for it does."""
    held = [(one.sop_instance_uid, one.sha256) for one in catalog.conflicts(job.study_uid)]
    study = catalog.study(job.study_uid)
    return hashlib.sha256(repr((study, job, held)).encode()).hexdigest()


def _retry(meant: MeantJob) -> Foreseen:
    return Foreseen([jobs.foresee_retry(meant.config, meant.catalog, meant.job)])


def _cancel(meant: MeantJob) -> Foreseen:
    jobs.foresee_cancel(meant.config, meant.job)
    told = [f"The job is {meant.job.state}. What is queued or running of it is stopped; what was sent stays sent."]
    return Foreseen([*told, "Received images are kept. Retry takes the study up again."])


def _release(meant: MeantJob) -> Foreseen:
    jobs.refuse_release(meant.catalog, meant.job)
    return Foreseen([f"The job is held: {meant.job.reason}.", "What the rule decided is done now."])


def _held(meant: MeantJob) -> list[corrections.HeldVersion]:
    return corrections.held(meant.config, meant.job.study_uid, None, compared=_MOST_SHOWN)


def _held_table(found: Sequence[corrections.HeldVersion]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for one in found[:_MOST_SHOWN]:
        differ = "; ".join(f"{d.attribute}: {d.before} → {d.after}" for d in one.differences) or "nothing"
        rows.append([one.conflict.sop_instance_uid, "no longer in quarantine" if one.path is None else differ])
    if len(found) > _MOST_SHOWN:
        rows.append([f"and {len(found) - _MOST_SHOWN} more", ""])
    return ["object", "difference from what stands"], rows


def _accept(meant: MeantJob) -> Foreseen:
    found = _held(meant)
    corrections.usable(found)
    told = ["The versions in quarantine replace those that stand. The study settles as its next generation."]
    return Foreseen(told, table=_held_table(found))


def _reject(meant: MeantJob) -> Foreseen:
    told = ["The versions in quarantine are rejected. The study stays as it is."]
    return Foreseen(told, table=_held_table(_held(meant)))


def _drop(meant: MeantJob) -> Foreseen:
    told = corrections.drop(meant.config, meant.job.study_uid, None, "quality", dry_run=True)
    kept = (
        f"They are kept for {plural(meant.config.storage.replaced_days, 'day')}. "
        f"The study settles as its next generation."
    )
    reasons = {name: name.replace("-", " ") for name in corrections.REASONS}
    return Foreseen([f"{told[0].upper()}{told[1:]}.", kept], choice=("because", reasons))


def _reanalyse(meant: MeantJob) -> Foreseen:
    again.refuse_reanalysis(meant.catalog, meant.job)
    told = f"The study is analysed again as version {meant.job.generation + 1}, whatever the rules say."
    return Foreseen([told], choice=("profile", {name: name for name in meant.config.profile_names}))


def _send(meant: MeantJob) -> Foreseen:
    known = [one.name for one in meant.config.destination]
    found = {name: some for name, some in again.sendable(meant.catalog, meant.job).items() if name in known}
    if not found:
        raise UsageError("Nothing of this study was sent to a destination that is still configured.")
    labels = {name: f"{name} ({plural(len(some), 'object')})" for name, some in found.items()}
    told = "All objects of the newest version are sent again, also those that the destination has."
    return Foreseen([told], choice=("destination", labels))


ACTIONS: dict[str, StudyAction] = {
    "retry": StudyAction(
        "Retry",
        _retry,
        lambda config, study_uid, _form: jobs.retry(config, study_uid, None),
        lambda shown: shown["state"] in jobs.ENDED,
    ),
    "release": StudyAction(
        "Release",
        _release,
        lambda config, study_uid, _form: jobs.release(config, study_uid),
        lambda shown: shown["state"] == "held" and bool(shown["routing"]),
    ),
    "accept": StudyAction(
        "Accept corrections",
        _accept,
        lambda config, uid, _form: corrections.accept(config, uid, corrections.held(config, uid, None, compared=0), 0),
        lambda shown: bool(shown["conflicts"]),
    ),
    "reject": StudyAction(
        "Reject corrections",
        _reject,
        lambda config, study_uid, _form: corrections.reject(config, study_uid, None),
        lambda shown: bool(shown["conflicts"]),
        takes_away=True,
    ),
    "reanalyse": StudyAction(
        "Analyse again",
        _reanalyse,
        lambda config, study_uid, form: again.reanalyse(config, study_uid, form.get("profile", "")),
        lambda shown: shown["state"] in again.ENDED and shown["instances"] > 0,
    ),
    "send": StudyAction(
        "Send again",
        _send,
        lambda config, study_uid, form: again.send(config, study_uid, form.get("destination", "")),
        lambda shown: shown["state"] in again.SENT and any(d["state"] in again.THERE for d in shown["deliveries"]),
    ),
    "cancel": StudyAction(
        "Cancel",
        _cancel,
        lambda config, study_uid, _form: jobs.cancel(config, study_uid, None),
        lambda shown: shown["state"] in jobs.CANCELLED,
        takes_away=True,
    ),
    "drop": StudyAction(
        "Drop images",
        _drop,
        lambda config, uid, form: corrections.drop(config, uid, None, form.get("because", ""), dry_run=False),
        lambda shown: shown["state"] != "receiving" and shown["instances"] > 0,
        takes_away=True,
    ),
}
