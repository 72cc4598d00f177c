"""One study once more, as a person wishes: analysed with another profile, or sent again to a destination."""

import json
import time
from dataclasses import replace

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.operations import jobs
from dicomnode.operations.audited import note_command
from dicomnode.routing.rules import ANALYSE, RoutingDecision
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.reanalyses import REANALYSED
from dicomnode.store.records import Delivery, Job
from dicomnode.words.numerals import plural

#: From these a study is analysed once more.
ENDED = (*REANALYSED, "ignored", "routed")
#: In these a job has brought all that it could.
SENT = ("analysed", "routed", "delivered", "committed", "refused", "failed")

#: Deliveries that can be made again: they were.
THERE = ("delivered", "committed", "failed", "rejected")


def refuse_reanalysis(catalog: Catalog, job: Job) -> None:
    """Raise UsageError, with the reason, where a study cannot be analysed with another profile."""
    if job.state not in ENDED:
        raise UsageError(f"the job is {job.state}: only an ended job can be analysed again ({', '.join(ENDED)})")
    study = jobs.study_of(catalog, job)
    jobs.refuse_as_it_stands(catalog, study)
    if study.state == "receiving" or study.generation != job.generation:
        raise _settling()


def reanalyse(config: Config, study_uid: str, profile: str) -> str:
    """Analyse a study with a profile, as its next generation, whatever the rules say. Return a sentence.

    The rules decide again on later generations.

    Raises:
        UsageError: the profile is not configured, or the study cannot be analysed again.
        SpoolError: the catalogue or the queue failed.
    """
    jobs.refuse_profile(config, profile)
    with jobs.opened(config) as (catalog, queue):
        job = jobs.find(catalog, study_uid, None)
        refuse_reanalysis(catalog, job)
        with jobs.queue_failures():
            queue.look()  # before anything is changed
            details, now = {"generation": str(job.generation), "profile": profile}, time.time()
            with catalog.together() as one:
                note_command(config, "jobs reanalyse", details, study_uid, catalog=one)
                noted = one.routing(study_uid, job.generation)
                made = one.open_generation(study_uid, job.generation, f"profile {profile}", now=now)
                if made is None:
                    raise _settling()
                jobs.carry_doubts(config, job)
                action = ANALYSE if noted is None else RoutingDecision.of(json.loads(noted.decision)).action
                action = replace(action, analyse=profile, hold=False)
                decision = RoutingDecision(("a person",), action).recorded()
                one.note_routing(study_uid, made, json.dumps(decision), now=now)
                one.release_held(study_uid, made, now=now)  # what a person has decided stays
            queue.release(study_uid, made)
            return f"queued as generation {made}, with the profile {profile}"


def _settling() -> UsageError:
    return UsageError("the study is receiving, or has just settled anew: look again")


def sendable(catalog: Catalog, job: Job) -> dict[str, list[Delivery]]:
    """Return what can be sent again of a job, by destination.

    Raises:
        UsageError: nothing, since the job is not at an end or there is nothing.
    """
    if job.state not in SENT:
        raise UsageError(f"the job is {job.state}: objects are sent again once it has ended ({', '.join(SENT)})")
    found: dict[str, list[Delivery]] = {}
    for one in catalog.deliveries(job.study_uid, job.generation):
        if one.state in THERE:
            found.setdefault(one.destination, []).append(one)
    if not found:
        raise UsageError("nothing of this study was sent anywhere")
    return found


def send(config: Config, study_uid: str, destination: str) -> str:
    """Send all objects of a study's newest generation to a destination again. Return a sentence for the caller.

    Raises:
        UsageError: there is nothing to be sent there, or the destination is no longer configured.
        SpoolError: the catalogue or the queue failed.
    """
    if destination not in [one.name for one in config.destination]:
        raise UsageError(f"{destination!r} is not a destination: it was removed from the configuration")
    with jobs.opened(config) as (catalog, queue):
        job = jobs.find(catalog, study_uid, None)
        there = sendable(catalog, job).get(destination, [])
        if not there:
            raise UsageError(f"nothing of this study was sent to {destination}")
        state = jobs.made_state(config, catalog, job)
        with jobs.queue_failures():
            queue.look()
            details = {"generation": str(job.generation), "destination": destination}
            note_command(config, "jobs send", details, study_uid, catalog=catalog)
            for one in there:
                jobs.pending_again(catalog, one)
            if state is not None and state != job.state:
                jobs.sent_again(catalog, job, state, jobs.SENT_AGAIN)
            queue.deliver(study_uid, job.generation, sorted({(one.destination, one.kind) for one in there}))
        return f"{plural(len(there), 'object')} to {destination} queued again"
