"""What the clock starts as a process of its own, so that its memory and its faults are not the node's."""

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: What a process that is told to end needs to end its own; then it is killed.
_PATIENCE_S = 10.0


class BackgroundCommand:
    """A command of `dicomnode registry`, started by the clock, never twice at a time."""

    def __init__(self, path: Path, command: str, name: str) -> None:
        """Say which one.

        Args:
            path: of the configuration.
            command: of `dicomnode registry`.
            name: what the log calls it.
        """
        self._command = [sys.executable, "-m", "dicomnode", "registry", command, "--config", str(path)]
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> bool:
        """Start one, unless the last is still at work."""
        if self._process is not None and self._process.poll() is None:
            log.warning("the previous %s is still running: skipping this one", self._name)
            return False
        # A session of its own, so that `stop` reaches whatever it starts.
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        log.info("%s started as process %d", self._name, self._process.pid)
        return True

    def stop(self) -> None:
        """End it and all that it has started; its folder stays, and nothing of it is served."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
