"""`dicomnode jobs retry | cancel` for all jobs that are alike, and `jobs reanalyse`."""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import cast, get_args

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.operations import jobs
from dicomnode.operations.audited import note_command
from dicomnode.routing.rules import DEFAULT_PROFILE
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.jobs import LIVE
from dicomnode.store.catalog.reanalyses import REANALYSED
from dicomnode.store.records import Job, JobState
from dicomnode.store.results_folder import FINDINGS, results_folder
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import Queue

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
#: What each command takes where no state is given.
_USUAL: dict[str, tuple[JobState, ...]] = {"retry": ("failed",), "cancel": LIVE}
#: So many retries are one transaction of the catalogue, and one of the queue: with SQLite others wait for its end.
_TOGETHER = 25


@dataclass(frozen=True)
class JobFilter:
    """Which jobs: all that is given has to hold.

    Attributes:
        state: of the job; "": those that the command is for.
        destination: lacks something of it.
        since: the job has changed since: "2026-11-28", "2026-11-28T14:30" (local time), "90m", "24h" or "7d" ago.
        profile: by which it is analysed.
    """

    state: str = ""
    destination: str = ""
    since: str = ""
    profile: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given: all jobs would be meant."""
        return not (self.state or self.destination or self.since or self.profile)


@dataclass(frozen=True)
class BulkOutcome:
    """What became of the chosen studies: UIDs, and for those that were not taken the reason."""

    done: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()


def choose(config: Config, catalog: Catalog, command: str, chosen: JobFilter, now: float) -> list[Job]:
    """Return the newest jobs that `command` ("retry", "cancel") with these filters is for, the oldest first.

    Raises:
        UsageError: a filter is not one, or there is none.
    """
    if chosen.is_empty:
        raise UsageError("give a STUDY, or at least one of --state, --destination, --since, --profile")
    if chosen.state and chosen.state not in get_args(JobState):
        raise UsageError(f"{chosen.state!r} is not a job state; states: {', '.join(get_args(JobState))}")
    names = [d.name for d in config.destination]
    if chosen.destination and chosen.destination not in names:
        raise UsageError(f"{chosen.destination!r} is not a destination (known: {', '.join(names) or 'none'})")
    if chosen.profile:
        jobs.refuse_profile(config, chosen.profile)
    states = (cast("JobState", chosen.state),) if chosen.state else _USUAL[command]
    since = point_in_time(chosen.since, now) if chosen.since else None
    found = catalog.newest_jobs(states, undelivered_to=chosen.destination or None, since=since)
    return [job for job in found if not chosen.profile or _profile(catalog, job) == chosen.profile]


def run(config: Config, command: str, chosen: JobFilter, *, dry_run: bool) -> BulkOutcome:
    """Retry or cancel all jobs that the filters choose; one that is not taken holds up no other.

    Raises:
        UsageError: a filter is not one, or there is none.
        SpoolError: the catalogue failed.
    """
    with jobs.opened(config) as (catalog, queue):
        found = choose(config, catalog, command, chosen, time.time())
        if command == "retry" and found:
            with jobs.queue_failures():
                queue.look()  # before anything is changed, or promised
            if not dry_run:
                return _retry(config, catalog, queue, found)
        done, failed = [], []
        for job in found:
            try:
                if command == "retry":
                    jobs.refuse_retry(config, catalog, job)
                elif dry_run:
                    jobs.refuse_cancel(queue, job)
                else:
                    jobs.cancel_job(config, catalog, queue, job)
            except UsageError as error:
                failed.append((job.study_uid, str(error)))
            else:
                done.append(job.study_uid)
        return BulkOutcome(tuple(done), tuple(failed))


def _retry(config: Config, catalog: Catalog, queue: Queue, found: Sequence[Job]) -> BulkOutcome:
    """Retry jobs, some at a time: what is noted of them first, then their places in the queue.

    Where this is killed between the two, the clock of the node finds them (`Housekeeping.reconcile`).
    """
    done, failed = [], list[tuple[str, str]]()
    for some in (found[at : at + _TOGETHER] for at in range(0, len(found), _TOGETHER)):
        with jobs.queue_failures():
            queue.look()  # before anything is changed
            prepared = []
            with catalog.together() as one:
                for job in some:
                    try:
                        prepared.append(jobs.prepare_retry(config, one, job))
                    except UsageError as error:
                        failed.append((job.study_uid, str(error)))
                    else:
                        done.append(job.study_uid)
            with queue.together() as all_in_one:
                for put in prepared:
                    put(all_in_one)
    return BulkOutcome(tuple(done), tuple(failed))


def reanalyse(config: Config, where: Sequence[str], per_hour: float, *, dry_run: bool) -> BulkOutcome:
    """Have all studies analysed once more for which every word of `where` holds, at research priority.

    A running node takes them up, `per_hour` of them in an hour. Each becomes a new generation: a result that has
    changed names the one before, one that has not changes nothing.

    Raises:
        UsageError: a word of `where` is not one, or there is none.
        SpoolError: the catalogue failed.
        BundleError, WeightsError, ConfigurationError: the methods of today cannot be loaded.
    """
    if not where:
        raise UsageError("give --where at least once: bundle, bundle=NAME, method or profile=NAME")
    # The profile first: of a study that is not meant, no method has to be known.
    conditions = [_condition(config, word) for word in sorted(where, key=lambda word: not word.startswith("profile"))]
    with closing(jobs.open_catalog(config)) as catalog:
        todays = _Today(config)
        done, failed = [], []
        for job in catalog.newest_jobs(REANALYSED):
            try:
                if all(condition(todays, catalog, job) for condition in conditions):
                    jobs.refuse_as_it_stands(catalog, jobs.study_of(catalog, job))
                    done.append(job.study_uid)
            except (ConfigurationError, UsageError, ValueError) as error:
                failed.append((job.study_uid, str(error)))
        if done and not dry_run:
            note_command(config, "jobs reanalyse", {"where": " ".join(where), "studies": str(len(done))})
            catalog.ask_reanalysis(done, per_hour, time.time())
        return BulkOutcome(tuple(done), tuple(failed))


def stop_reanalysing(config: Config) -> int:
    """Take the studies off the list that still wait to be analysed once more; returns how many."""
    with closing(jobs.open_catalog(config)) as catalog:
        note_command(config, "jobs reanalyse", {"stop": "yes"})
        return catalog.forget_reanalyses()


def point_in_time(text: str, now: float) -> float:
    """Return the UTC seconds that "2026-11-28", "2026-11-28T14:30" or "24h" (ago) mean. Raises UsageError."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time: give '2026-11-28', '2026-11-28T14:30', '90m', '24h' or '7d'") from None


class _Today:
    """The methods that would be used now, loaded when first asked for: torch and the bundles take seconds."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loaded: dict[str, tuple[str, str]] = {}

    def method(self, profile: str) -> tuple[str, str]:
        """Return the digest of a profile's method, and of its bundle ("" for none). Raises ConfigurationError."""
        if profile not in self._loaded:
            from dicomnode.models import build  # noqa: PLC0415  (as above)

            made = build.method(self._config.analysis_of(profile))
            self._loaded[profile] = (made.digest, made.bundle.sha256 if made.bundle is not None else "")
        return self._loaded[profile]

    def findings(self, job: Job) -> Findings | None:
        """Return what the job found; None where that is not kept."""
        path = results_folder(self._config.storage.results, job.study_uid, job.generation) / FINDINGS
        return Findings.from_json(path.read_text("utf-8")) if path.exists() else None


_Condition = Callable[[_Today, Catalog, Job], bool]


def _condition(config: Config, word: str) -> _Condition:
    name, _, value = word.partition("=")
    if name == "profile" and value:
        jobs.refuse_profile(config, value)
        return lambda _today, catalog, job: _profile(catalog, job) == value
    if name == "bundle":
        return lambda today, catalog, job: _bundle_differs(today, catalog, job, value)
    if word == "method":
        return _method_differs
    raise UsageError(f"--where {word!r}: give bundle, bundle=NAME, method or profile=NAME")


def _bundle_differs(today: _Today, catalog: Catalog, job: Job, name: str) -> bool:
    """Whether the risk was made with the bundle `name`; or, without one, with another than would be used now."""
    found = today.findings(job)
    if found is None or found.status != "analysed":
        return False
    if name:
        risk = found.risk
        return risk is not None and (risk.bundle == name or (len(name) >= 8 and risk.bundle_sha256.startswith(name)))
    method, bundle = today.method(_profile(catalog, job))
    if found.risk is None and found.algorithm_digest == method:
        return False  # today's bundle does not fit this scan: it would predict nothing again
    made_with = "" if found.risk is None else found.risk.bundle_sha256
    return made_with != bundle


def _method_differs(today: _Today, catalog: Catalog, job: Job) -> bool:
    """Whether another method than today's has analysed the study, or refused it."""
    found = today.findings(job)
    if found is None:
        return False
    judged_by = found.refused_by if found.status == "refused" else found.algorithm_digest
    return judged_by != today.method(_profile(catalog, job))[0]


def _profile(catalog: Catalog, job: Job) -> str:
    """Return the profile by which a job is analysed; "" where a rule says that it is not."""
    noted = catalog.routing(job.study_uid, job.generation)
    return DEFAULT_PROFILE if noted is None else str(json.loads(noted.decision)["action"]["analyse"] or "")


def lines(outcome: BulkOutcome, what: str, *, dry_run: bool) -> Iterable[str]:
    """Yield what a person is told: the studies in a dry run, what was not taken, and the count as the last line."""
    if dry_run:
        yield from outcome.done
    for study_uid, reason in outcome.failed:
        yield f"{study_uid}: not {what}: {reason}"
    count = len(outcome.done)
    studies = plural(count, "study", "studies")
    left = f", {len(outcome.failed)} not" if outcome.failed else ""
    yield f"{studies} would be {what}{left}" if dry_run else f"{studies} {what}{left}"
