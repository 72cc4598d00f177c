"""A worker that has nothing to do measures what is about to settle (`ahead`), so that its result is not waited for.

    last image ── released, no gap ── settle.release_s ── settled ── analyse: what was measured is there
                         └── ahead: load, segment, quantify, radiomics ──┘

Nothing is written and nobody is told: whether a study is complete, what is done with it and what leaves the node is
decided when it settles, as ever. A late image makes it another study (`ahead.StudyInputs`).
"""

import logging
import threading
import time
from pathlib import Path

from dicomnode import logs
from dicomnode.errors import DatabaseError, DicomnodeError
from dicomnode.reception.settle import SettleRule, decide
from dicomnode.results import encode, sources
from dicomnode.store.records import StudyIntake
from dicomnode.workflows.worker import Work

log = logging.getLogger(__name__)

#: How often a worker without work looks.
_LOOK_S = 0.25
#: While the database is away.
_AWAY_S = 10.0


class Lookout:
    """A worker's thread that looks for studies which are about to settle, until `stop`."""

    def __init__(self, work: Work) -> None:
        assert work.analyst is not None, "this worker has nobody who measures"
        self._catalog, self._analyst, settle = work.catalog, work.analyst, work.config.settle
        self._rule = SettleRule(release_s=settle.release_s, quiet_s=settle.quiet_s)
        self._last: tuple[str, float] | None = None
        self._is_warm = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what is being measured is left to itself."""
        self._stop.set()

    def _run(self) -> None:
        pause_s = _LOOK_S
        while not self._stop.wait(pause_s):
            pause_s = _LOOK_S
            try:
                self.look(time.time())
            except DatabaseError:
                pause_s = _AWAY_S  # the clock, the heartbeat and the steps say so
            except DicomnodeError as error:
                log.warning("nothing is measured ahead: %s", error)
            except Exception as error:  # noqa: BLE001  (a study is analysed as well without)
                logs.log_unexpected(log, error, "nothing is measured ahead")

    def look(self, now: float) -> str | None:
        """Have the next study measured that looks complete. Returns its UID; None where there is none, or no room.

        What is queued goes first. Where several workers live nobody knows which of them the study will come to.
        """
        if not self._analyst.is_idle:
            return None
        study = next((one for one in self._catalog.unsettled(now) if self._is_due(one, now)), None)
        if study is None or self._catalog.jobs("queued", 1) or self._catalog.jobs("running", 1):
            return None
        if len(self._catalog.workers("alive")) > 1:
            return None
        self._last = study.study_uid, study.last_seen
        # The reports are made in this process, which has nothing to do either.
        threading.Thread(target=self._prepare, args=(study.study_uid,), name="prepare", daemon=True).start()
        self._analyst.look_ahead(study.study_uid)
        return study.study_uid

    def _prepare(self, study_uid: str) -> None:
        """Make ready for its reports."""
        try:
            if not self._is_warm:  # an idle worker holds none of this
                self._is_warm = True
                encode.warm()
            sources.read_ahead([Path(i.path) for i in self._catalog.instances(study_uid) if i.modality == "CT"])
        except DicomnodeError:
            pass  # the database's: the clock, the heartbeat and the steps say so
        except Exception as error:  # noqa: BLE001  (reports are made as well without)
            logs.log_unexpected(log, error, "nothing is read ahead")

    def _is_due(self, study: StudyIntake, now: float) -> bool:
        if (study.study_uid, study.last_seen) == self._last or not decide(study, now, self._rule).waits_for_more:
            return False
        return self._catalog.bulk(study.study_uid) is None and self._catalog.patient_ids(study.study_uid) == 1
