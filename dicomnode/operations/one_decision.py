"""Decisions about what a study holds, one at a time: each moves files by what it has read of the catalogue before."""

import fcntl
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from dicomnode.config import Config
from dicomnode.errors import SpoolError
from dicomnode.files import make_folder, private_opener

P = ParamSpec("P")
_LOCK = "decisions.lock"


def alone(decide: Callable[Concatenate[Config, P], str]) -> Callable[Concatenate[Config, P], str]:
    """Let a decision wait until no other command decides on this node.

    Raises:
        SpoolError: `storage.state` cannot be written.
    """

    @wraps(decide)
    def run(config: Config, /, *args: P.args, **kwargs: P.kwargs) -> str:
        path = config.storage.state / _LOCK
        try:
            make_folder(path.parent)
            lock = open(path, "ab", opener=private_opener)  # noqa: SIM115  (closed below, with what is decided inside)
        except OSError as error:
            raise SpoolError(f"{path}: cannot be opened: {error.strerror}; check its permissions") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when it is closed, also by a crash
            return decide(config, *args, **kwargs)

    return run
