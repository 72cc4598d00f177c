"""The durable way of a notification, on DBOS as deliveries have it: each attempt is a workflow, its state is its row.

    catalogue's outbox ── clock ──> queue of the receiver ── attempt ──┬── told
                                            ^                         ├── given up: an error in the log
                                            └──────── pause ──────────┘

A receiver that is away holds up its own queue only: no study waits for a notification. One that answered just as the
worker died is told again, with the same key.
"""

import logging
from typing import Any

from dbos import DBOS

from dicomnode.errors import ConfigurationError, PeerError, PeerRejectedError
from dicomnode.outbound.notify.sending import find, send
from dicomnode.retry import backoff_s
from dicomnode.store.records import Event
from dicomnode.workflows.calls import enqueue, notify_call
from dicomnode.workflows.queue import MOST_RECOVERIES
from dicomnode.workflows.worker import RETRIES, current

log = logging.getLogger(__name__)


@DBOS.workflow(name="notify", max_recovery_attempts=MOST_RECOVERIES)
def notify(name: str, event: dict[str, Any], attempt: int, waited: float) -> str:
    """Tell one receiver of an event; where that fails in passing, queue the next attempt. Returns how it ended."""
    to = find(current().config, name)
    if to is None:
        return "no longer configured"
    problem = tell_step(name, event)
    if problem is None:
        return "told"
    if waited >= to.retry_for_s:
        log.error("%s: gave up after %.0f s, event %s not sent", problem, waited, event["event_id"])
        return "given up"
    pause = backoff_s(to.retry_first_s, to.retry_longest_s, attempt, seed=f"{name} {event['event_id']}")
    enqueue(notify_call(name, event, attempt=attempt + 1, waited=waited, pause=pause))
    return "again"


@DBOS.step(name="tell", **RETRIES)
def tell_step(name: str, event: dict[str, Any]) -> str | None:
    """Send the message. Returns None when it was taken, else the failure."""
    work = current()
    to = find(work.config, name)
    assert to is not None
    try:
        send(work.config, to, Event(**event), work.catalog)
    except (PeerError, PeerRejectedError, ConfigurationError) as e:
        # A refusal is tried again too: within `retry_for_s` a person may correct the address or the key.
        log.warning("notification failed, will retry: %s", e)
        return str(e)
    about = f"study {event['study_uid']} is" if event["study_uid"] else "the node:"
    log.info("notified %s: %s %s", name, about, event["state"])
    return None
