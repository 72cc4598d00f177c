"""A process that `serve` starts, watches and ends."""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode import logs
from dicomnode.retry import backoff_s

log = logging.getLogger(__name__)

#: A child that ends with one of these will not do better by being started again at once: configuration, bundle,
#: weights.
_NEEDS_A_PERSON = (2, 4)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: So long, and no longer, a receiver that was replaced may go on with the associations that it has.
_LEAVING_S = 3600.0
#: So long its last lines are waited for.
_LAST_LINES_S = 1.0
#: How often one that starts is looked at.
_LOOK_S = 0.2


@dataclass
class Child:
    """A supervised process."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = field(default=0.0)
    start_again_at: float = field(default=0.0)
    needs_a_person: bool = False
    last_words: str = ""
    #: Whether it says when it is ready, and where that is read.
    tells: bool = False
    told: int | None = None
    #: Ports that are open already, handed to the first process of this name.
    opened: list[socket.socket] = field(default_factory=list)
    leaving_since: float = field(default=0.0)
    _reader: threading.Thread | None = None

    def start(self, *, unheard: bool = False) -> None:
        """Start the process; its standard input is the line by which it notices that we are gone.

        `unheard`: what it says waits until `listen`.
        """
        command = [sys.executable, "-m", "dicomnode", *self.arguments, "--supervised"]
        mine, its = os.pipe() if self.tells else (None, None)
        more = [] if its is None else ["--ready", str(its)]
        kept = () if its is None else (its,)
        if self.opened:
            ports = tuple(one.fileno() for one in self.opened)
            more, kept = [*more, "--opened", ",".join(map(str, ports))], (*kept, *ports)
        self.process = subprocess.Popen([*command, *more], stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=kept)
        if its is not None:
            os.close(its)
        while self.opened:
            self.opened.pop().close()
        self._forget()
        self.told = mine
        self.started_at = time.monotonic()
        if not unheard:
            self.listen()

    def listen(self) -> None:
        """Pass on what the process says."""
        assert self.process is not None and self.process.stderr is not None
        log.info("%s started as process %d", self.name, self.process.pid)
        self._reader = logs.pass_on(self.process.stderr, self.name, self._hear)

    def abandon(self) -> None:
        """End an unheard process at once."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self._forget()

    def tells_before(self, deadline: float, stop: threading.Event) -> bool:
        """Wait for the process to say that it is ready; False: it has ended before, takes longer, or `stop` is set."""
        while self.told is not None and time.monotonic() < deadline and not stop.is_set():
            ready, _, _ = select.select([self.told], [], [], _LOOK_S)
            if ready:
                return os.read(self.told, 1) != b""
        return False

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_steady(self) -> bool:
        """Whether the process has run for a while: after a restart of the node nobody knows yet."""
        return self.is_running() and time.monotonic() - self.started_at > _LONGEST_PAUSE_S

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        if self.process is not None:
            self.process.terminate()

    def leave(self) -> None:
        """Let a receiver close its port, and end when its associations have."""
        self.leaving_since = time.monotonic()
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def has_left(self) -> bool:
        """Whether a receiver that was let go has ended; one that takes too long is told to hurry."""
        if self.is_running():
            if time.monotonic() - self.leaving_since > _LEAVING_S:
                self.terminate()
            return False
        self._close()
        return True

    def _forget(self) -> None:
        if self.told is not None:
            os.close(self.told)
            self.told = None

    def _hear(self, words: str) -> None:
        self.last_words = words

    def watch(self) -> None:
        """Start the process again if it has ended, after a pause that grows while it keeps failing."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_again_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            if self.failures and self.is_steady:
                self.failures, self.last_words = 0, ""
            return
        self.failures += 1
        self.needs_a_person = code in _NEEDS_A_PERSON
        # By its process too: the workers of several machines that have lost one database bear the same names.
        pause = backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, self.failures, f"{self.name} {self.process.pid}")
        if self.needs_a_person:
            pause = _LONGEST_PAUSE_S
        what = f"signal {-code}" if code < 0 else f"exit status {code}"
        log.error("%s ended with %s; restarting in %.0f s", self.name, what, pause)
        self._close()
        self.start_again_at = now + pause

    def stop(self, wait_s: float) -> None:
        """SIGTERM, then SIGKILL after `wait_s` seconds: what is killed is taken up again at the next start."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not finish within %.0f s, killing it", self.name, wait_s)
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
        if self._reader is not None:
            self._reader.join(_LAST_LINES_S)
        self._forget()


def receiver(path: Path, index: int, opened: Iterable[socket.socket] = ()) -> Child:
    """Return the receiver of this number; `path` is the configuration, which it reads for itself.

    `opened`: its ports, where they are open already.
    """
    return Child(f"receiver-{index}", ["receive", "--config", str(path)], tells=True, opened=list(opened))
