"""What an analyst has measured of a study that had not settled yet, and when the study's own analysis may have it.

It is kept in the analyst's memory alone, so that a kill leaves nothing behind, and only until the analyst is asked for
a study again. It holds for what was measured: these objects, byte for byte, by this method. Where anything has come,
gone or changed since, the study is analysed from the start.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode.analysis.pipeline import Analysis, Measured, Method, examine
from dicomnode.store.records import Instance
from dicomnode.workflows import route
from dicomnode.workflows.worker import Work

log = logging.getLogger(__name__)

#: A study that looks complete settles within `settle.quiet_s`; what is not asked for in this time gives its room back.
_KEPT_S = 300.0


@dataclass(frozen=True)
class StudyInputs:
    """All that decides what is measured of a study.

    Attributes:
        study_uid: the study's.
        objects: SOP Instance UID, file and SHA-256 of each, by UID.
        method: `Method.digest`.
    """

    study_uid: str
    objects: tuple[tuple[str, str, str], ...]
    method: str

    @classmethod
    def of(cls, study_uid: str, received: Sequence[Instance], method: Method) -> "StudyInputs":
        """Return those of what has been received, by this method."""
        objects = sorted((one.sop_instance_uid, one.path, one.sha256) for one in received)
        return cls(study_uid, tuple(objects), method.digest)


class Ahead:
    """The one study that an analyst has measured ahead."""

    def __init__(self) -> None:
        self._found: tuple[StudyInputs, Measured] | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def measure(self, work: Work, study_uid: str) -> bool:
        """Measure a study as it is now; nothing is written. Returns whether there is anything to take.

        There is not where the rules would not analyse it, where it would be refused, and where it changed meanwhile.
        """
        self.forget()
        action = route.foreseen(work, study_uid)
        if action.analyse is None or action.hold:
            return False
        method = work.served.method(action.analyse)
        asked = StudyInputs.of(study_uid, work.catalog.instances(study_uid), method)
        log.info("study %s: measured while it waits to settle", study_uid)
        found = examine(
            [Path(path) for _, path, _ in asked.objects], method, memory_bytes=work.config.worker.limits.memory_bytes
        )
        if isinstance(found, Analysis) or StudyInputs.of(study_uid, work.catalog.instances(study_uid), method) != asked:
            return False
        with self._lock:
            self._found = asked, found
            self._timer = threading.Timer(_KEPT_S, self.forget)
            self._timer.daemon = True
            self._timer.start()
        return True

    def take(self, asked: StudyInputs) -> Measured | None:
        """Return what was measured of exactly this; it is forgotten in any case."""
        with self._lock:
            kept = self._found
            self._forget()
        return kept[1] if kept is not None and kept[0] == asked else None

    def forget(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._found = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
