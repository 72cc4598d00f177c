"""A command's work in a child process under limits: this one only watches, and says what became of it.

It is forked before anything is imported that starts threads, and costs a thousandth of a second.
"""

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from dicomnode import errors
from dicomnode.errors import DicomnodeError
from dicomnode.limits import LOOK_S, Limits, Watch, confine

_PR_SET_PDEATHSIG = 1
_MOST_BYTES = 1 << 20


def run(work: Callable[[], int], limits: Limits, over: Callable[[str], int]) -> int:
    """Do `work` in a child, and return its exit status.

    Args:
        work: what is done; its errors of ours, and OSErrors, are raised here.
        limits: of the child.
        over: called here with the reason where the child broke a limit, or was ended; gives the exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _child(work, limits, theirs, parent)
    os.close(theirs)
    try:
        broken = _watched(child, limits)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        with os.fdopen(ours, "rb") as said:
            text = said.read(_MOST_BYTES)
    if text:
        _raise(json.loads(text))
    if broken is not None:
        return over(broken)
    if status < 0 and -status in (signal.SIGINT, signal.SIGTERM):
        raise KeyboardInterrupt
    if status < 0:
        return over(f"its analysis was ended by signal {-status}")
    return status


def _watched(child: int, limits: Limits) -> str | None:
    """Wait for the child's end; which limit it broke, if it did."""
    watch = Watch(child, limits)
    handle = os.pidfd_open(child)
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        while not _polled(ended):
            broken = watch.breach()
            if broken is not None:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return broken
        return None
    finally:
        os.close(handle)


def _polled(ended: select.poll) -> bool:
    try:
        return bool(ended.poll(LOOK_S * 1000))
    except KeyboardInterrupt:
        return False  # the terminal has told the child too: it ends by itself


def _child(work: Callable[[], int], limits: Limits, pipe: int, parent: int) -> NoReturn:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            confine(limits)
            status = work()
    except MemoryError:
        _say(pipe, ["MemoryError", []])
    except DicomnodeError as error:
        _say(pipe, [type(error).__name__, list(error.__reduce__()[1])])
    except OSError as error:
        _say(pipe, ["OSError", [error.errno, error.strerror, error.filename and str(error.filename)]])
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001  (as the interpreter does with what nobody catches)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _say(pipe: int, error: list[object]) -> None:
    os.write(pipe, json.dumps(error, default=str).encode()[:4096])


def _raise(said: list[object]) -> NoReturn:
    name, arguments = said
    assert isinstance(arguments, list)
    if name == "OSError":
        raise OSError(*arguments)
    if name == "MemoryError":
        raise MemoryError
    raise getattr(errors, str(name), DicomnodeError)(*arguments)
