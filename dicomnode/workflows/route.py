"""The durable workflow that decides what is done with a settled study, and starts it (on DBOS, beside `workflow`).

    settled ── rules ──┬── analyse: the workflow `study`, in the place that its priority gives it
                       ├── forward: one delivery of the received images for each destination
                       ├── hold:    nothing, until `dicomnode jobs release`
                       └── ignore:  nothing

A node without rules does not come here. The decision is in the catalogue before anything follows from it; a run that
was cut short decides again, on the same images and so the same, and what it had started is not started twice.
"""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

from dbos import DBOS

from dicomnode import logs
from dicomnode.routing import study_facts
from dicomnode.routing.rules import ANALYSE, Action, RoutingDecision, decide
from dicomnode.store.records import JobState, Routing
from dicomnode.workflows import fetch
from dicomnode.workflows.calls import deliver_call, enqueue, study_call, study_priority
from dicomnode.workflows.failure import Ended, or_failed
from dicomnode.workflows.queue import MOST_RECOVERIES
from dicomnode.workflows.worker import RETRIES, Work, current

log = logging.getLogger(__name__)

#: What the node has fetched itself is analysed, whatever the rules say of the PACS that sent it.
_FETCHED = RoutingDecision(("prior scan, fetched for comparison",), ANALYSE)
#: Where every object was taken out, no rule matches: the study ends as refused, and what went out of it is withdrawn.
_EMPTY = RoutingDecision(("nothing left of the study",), ANALYSE)


@DBOS.workflow(name="route", max_recovery_attempts=MOST_RECOVERIES)
@logs.about_study
def route(study_uid: str, generation: int, run: int) -> str:
    """Decide on a study and start what is to be done. Returns the job's state."""
    planned = or_failed(study_uid, generation, "could not be routed", lambda: _planned(study_uid, generation))
    if isinstance(planned, Ended):
        return planned.state
    destinations, priority = planned
    for name in destinations:
        enqueue(deliver_call(study_uid, generation, run, name, "originals"))
    if priority is None:
        return settle_step(study_uid, generation)
    enqueue(study_call(study_uid, generation, run, priority=priority))
    return "queued"


def _planned(study_uid: str, generation: int) -> tuple[list[str], int | None] | Ended:
    """Where the images go, and the study's place in the queue of analyses (None: it is not analysed)."""
    state = decide_step(study_uid, generation)
    return plan_step(study_uid, generation) if state == "queued" else Ended(state)


@DBOS.step(name="decide", **RETRIES)
def decide_step(study_uid: str, generation: int) -> JobState:
    """Apply the rules and record what they say. Returns the job's state: "queued" where something is to be done."""
    work = current()
    job = work.catalog.job(study_uid, generation)
    if job is None or job.state != "queued":
        return "superseded" if job is None else job.state
    found, by_rules = _decided(work, study_uid)
    if by_rules and fetch.stays_here(work.config, work.catalog, study_uid):
        # Where the results go is asked when they are planned (`study`): somebody may want them by then.
        found = replace(found, action=replace(found.action, forward_to=()))
    noted = work.catalog.note_routing(study_uid, generation, json.dumps(found.recorded()), now=time.time())
    decision = decision_of(noted)
    by = " and ".join(repr(name) for name in decision.taken_by) or "no rule"
    log.info("study %s generation %d: routing matched %s", study_uid, generation, by)
    action, now = decision.action, time.time()
    if action.hold and noted.released_at is None:
        reason = f"held by {by}: release with `dicomnode jobs release`"
        return work.catalog.set_state(study_uid, generation, "held", reason, now=now)
    if action.analyse is None and not action.forward_to:
        return work.catalog.set_state(study_uid, generation, "ignored", f"ignored by {by}", now=now)
    return "queued"


def _decided(work: Work, study_uid: str) -> tuple[RoutingDecision, bool]:
    """Return the decision on what has come of a study, and whether the rules made it."""
    rules = work.config.rules
    paths = [Path(i.path) for i in work.catalog.instances(study_uid)]
    if work.catalog.is_prior(study_uid):
        return _FETCHED, False
    if not paths:
        return _EMPTY, False
    facts = study_facts.facts(study_uid, paths, work.catalog.callers(study_uid), study_facts.keywords(rules))
    return decide(facts, rules), True


def foreseen(work: Work, study_uid: str) -> Action:
    """Return what would be done with a study that has not settled, if nothing more came. Nothing is noted."""
    return _decided(work, study_uid)[0].action if work.config.routes_studies else ANALYSE


@DBOS.step(name="plan", **RETRIES)
def plan_step(study_uid: str, generation: int) -> tuple[list[str], int | None]:
    """Plan the deliveries of the received images.

    Returns their destinations, and the place in the queue of analyses; None where the study is not analysed.
    """
    work = current()
    noted = work.catalog.routing(study_uid, generation)
    assert noted is not None
    action = decision_of(noted).action
    asked = {d.name: d.commitment for d in work.config.destination}
    wanted = [(name, asked.get(name, False)) for name in action.forward_to]
    work.catalog.plan_originals(study_uid, generation, wanted, now=time.time())
    if action.analyse is None:
        return list(action.forward_to), None
    work.config.analysis_of(action.analyse)  # report a missing profile before the study is queued
    return list(action.forward_to), place(work, study_uid, generation)


@DBOS.step(name="forward-only", **RETRIES)
def settle_step(study_uid: str, generation: int) -> str:
    """Settle the job of a study that is forwarded and not analysed: it ends with its deliveries."""
    catalog, now = current().catalog, time.time()
    catalog.set_state(study_uid, generation, "routed", "forwarded, not analysed", now=now)
    return catalog.conclude(study_uid, generation, now=now)


def decision_of(noted: Routing) -> RoutingDecision:
    """Return the decision that stands in the catalogue."""
    return RoutingDecision.of(json.loads(noted.decision))


def action_of(work: Work, study_uid: str, generation: int) -> Action:
    """Return what is to be done with a generation of a study; without rules it is analysed, for all destinations."""
    noted = work.catalog.routing(study_uid, generation)
    return ANALYSE if noted is None else decision_of(noted).action


def place(work: Work, study_uid: str, generation: int) -> int | None:
    """Return the study's place in the queue of analyses; None where no rule was asked."""
    noted = work.catalog.routing(study_uid, generation)
    if work.catalog.is_reanalysis(study_uid, generation) or work.catalog.bulk(study_uid) is not None:
        return study_priority("research", time.time(), work.config.routing)
    if noted is None:
        return None
    return study_priority(decision_of(noted).action.priority, noted.decided_at, work.config.routing)
