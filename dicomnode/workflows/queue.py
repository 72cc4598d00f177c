"""The way in to the workflow engine, for processes that enqueue, look and cancel but run nothing.

No analysis is imported here.
"""

import copy
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Self

from dbos import DBOSClient, WorkflowHandle, WorkflowStatus
from sqlalchemy import Connection, create_engine, make_url

from dicomnode.config import Config
from dicomnode.store.catalog.database import make_private
from dicomnode.store.records import Event, Kind
from dicomnode.workflows.calls import (
    Call,
    deliver_call,
    notify_call,
    prefetch_call,
    route_call,
    study_call,
    study_id,
)
from dicomnode.workflows.serializer import install

#: Workflows of another version are left alone by a worker: raise it when steps change their order or meaning.
WORKFLOW_VERSION = "4"
#: A study that takes its worker down this often is set aside instead of taking it down for ever.
MOST_RECOVERIES = 20
#: A worker looks for studies and deliveries so often: the longest that an idle one leaves them waiting. Each look costs
#: some milliseconds.
POLL_S = 0.25
#: Into queues whose work takes seconds, or on which no result waits.
SLOW_POLL_S = 1.0
#: Into those that the configuration does not use: what was queued before it changed ends, too.
UNUSED_POLL_S = 5.0
_LIVE = ["ENQUEUED", "PENDING", "DELAYED"]


_STUDY_ID = re.compile(r"study/(.+?)/(\d+)/(\d+)(/.*)?", re.DOTALL)


def named_study(workflow_id: str) -> tuple[str, int, int] | None:
    """Return study UID, generation and run of which an ID speaks; None of another's. A UID may be anything."""
    found = _STUDY_ID.fullmatch(workflow_id)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


class Queue:
    """The way in for processes that only enqueue. Connects when first used: the worker makes the tables."""

    def __init__(self, config: Config) -> None:
        self._routes_studies, self._url = config.routes_studies, config.queue_url
        self._connection: Connection | None = None
        if not config.storage.database_url and config.storage.state.is_dir():
            make_private(str(config.storage.state / "queue.sqlite"))
        self._client = DBOSClient(
            system_database_url=config.queue_url, lazy=True, retry_connection_errors=False, serializer=install()
        )

    @contextmanager
    def together(self) -> Iterator[Self]:
        """Yield the same queue, with all that is enqueued by it in one transaction: one wait for the disk."""
        url = make_url(self._url)
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")  # as the engine does; the configuration may name none
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                view = copy.copy(self)
                view._connection = connection
                yield view
        finally:
            engine.dispose()

    def enqueue(self, study_uid: str, generation: int, *, again: bool = False, priority: int | None = None) -> str:
        """Enqueue a study, for the rules where there are any, and return the workflow's ID.

        `again` starts a new run, else a second call changes nothing. `priority` is the place in the queue where there
        are no rules.
        """
        run = self._next_run(study_uid, generation) if again else 1
        direct = study_id(study_uid, generation, run)
        # What was queued before there were rules stays queued: it settled without them.
        if self._routes_studies and (again or not self._is_known(direct)):
            return self._enqueue(route_call(study_uid, generation, run))
        return self._enqueue(study_call(study_uid, generation, run, priority=priority))

    def prefetch(self, order_key: str, day: str) -> None:
        """Look for the prior scans of a patient on the worklist, once on this day ("YYYYMMDD")."""
        self._enqueue(prefetch_call(order_key, day))

    def release(self, study_uid: str, generation: int) -> str:
        """Enqueue what a rule had held, for what it decided then. Returns the workflow's ID."""
        return self._enqueue(route_call(study_uid, generation, self._next_run(study_uid, generation)))

    def is_live(self, study_uid: str, generation: int) -> bool:
        """Whether anything of a study's generation is queued or runs, deliveries included."""
        return bool(
            self._client.list_workflows(
                workflow_id_prefix=f"study/{study_uid}/{generation}/",
                status=_LIVE,
                limit=1,
                load_input=False,
                load_output=False,
            )
        )

    def look(self) -> None:
        """Raise SQLAlchemyError where the queue's database is away, or was not made yet."""
        self._client.list_workflows(limit=1, load_input=False, load_output=False)

    def _enqueue(self, call: Call) -> str:
        handle: WorkflowHandle[str]
        if self._connection is None:
            handle = self._client.enqueue(call.options, *call.args)
        else:
            handle = self._client.enqueue_in_transaction(self._connection, call.options, *call.args)
        return handle.get_workflow_id()

    def _is_known(self, workflow_id: str) -> bool:
        return bool(self._client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False))

    def deliver(self, study_uid: str, generation: int, deliveries: Sequence[tuple[str, Kind]]) -> None:
        """Enqueue new deliveries, each to a destination, of what is there already."""
        run = self._next_run(study_uid, generation)
        for destination, kind in deliveries:
            self._enqueue(deliver_call(study_uid, generation, run, destination, kind))

    def notify(self, name: str, event: Event) -> None:
        """Enqueue the first attempt to tell one receiver of an event; a second call changes nothing."""
        self._enqueue(notify_call(name, asdict(event)))

    def _next_run(self, study_uid: str, generation: int) -> int:
        before = self._client.list_workflows(
            workflow_id_prefix=f"study/{study_uid}/{generation}/", load_input=False, load_output=False
        )
        runs = (named_study(w.workflow_id) for w in before)
        return 1 + max((run for _, of, run in filter(None, runs) if of == generation), default=0)

    def cancel(self, study_uid: str, generation: int) -> int:
        """Cancel what is queued or running of a study's generation, deliveries included. Returns how many workflows."""
        live = self._client.list_workflows(
            workflow_id_prefix=f"study/{study_uid}/{generation}/",
            status=_LIVE,
            load_input=False,
            load_output=False,
        )
        self._client.cancel_workflows([w.workflow_id for w in live])
        return len(live)

    def given_up(self) -> list[tuple[str, int]]:
        """(study UID, generation) of the studies that took their worker down too often."""
        found = self._client.list_workflows(
            status="MAX_RECOVERY_ATTEMPTS_EXCEEDED", load_input=False, load_output=False, workflow_id_prefix="study/"
        )
        return [(uid, generation) for uid, generation, _ in filter(None, (named_study(w.workflow_id) for w in found))]

    def next_attempts(self, jobs: Collection[tuple[str, int]]) -> dict[tuple[str, int], float]:
        """Return when the first of what waits for its time is due, UTC seconds, by (study UID, generation): one query.

        Those for which nothing waits are left out.
        """
        if not jobs:
            return {}
        waiting = self._client.list_workflows(
            workflow_id_prefix=[f"study/{study_uid}/{generation}/" for study_uid, generation in jobs],
            status="DELAYED",
            load_input=False,
            load_output=False,
        )
        found: dict[tuple[str, int], float] = {}
        for w in waiting:
            of = named_study(w.workflow_id)
            if of is not None and w.delay_until_epoch_ms is not None:
                due = w.delay_until_epoch_ms / 1000
                found[of[:2]] = min(due, found.get(of[:2], due))
        return found

    def resume_of(self, executor_id: str) -> int:
        """Give what a dead worker had begun to the others, who go on at its last step. Returns how many workflows."""
        begun = self._client.list_workflows(
            executor_id=executor_id, status="PENDING", load_input=False, load_output=False
        )
        for w in begun:
            self._client.resume_workflow(w.workflow_id, queue_name=w.queue_name)
        return len(begun)

    def adopt_orphans(self, versions: Collection[str]) -> int:
        """Take over what is left of versions of the workflow that no worker runs any more. Returns how many.

        `versions` are those that still have a worker. An orphan's work begins anew under this version, as a workflow
        whose ID follows from the old one, so that a second call, or one after a crash between the two changes, adds
        nothing. Its finished steps are run again, which is as harmless as after a crash.
        """
        live = self._client.list_workflows(status=_LIVE, load_input=True, load_output=False)
        orphans = [w for w in live if w.app_version and w.app_version not in versions]
        for w in orphans:
            self._anew(w, f"v{WORKFLOW_VERSION}")
        return len(orphans)

    def take_over(self) -> int:
        """Give everything that was begun to whoever runs now: after a restore, nobody else does. Returns how many.

        An analysis begins anew: what it had left in the results folder may not be what the queue says. All else goes on
        at its last step. A second call adds nothing.
        """
        live = self._client.list_workflows(status=_LIVE, load_input=True, load_output=False)
        begun = 0
        for w in live:
            if w.name == "study" and (w.status == "PENDING" or self._has_steps(w.workflow_id)):
                self._anew(w, "restored")
            elif w.status == "PENDING":
                self._client.resume_workflow(w.workflow_id, queue_name=w.queue_name)
            else:
                continue
            begun += 1
        return begun

    def _has_steps(self, workflow_id: str) -> bool:
        return bool(self._client.list_workflow_steps(workflow_id, load_output=False))

    def _anew(self, w: WorkflowStatus, why: str) -> None:
        """Let a workflow's work begin anew, as one whose ID follows from the old one."""
        assert w.input is not None
        assert w.queue_name is not None
        delay = 0.0 if w.delay_until_epoch_ms is None else max(0.0, w.delay_until_epoch_ms / 1000 - time.time())
        again = f"{w.workflow_id}/{why}"
        self._enqueue(Call(w.queue_name, w.name, again, tuple(w.input["args"]), delay, w.priority or None))
        self._client.cancel_workflow(w.workflow_id)

    def close(self) -> None:
        """Close the connection."""
        self._client.destroy()
