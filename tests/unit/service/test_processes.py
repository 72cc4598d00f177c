"""What every process of the node does first."""

import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import SpoolError
from dicomnode.service.processes import prepare_folders


def test_a_folder_that_cannot_be_made_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = config.parse({"storage": {"state": "file/state"}}, tmp_path / "ae_config.toml")
    with pytest.raises(
        SpoolError, match=r"storage\.state = .*/file/state: cannot create this folder \(Not a directory\)"
    ):
        prepare_folders(settings)


@pytest.mark.timeout(60)
def test_a_signal_that_does_not_wake_the_main_thread_stops_it_all_the_same() -> None:
    """Sent to another thread, it is as one that comes just before the main thread blocks: nobody is woken."""
    program = """
import signal, sys, threading, time
from dicomnode.service.signals import stopper

def send():
    while sys._current_frames()[threading.main_thread().ident].f_code.co_qualname != "_Stop.wait":
        time.sleep(0.01)
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()

stop = stopper(supervised=False)
threading.Thread(target=send, daemon=True).start()
stop.wait()
print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


@pytest.mark.timeout(60)
def test_a_signal_between_any_two_lines_of_the_wait_stops_it() -> None:
    """The handler runs in the thread that waits, and must not need a lock that this thread holds."""
    program = """
import signal, sys
from dicomnode.service.signals import stopper

at = lines = 0

def trace(frame, event, _argument):
    global lines
    if event == "line":
        lines += 1
        if lines == at:
            signal.raise_signal(signal.SIGTERM)
    return trace

while lines >= at:
    stop, lines, at = stopper(supervised=False), 0, at + 1
    sys.settrace(trace)
    stop.wait(0.2)
    sys.settrace(None)
    assert stop.wait(0) == stop.is_set() == (lines >= at), f"a signal at line {at} was lost"
print("lines", at > 10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "lines True\n"), done.stderr


def test_a_reload_is_asked_for_once_however_many_signals_come() -> None:
    program = """
import signal
from dicomnode.service.signals import reloader, stopper

reload = reloader()
assert not reload.taken()
for _ in range(3):
    signal.raise_signal(signal.SIGHUP)
assert reload.is_made() and reload.taken() and not reload.taken()
"""
    subprocess.run([sys.executable, "-c", program], timeout=50, check=True)


def test_a_receiver_that_is_let_go_is_in_no_hurry_until_it_is_told_to_stop() -> None:
    program = """
import signal
from dicomnode.service.signals import SignalRequest, stopper

hurry = SignalRequest()
stop = stopper(supervised=False, hurry=hurry)
signal.raise_signal(signal.SIGHUP)
assert stop.wait(0) and not hurry.is_made()
signal.raise_signal(signal.SIGTERM)
assert hurry.is_made()
"""
    subprocess.run([sys.executable, "-c", program], timeout=50, check=True)
