"""The durable delivery of a study to one destination: send, ask for storage commitment, try again later.

The results are one delivery; the received images, where a rule forwards them, are another (`forwarding`).

Each destination has its own queue, so that one which is away holds up no other; each attempt is a workflow of its own,
so that one which waits for its time holds no place in that queue. The state stands in the catalogue, object by object:

    pending ── stored ──> delivered ── report ──> committed      (storage commitment, where it is asked for)
       │ ^                    │
       │ └── not committed ───┘
       ├── refused for good ──> rejected      the dead letter: `dicomnode jobs retry`, once the cause is removed
       ├── given up ──────────> failed        the same
       └── newer generation ──> superseded
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dbos import DBOS
from pydicom.uid import generate_uid

from dicomnode import logs
from dicomnode.config import DestinationTable
from dicomnode.errors import DicomnodeError, PeerError, PeerRejectedError
from dicomnode.outbound import destinations, originals
from dicomnode.outbound.peers import audit_peer
from dicomnode.retry import backoff_s
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import ARRIVED, REJECTION, Delivery, DeliveryState, Kind
from dicomnode.words.numerals import plural
from dicomnode.workflows.calls import deliver_call, enqueue
from dicomnode.workflows.queue import MOST_RECOVERIES
from dicomnode.workflows.worker import RETRIES, current

log = logging.getLogger(__name__)


@DBOS.workflow(name="deliver", max_recovery_attempts=MOST_RECOVERIES)
@logs.about_study
def deliver(
    study_uid: str, generation: int, run: int, destination: str, attempt: int, waited: float, kind: Kind = "results"
) -> str:
    """Send a study's objects to one destination; where that fails in passing, queue the next attempt.

    Returns how it ended: the job's state, or "again".
    """
    peer = _peer(destination)
    if peer is None:
        return give_up_step(study_uid, generation, destination, "the destination is no longer configured", kind)
    send = send_step if kind == "results" else forward_step
    problem = send(study_uid, generation, destination)
    if problem is None and peer.commitment:
        problem = commit_step(study_uid, generation, destination, kind)
    if problem is None:
        return conclude_step(study_uid, generation)
    if waited >= peer.retry_for_s:
        return give_up_step(study_uid, generation, destination, f"gave up after {waited:.0f} s: {problem}", kind)
    pause = pause_s(peer, attempt, seed=f"{study_uid} {generation} {destination}")
    enqueue(
        deliver_call(study_uid, generation, run, destination, kind, attempt=attempt + 1, waited=waited, pause=pause)
    )
    return "again"


def pause_s(peer: DestinationTable, attempt: int, seed: str) -> float:
    """Seconds before the attempt after `attempt`; an answer to a request for storage commitment is not outwaited."""
    longest = min(peer.retry_longest_s, peer.commitment_timeout_s) if peer.commitment else peer.retry_longest_s
    return backoff_s(peer.retry_first_s, longest, attempt, seed)


def _peer(destination: str) -> DestinationTable | None:
    return next((d for d in current().config.destination if d.name == destination), None)


def _table(destination: str) -> DestinationTable:
    return next(d for d in current().config.destination if d.name == destination)


@DBOS.step(name="send", **RETRIES)
def send_step(study_uid: str, generation: int, destination: str) -> str | None:
    """Send what the destination has not yet accepted. Returns None when all is settled, else the passing failure."""
    with _told(study_uid, generation, destination):
        return _send(study_uid, generation, destination)


@contextmanager
def _told(study_uid: str, generation: int, destination: str) -> Iterator[None]:
    """Put what is delivered meanwhile into the audit trail, as one transfer."""
    work = current()
    try:
        yield
    finally:
        work.catalog.tell_sent(study_uid, generation, destination, audit_peer(work.config, destination), time.time())


def _send(study_uid: str, generation: int, destination: str) -> str | None:
    work = current()
    peer = destinations.reach(_table(destination))
    for planned in _in_order(work.catalog.deliveries(study_uid, generation), destination):
        if not work.catalog.may_send(planned) or not _is_its_turn(work.catalog, planned):
            continue
        if planned.object == REJECTION and not _table(destination).reject_old:
            work.catalog.note_attempt(planned, "superseded", text="reject_old is not set any more", now=time.time())
            continue
        try:
            sent = peer.send([Path(planned.path)])[0]
        except PeerRejectedError as e:
            work.catalog.note_attempt(planned, "rejected", text=str(e), now=time.time())
            log.error("%s permanently refuses %s of study %s: %s", destination, planned.object, study_uid, e)
        except PeerError as e:
            work.catalog.note_attempt(planned, "pending", text=str(e), now=time.time())
            log.warning("%s did not accept %s of study %s, will retry: %s", destination, planned.object, study_uid, e)
            return str(e)
        except DicomnodeError:
            raise  # the catalogue's: the step is tried again
        except Exception as e:  # noqa: BLE001  (whatever a peer's answer provoked: told, and tried again)
            logs.log_unexpected(log, e, "%s: sending %s of study %s failed", destination, planned.object, study_uid)
            problem = originals.unexpected(e)
            work.catalog.note_attempt(planned, "pending", text=problem, now=time.time())
            return problem
        else:
            work.catalog.note_attempt(planned, "delivered", status=sent.status, text=sent.outcome, now=time.time())
            log.info("%s stored %s of study %s (0x%04X)", destination, planned.object, study_uid, sent.status)
    return None


def _in_order(deliveries: Sequence[Delivery], destination: str) -> list[Delivery]:
    """Return a destination's results, and what takes older ones back as the last."""
    mine = [d for d in deliveries if d.destination == destination and d.kind == "results"]
    return sorted(mine, key=lambda d: d.object == REJECTION)


def _is_its_turn(catalog: Catalog, planned: Delivery) -> bool:
    """Whether the new results are there: before that, the old ones are not taken back."""
    if planned.object != REJECTION:
        return True
    others = _in_order(catalog.deliveries(planned.study_uid, planned.generation), planned.destination)
    return all(d.state in ARRIVED for d in others if d.object != REJECTION)


@DBOS.step(name="forward", **RETRIES)
def forward_step(study_uid: str, generation: int, destination: str) -> str | None:
    """Send the received images that the destination has not yet accepted. Returns as `send_step`."""
    work = current()
    peer = destinations.reach(_table(destination))
    with _told(study_uid, generation, destination):
        return originals.forward(peer, work.catalog, study_uid, generation)


@DBOS.step(name="commit", **RETRIES)
def commit_step(study_uid: str, generation: int, destination: str, kind: Kind = "results") -> str | None:
    """Ask for storage commitment where that was not done, or has not been answered in time.

    Returns None when nothing is left to wait for, else what is waited for. The report may come at once, on this
    association, or later, at the receiver. One request is for all that the destination has stored of the study, results
    and images alike, and is made anew when it has stored more; only `kind` is waited for.
    """
    work, now = current(), time.time()
    peer = _table(destination)
    work.catalog.conclude(study_uid, generation, now=now)
    stored = _in_state(work.catalog, study_uid, generation, destination, "delivered")
    asked_at = work.catalog.commitment_asked_at(study_uid, generation, destination)
    due = (
        asked_at is None or now - asked_at >= peer.commitment_timeout_s or any(d.updated_at > asked_at for d in stored)
    )
    if stored and due:
        transaction_uid = generate_uid(prefix=None)
        work.catalog.ask_commitment(transaction_uid, study_uid, generation, destination, now=now)
        try:
            report = destinations.reach(peer).request_commitment(
                transaction_uid, [(d.sop_class_uid, d.sop_instance_uid) for d in stored]
            )
        except PeerRejectedError as e:
            for d in stored:
                work.catalog.note_attempt(
                    d, "rejected", status=d.status, text=f"stored, but storage commitment: {e}", now=time.time()
                )
            log.error("%s permanently refuses storage commitment of study %s: %s", destination, study_uid, e)
            return None
        except PeerError as e:
            work.catalog.report_commitment(transaction_uid, [], {}, now=now)
            return f"storage commitment request failed: {e}"
        if report is not None:
            work.catalog.report_commitment(transaction_uid, report.committed, report.failed, now=time.time())
    waiting = _in_state(work.catalog, study_uid, generation, destination, "delivered", "pending")
    left = [d for d in waiting if d.kind == kind and _is_its_turn(work.catalog, d)]
    return f"waiting for storage commitment of {plural(len(left), 'object')}" if left else None


def _in_state(
    catalog: Catalog, study_uid: str, generation: int, destination: str, *states: DeliveryState
) -> list[Delivery]:
    found = catalog.deliveries(study_uid, generation)
    return [d for d in found if d.destination == destination and d.state in states]


@DBOS.step(name="give-up", **RETRIES)
def give_up_step(study_uid: str, generation: int, destination: str, why: str, kind: Kind = "results") -> str:
    """Set aside what could not be delivered, or was not committed; `dicomnode jobs retry` takes it up again."""
    catalog = current().catalog
    for d in _in_state(catalog, study_uid, generation, destination, "pending"):
        if d.kind == kind:
            catalog.note_attempt(d, "failed", text=why, now=time.time())
    for d in _in_state(catalog, study_uid, generation, destination, "delivered"):
        if d.commitment and d.kind == kind:
            catalog.note_attempt(d, "failed", status=d.status, text=why, now=time.time())
    return catalog.conclude(study_uid, generation, now=time.time())


@DBOS.step(name="conclude", **RETRIES)
def conclude_step(study_uid: str, generation: int) -> str:
    """Bring the job's state in line with its deliveries."""
    return current().catalog.conclude(study_uid, generation, now=time.time())
