"""What signals ask of a process of the node. Its handlers take no lock: the thread they run in may hold it.

Nothing heavy is imported here: `serve` listens to signals before it reads anything else.
"""

import logging
import os
import queue
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

_AWAKE_S = 0.5


class SignalRequest:
    """What a signal asks for and the main thread looks for. As with `_Stop`, handler takes no lock: it puts a mark."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self) -> None:
        """Make the request, from a signal handler or anywhere else."""
        self._asked.put(None)

    def is_made(self) -> bool:
        """Whether it was made and not taken."""
        return not self._asked.empty()

    def taken(self) -> bool:
        """Whether it was made since the last call; several requests are one."""
        asked = False
        while self.is_made():
            self._asked.get()
            asked = True
        return asked


def reloader() -> SignalRequest:
    """Return the request to read the configuration anew, which SIGHUP makes."""
    reload = SignalRequest()
    signal.signal(signal.SIGHUP, lambda _signal, _frame: reload.ask())
    return reload


class _Stop(threading.Event):
    """An event that a signal handler sets and the main thread waits for.

    Python runs handlers in the main thread, between any two steps of its own. Setting the event there takes a lock that
    the main thread may hold at this moment, in `wait`: it then waits for itself for ever. So a handler only puts a mark
    into a queue that may be used in handlers (`queue.SimpleQueue`), and the event is set where it is read. And a signal
    that comes just before the main thread blocks, or to another thread, wakes nobody: `wait` looks up now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self) -> None:
        """Set the event, from a signal handler or anywhere else."""
        self._asked.put(None)

    def is_set(self) -> bool:
        """As `threading.Event`."""
        return super().is_set() or not self._asked.empty()

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event`, for one thread that waits."""
        end = None if timeout is None else time.monotonic() + timeout
        while not super().is_set():
            left = _AWAKE_S if end is None else min(_AWAKE_S, max(0.0, end - time.monotonic()))
            try:
                self._asked.get(timeout=left)
            except queue.Empty:
                if end is not None and time.monotonic() >= end:
                    return super().is_set()
            else:
                self.set()
        return True


def stopper(*, supervised: bool, hurry: SignalRequest | None = None) -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, and the end of standard input for a supervised child.

    Where `hurry` is given, these make that request too, and SIGHUP sets the event without it: end, in your own time.
    """
    stop = _Stop()

    def end() -> None:
        if hurry is not None:
            hurry.ask()
        stop.ask()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        end()

    if hurry is not None:
        signal.signal(signal.SIGHUP, lambda _signal, _frame: stop.ask())

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if supervised:

        def wait_for_end() -> None:
            # Not sys.stdin: its lock, held by this thread, would stop the interpreter from ending.
            while os.read(0, 4096):
                pass
            end()

        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
    return stop


def leave() -> NoReturn:
    """End this process, which has closed all that it had, with status 0.

    The interpreter would first tidy up what was imported: a second or two on a busy machine, with the port closed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
