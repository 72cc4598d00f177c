"""An analysis that breaks a limit is ended and told, and nothing else is hurt."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicomnode import limits
from dicomnode.config.node import WorkerTable
from dicomnode.errors import UsageError
from dicomnode.limits import Limits, Watch

#: What runs is a fresh process: to fork the tests' own one, with its threads, is not safe.
PROGRAM = """
import sys, time
from dicomnode.errors import UsageError
from dicomnode.limits import Limits
from dicomnode.operations import limited

def work():
    {work}
    return 3

def over(why):
    print(why)
    return 7

sys.exit(limited.run(work, Limits({memory}, {seconds}), over))
"""


def run(work: str, memory: int = 1 << 30, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(work=work, memory=memory, seconds=seconds)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)


def test_the_status_of_the_work_is_given() -> None:
    done = run("print('done')")
    assert (done.returncode, done.stdout) == (3, "done\n")


def test_memory_is_bounded() -> None:
    done = run("held = bytearray(400 << 20); time.sleep(20)", memory=200 << 20)
    assert done.returncode == 7
    assert "more than 0.2 GB of memory (worker.memory_gb)" in done.stdout


def test_time_is_bounded_also_within_one_call() -> None:
    started = time.monotonic()
    done = run("sum(range(10**11))", seconds=0.5)
    assert done.returncode == 7
    assert "longer than 0 s (worker.analysis_s)" in done.stdout or "longer than" in done.stdout
    assert time.monotonic() - started < 20


def test_an_absurd_claim_fails_at_once_and_its_error_is_raised_here() -> None:
    done = run("bytearray(240 << 30)")
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_our_errors_are_raised_in_the_parent() -> None:
    done = run("raise UsageError('a word')")
    assert "UsageError: a word" in done.stderr


def test_a_child_that_dies_is_told() -> None:
    done = run("import os; os.kill(os.getpid(), 11)")
    assert done.returncode == 7
    assert "ended by signal 11" in done.stdout


def test_the_childs_end_follows_the_parents() -> None:
    program = PROGRAM.format(
        work="import os; print(os.getpid(), flush=True); time.sleep(60)", memory=1 << 30, seconds=60
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    deadline = time.monotonic() + 10
    while limits.resident_bytes(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.stdout.close()
    assert limits.resident_bytes(child) == 0


def test_the_default_is_a_share_of_the_machine() -> None:
    one, four = WorkerTable().limits, WorkerTable(processes=2, concurrency=2).limits
    assert one.memory_bytes == int(limits.machine_memory_bytes() * limits.SHARE)
    assert four.memory_bytes == pytest.approx(one.memory_bytes / 4, abs=4)
    assert WorkerTable(memory_gb=2.5).limits == Limits(2_500_000_000, 3600)


def test_what_this_process_holds_is_known() -> None:
    assert limits.resident_bytes(os.getpid()) > 1 << 20
    assert Watch(os.getpid(), Limits(1 << 10, 60)).breach() is not None
    assert Watch(os.getpid(), Limits(1 << 50, 60)).breach() is None
    assert Path("/proc/vmstat").exists()
    assert limits.oom_kills() >= 0
    assert issubclass(UsageError, Exception)
