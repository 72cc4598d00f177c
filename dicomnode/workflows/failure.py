"""A study that cannot be worked on fails where people look, and takes no worker with it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dbos import DBOS

from dicomnode import logs
from dicomnode.errors import DicomnodeError
from dicomnode.workflows.worker import RETRIES, current

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """A study's workflow has nothing more to do. `state`: the job's."""

    state: str


def or_failed(study_uid: str, generation: int, what: str, steps: Callable[[], T]) -> T | Ended:
    """Run a part of a study's workflow; whatever goes wrong in it, the job fails with the reason.

    Args:
        study_uid: the study's.
        generation: of the study, from 1.
        what: what has failed, for the log: "study … generation … <what>".
        steps: calls the steps.

    Returns:
        What `steps` returned; or how the job ended, where they failed.
    """
    try:
        return steps()
    except DicomnodeError as e:
        return Ended(fail_step(study_uid, generation, str(e)))
    except Exception as e:  # noqa: BLE001  (whatever it is: this study fails visibly, the worker goes on)
        state = fail_step(study_uid, generation, f"{type(e).__name__}: see the worker's log")
        if state == "superseded":  # a correction takes files away from under it
            log.info("study %s generation %d is superseded: given up (%s)", study_uid, generation, type(e).__name__)
        else:
            logs.log_unexpected(log, e, f"study %s generation %d {what}", study_uid, generation)
        return Ended(state)


@DBOS.step(name="fail", **RETRIES)
def fail_step(study_uid: str, generation: int, reason: str) -> str:
    """Make a failure visible in `dicomnode jobs`. Returns the job's state."""
    return current().catalog.set_state(study_uid, generation, "failed", reason, now=time.time())
