"""The calls of workflows: one builder for each, so that its queue, ID and arguments are spelt in one place.

What is spelt here stands in rows of the database, which outlive an upgrade: names of workflows and queues, IDs and the
order of arguments stay as they are; a new argument comes last and has a default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dbos import DBOS, EnqueueOptions

from dicomnode.config.routing import RoutingTable
from dicomnode.routing.rules import Priority
from dicomnode.store.records import Kind

STUDY_QUEUE = "studies"
#: Look-ups of prior scans for patients on the worklist, and the fetching of prior scans.
PREFETCH_QUEUE, FETCH_QUEUE = "prefetches", "fetches"
#: Where studies wait for the rules to decide on them: seconds, while an analysis takes minutes.
ROUTE_QUEUE = "routes"
#: DBOS takes priorities from 1 to 2**31 - 1, the least first: seconds since this time (2025-01-01) last until 2093.
_PRIORITY_EPOCH = 1_735_689_600
#: In a destination's queue a page of results goes before the thousand images of another study.
_DELIVERY_PRIORITY: Final[Mapping[Kind, int]] = {"results": 1, "originals": 2}


@dataclass(frozen=True)
class Call:
    """A workflow to be run.

    Attributes:
        queue: where it waits.
        workflow: its registered name.
        id: a second call with this ID changes nothing.
        args: positional, as the workflow takes them.
        delay_s: it begins after so many seconds.
        priority: its place in the queue, the least first; None: before all that have one.
    """

    queue: str
    workflow: str
    id: str
    args: tuple[Any, ...]
    delay_s: float = 0.0
    priority: int | None = None

    @property
    def options(self) -> EnqueueOptions:
        """All but the arguments, as DBOS takes it."""
        options: EnqueueOptions = {
            "queue_name": self.queue,
            "workflow_name": self.workflow,
            "workflow_id": self.id,
        }
        if self.delay_s > 0:
            options["delay_seconds"] = self.delay_s
        if self.priority is not None:
            options["priority"] = self.priority
        return options


def enqueue(call: Call) -> None:
    """Queue a call from within a workflow, which notes it as its own. Who runs no workflows has `queue.Queue`."""
    DBOS.enqueue_workflow_with_options(call.options, *call.args)


# A study


def study_id(study_uid: str, generation: int, run: int = 1) -> str:
    """Return the ID: enqueueing the same study and generation twice is harmless. A retry by hand is a new run."""
    return f"study/{study_uid}/{generation}/{run}"


def study_call(study_uid: str, generation: int, run: int, *, priority: int | None = None) -> Call:
    """Analyse a settled study (`study.study`)."""
    return Call(
        STUDY_QUEUE,
        "study",
        study_id(study_uid, generation, run),
        (study_uid, generation, run),
        priority=priority,
    )


def study_later_call(
    study_uid: str, generation: int, run: int, *, attempt: int, waited: float, pause: float, priority: int | None
) -> Call:
    """Look once more, after `pause` seconds, whether a study's priors have come, and then analyse it.

    Args:
        study_uid: the study's.
        generation: of the study, from 1.
        run: counts the retries by hand, from 1.
        attempt: which look this is, from 2.
        waited: seconds for which the study has been put off so far.
        pause: seconds.
        priority: the place in the queue, see `study_priority`.
    """
    return Call(
        STUDY_QUEUE,
        "study",
        f"{study_id(study_uid, generation, run)}/~waits/{attempt}",
        (study_uid, generation, run, attempt, waited + pause),
        pause,
        priority,
    )


def study_priority(priority: Priority, arrived_at: float, routing: RoutingTable) -> int:
    """Return the place of a study in the queue of analyses: the least goes first.

    It is the time until which the study lets more urgent ones pass, so it ages by standing still: a stat study goes
    before every research study that came within `research_yields_s` before it, and behind the older ones. Nothing
    waits for ever, however many stat studies keep coming.
    """
    yields_s = {"stat": 0.0, "routine": routing.routine_yields_s, "research": routing.research_yields_s}[priority]
    return max(1, int(arrived_at + yields_s) - _PRIORITY_EPOCH)


def route_call(study_uid: str, generation: int, run: int) -> Call:
    """Decide by the rules what is done with a study, and start it (`route.route`)."""
    return Call(
        ROUTE_QUEUE,
        "route",
        f"{study_id(study_uid, generation, run)}/route",
        (study_uid, generation, run),
    )


# A delivery


def delivery_queue(destination: str) -> str:
    """Return the queue of one destination."""
    return f"deliver-{destination}"


def delivery_id(
    study_uid: str, generation: int, run: int, destination: str, attempt: int, kind: Kind = "results"
) -> str:
    """Return the ID of the workflow that is one attempt to deliver."""
    # No destination's name has a '~'.
    whose = destination if kind == "results" else f"{destination}~{kind}"
    return f"{study_id(study_uid, generation, run)}/{whose}/{attempt}"


def deliver_call(
    study_uid: str,
    generation: int,
    run: int,
    destination: str,
    kind: Kind = "results",
    *,
    attempt: int = 1,
    waited: float = 0.0,
    pause: float = 0.0,
) -> Call:
    """Send a study's objects to one destination, after `pause` seconds (`deliver.deliver`).

    Args:
        study_uid: the study's.
        generation: of the study, from 1.
        run: counts the retries by hand, from 1.
        destination: its name in the configuration.
        kind: results, or the received images.
        attempt: counts from 1.
        waited: seconds between the attempts so far.
        pause: seconds.
    """
    return Call(
        delivery_queue(destination),
        "deliver",
        delivery_id(study_uid, generation, run, destination, attempt, kind),
        (study_uid, generation, run, destination, attempt, waited + pause, kind),
        pause,
        _DELIVERY_PRIORITY[kind],
    )


# Prior scans


def prefetch_call(order_key: str, day: str) -> Call:
    """Look for the prior scans of a patient on the worklist, once a `day`, "YYYYMMDD" (`fetch.prefetch_patient`)."""
    own_id = f"prefetch/{order_key}/{day}"
    return Call(PREFETCH_QUEUE, "prefetch", own_id, (order_key, own_id))


def fetch_call(study_uid: str, asked_by: str, *, attempt: int = 1, waited: float = 0.0, pause: float = 0.0) -> Call:
    """Fetch a prior scan, after `pause` seconds (`fetch.fetch`).

    Args:
        study_uid: the prior's.
        asked_by: ID of the workflow that asks: the same call twice is one attempt. What "prefetch/…" asks for keeps to
            the quiet hours.
        attempt: counts from 1.
        waited: seconds between the attempts so far.
        pause: seconds.
    """
    return Call(
        FETCH_QUEUE,
        "fetch",
        f"fetch/{study_uid}/{asked_by}/{attempt}",
        (study_uid, asked_by, attempt, waited + pause),
        pause,
    )


# A notification


def notify_queue(name: str) -> str:
    """Return the queue of one receiver of notifications."""
    return f"notify-{name}"


def notify_call(
    name: str, event: Mapping[str, Any], *, attempt: int = 1, waited: float = 0.0, pause: float = 0.0
) -> Call:
    """Tell one receiver of an event, after `pause` seconds (`notify.notify`).

    Args:
        name: the receiver's in the configuration.
        event: the fields of a `store.records.Event`.
        attempt: counts from 1.
        waited: seconds between the attempts so far.
        pause: seconds.
    """
    return Call(
        notify_queue(name),
        "notify",
        f"notify/{name}/{event['event_id']}/{attempt}",
        (name, dict(event), attempt, waited + pause),
        pause,
    )
