"""The way in to the workflow engine, for processes that enqueue, look and cancel but run nothing.

No analysis is imported here.
"""

from pathlib import Path

from dbos import DBOSClient, WorkflowHandle

from dicomnode.config import Config

STUDY_QUEUE = "studies"


def study_id(study_uid: str, generation: int, run: int = 1) -> str:
    """The workflow's ID: enqueueing the same study and generation twice is harmless. A retry by hand is a new run."""
    return f"study/{study_uid}/{generation}/{run}"


def delivery_queue(destination: str) -> str:
    """The queue of one destination."""
    return f"deliver-{destination}"


def results_folder(config: Config, study_uid: str, generation: int) -> Path:
    """Where the results of one generation of a study lie."""
    return config.storage.results / study_uid / f"g{generation}"


class Queue:
    """The way in for processes that only enqueue. Connects when first used: the worker makes the tables."""

    def __init__(self, config: Config) -> None:
        self._client = DBOSClient(system_database_url=config.queue_url, lazy=True, retry_connection_errors=False)

    def enqueue(self, study_uid: str, generation: int, *, again: bool = False) -> str:
        """Enqueue a study and return the workflow's ID.

        `again` starts a new run, else a second call changes nothing.
        """
        run = 1
        if again:
            before = self._client.list_workflows(
                workflow_id_prefix=f"study/{study_uid}/{generation}/", name="study", load_input=False, load_output=False
            )
            run = 1 + len(before)
        handle: WorkflowHandle[str] = self._client.enqueue(
            {"queue_name": STUDY_QUEUE, "workflow_name": "study", "workflow_id": study_id(study_uid, generation, run)},
            study_uid,
            generation,
            run,
        )
        return handle.get_workflow_id()

    def cancel(self, study_uid: str, generation: int) -> int:
        """Cancel what is queued or running of a study's generation, deliveries included. Returns how many workflows."""
        live = self._client.list_workflows(
            workflow_id_prefix=f"study/{study_uid}/{generation}/",
            status=["ENQUEUED", "PENDING", "DELAYED"],
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
        return [(w.workflow_id.split("/")[1], int(w.workflow_id.split("/")[2])) for w in found]

    def close(self) -> None:
        """Close the connection."""
        self._client.destroy()
