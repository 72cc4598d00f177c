"""A node in the test's own process: receiver, clock (by hand) and worker, on a database of the test's choice."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pydicom
from pydicom.dataset import Dataset

from dicomnode import config
from dicomnode.demo.pacs import StoragePeer
from dicomnode.errors import DicomnodeError
from dicomnode.models.serving import Models
from dicomnode.network import association
from dicomnode.operations import jobs
from dicomnode.reception.receiver import Receiver
from dicomnode.service.clock import Housekeeping
from dicomnode.service.processes import prepare_folders, receiver_settings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from dicomnode.workflows import runtime, worker
from dicomnode.workflows.queue import WORKFLOW_VERSION, Queue
from tests.helpers.ports import free_port
from tests.helpers.waiting import until


class Station:
    """Everything of a node but its processes. `start_worker` and `tick` are the test's to call."""

    def __init__(
        self,
        folder: Path,
        destinations: str,
        *,
        more: str = "",
        database_url: str = "",
        quiet_s: float = 0.2,
        settle: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.path = folder / "ae_config.toml"
        self.path.write_text(
            f"[node]\nport = {self.port}\n"
            f"[settle]\nrelease_s = 0\nquiet_s = {quiet_s}\n{settle}\n"
            f"[storage]\nminimum_free_gb = 0.1\ndatabase_url = {json.dumps(database_url)}\n"
            "[analysis]\nradiomics = false\n"
            f"{more}\n{destinations}\n"
        )
        self.config = config.load(self.path)
        prepare_folders(self.config)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        self.queue = Queue(self.config)
        self.clock = Housekeeping(self.config, self.catalog, self.queue)
        self.receiver = Receiver(receiver_settings(self.config), Spool(self.config.storage.spool), self.catalog)
        self.receiver.start()
        self._running = False

    def start_worker(self, name: str = "test") -> None:
        self.lease = self.catalog.register_worker(name, WORKFLOW_VERSION)
        leased = self.catalog.leased(self.lease, _lost)
        runtime.start(worker.Work(self.config, leased, Models(self.config)), executor_id=name)
        self._running = True
        self.clock.reconcile()  # what settled before there was a queue

    def recover(self) -> int:
        """Look for dead workers. Ours has no heart of its own: however slow the machine is, it lives when we look."""
        assert self.catalog.beat(self.lease)
        return self.clock.recover()

    def send(self, files: Sequence[Path], called: str = "DICOMNODE", calling: str = "SCANNER") -> None:
        association.send(association.Peer("node", called, "127.0.0.1", self.port, calling), files)

    def settle(self, study_uid: str) -> int:
        """Tick until the study has settled; its generation."""
        until("settled", lambda: any(uid == study_uid for uid, _ in self.clock.settle()), 60)
        study = self.catalog.study(study_uid)
        assert study is not None
        return study.generation

    def state(self, study_uid: str, generation: int) -> str:
        job = self.catalog.job(study_uid, generation)
        assert job is not None
        return job.state

    def ended(self, study_uid: str, generation: int, *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the job is in one of `states`; what `jobs show` says of it."""
        until(f"{states}", lambda: self.state(study_uid, generation) in states, seconds)
        return jobs.details(self.config, study_uid, generation)

    def close(self) -> None:
        self.receiver.stop(0)
        if self._running:
            runtime.stop(0)
        self.queue.close()
        self.catalog.close()


def _lost() -> NoReturn:
    raise DicomnodeError("the lease is lost")


class Pacs(StoragePeer):
    """Keeps what it gets, counts how often each object came, and can be away or refuse."""

    def __init__(self, folder: Path, ae_title: str = "PACS") -> None:
        super().__init__(ae_title, "127.0.0.1", free_port(), folder)
        self.came: list[str] = []
        self.answers: Callable[[Any], int] = super()._store

    def _store(self, event: Any) -> int:
        status = self.answers(event)
        if status in (0x0000, 0xB000):
            self.came.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def destination(self, name: str = "pacs", more: str = "") -> str:
        return (
            f'[[destination]]\nname = "{name}"\nae_title = "{self.ae_title}"\nhost = "127.0.0.1"\nport = {self.port}\n'
            f"retry_first_s = 0.2\nretry_longest_s = 0.4\ntimeout_s = 5\n{more}\n"
        )

    def held(self, study_uid: str | None = None) -> list[Dataset]:
        found = [pydicom.dcmread(path) for path in sorted(self.folder.glob("*.dcm"))]
        return [d for d in found if study_uid in (None, d.StudyInstanceUID)]


@contextmanager
def running(*things: Any) -> Iterator[None]:
    """Stop or close everything at the end, the last first."""
    try:
        yield
    finally:
        for thing in reversed(things):
            thing.close() if hasattr(thing, "close") else thing.stop()
        for thread in threading.enumerate():
            if thread.name == "commitment":
                thread.join(10)
