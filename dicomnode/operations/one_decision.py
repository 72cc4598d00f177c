"""Decisions about what a study holds, one at a time: each moves files by what it has read of the catalogue before."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec

from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations.jobs import refuse_never_run

P = ParamSpec("P")
_LOCK: Final = "decisions.lock"
#: So long a decision waits for another one: a page of the console, or a script, must not wait for a stopped command.
_LONGEST_S, _LOOK_S = 120.0, 0.1


def alone(decide: Callable[Concatenate[Config, P], str]) -> Callable[Concatenate[Config, P], str]:
    """Let a decision wait until no other command decides on this node.

    Raises:
        UsageError: the node has never run, or another decision takes too long.
        SpoolError: `storage.state` cannot be written.
    """

    @wraps(decide)
    def run(config: Config, /, *args: P.args, **kwargs: P.kwargs) -> str:
        refuse_never_run(config)  # the folder of the lock would look as if it had
        path = config.storage.state / _LOCK
        try:
            files.make_folder(path.parent)
            lock = open(path, "ab", opener=files.private_opener)  # noqa: SIM115  (closed below, with what is decided)
        except OSError as error:
            raise SpoolError(f"{path}: cannot be opened: {error.strerror}; check its permissions") from error
        with lock:
            until = time.monotonic() + _LONGEST_S
            while not files.lock(lock):  # given back when it is closed, also by a crash
                if time.monotonic() >= until:
                    raise UsageError("another decision is under way on this node: try again when it has ended")
                time.sleep(_LOOK_S)
            return decide(config, *args, **kwargs)

    return run
