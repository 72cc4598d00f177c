"""What telling a UPS worklist and an MPPS provider have in common: one look of the clock at one server."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from dicomnode import logs
from dicomnode.analysis.series.headers import read_source
from dicomnode.config import Config, RemoteTable
from dicomnode.errors import DicomnodeError
from dicomnode.network.ups import FOR_GOOD
from dicomnode.outbound.procedure_steps.progress import StudyProgress
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import ProcedureStep
from dicomnode.store.records import Instance

log = logging.getLogger(__name__)

Table = TypeVar("Table", bound=RemoteTable)


class ProcedureStepTick(ABC, Generic[Table]):
    """The server in one tick: each change of a step is told, and noted once it was taken."""

    #: One step in words, before its UID.
    what: ClassVar[str]

    def __init__(self, config: Config, table: Table, catalog: Catalog, association: Association, now: float) -> None:
        self._config, self._table, self._catalog, self._now = config, table, catalog, now
        self._association, self._peer = association, table.peer

    def advance_all(self, due: Iterable[tuple[ProcedureStep, StudyProgress]]) -> int:
        """Tell all that is due. Returns how many steps have changed.

        Raises:
            PeerError: the server did not answer.
        """
        return sum(self._has_advanced(step, seen) for step, seen in due)

    def _has_advanced(self, step: ProcedureStep, seen: StudyProgress) -> bool:
        try:
            return self.advance(step, seen) != step
        except DicomnodeError:
            raise
        except Exception as e:  # noqa: BLE001  (one step that cannot be told takes no other away)
            logs.log_unexpected(log, e, "%s %s postponed", self.what, step.step_uid)
            return False

    @abstractmethod
    def advance(self, step: ProcedureStep, seen: StudyProgress) -> ProcedureStep:
        """Tell all that is due of one step. Returns it as it is then; what was not taken is due again.

        Raises:
            PeerError: the server did not answer.
        """

    def _begin(self, step: ProcedureStep) -> ProcedureStep:
        images = self._catalog.instances(step.study_uid)
        if not images:
            return self._save(step.now("dropped", reason="its images were removed before the server could be updated"))
        return self._create(step, images, read_source(Path(images[0].path)))

    @abstractmethod
    def _create(self, step: ProcedureStep, images: Sequence[Instance], header: Dataset) -> ProcedureStep:
        """N-CREATE of a step about these images, of one of which the header is."""

    def _refused(self, step: ProcedureStep, message: str, status: int) -> ProcedureStep:
        """Return the step as it stands after the server has not taken a message about it."""
        given_up = status in FOR_GOOD or self._is_late(step)
        log.log(
            logging.ERROR if given_up else logging.WARNING,
            "%s refused %s %s (%s) with status 0x%04X: %s",
            self._peer, self.what, step.step_uid, message, status,
            "given up" if given_up else "it will be retried",
        )  # fmt: skip
        if not given_up:
            return step
        return self._save(step.now("dropped", reason=f"{message} refused with status 0x{status:04X}"))

    def _is_late(self, _step: ProcedureStep) -> bool:
        """Whether a step that is refused in passing is not told any more."""
        return False

    def _save(self, step: ProcedureStep) -> ProcedureStep:
        self._catalog.save_step(step)
        return step
