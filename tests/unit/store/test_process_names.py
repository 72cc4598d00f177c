import os
import subprocess
import sys
from pathlib import Path

from dicomnode.store import process_names


def test_this_process_is_alive_and_named_without_a_path_separator() -> None:
    assert process_names.is_alive(process_names.current())
    assert "/" not in process_names.current()


def test_a_process_that_ended_is_not_alive() -> None:
    code = "from dicomnode.store import process_names; print(process_names.current())"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert name != process_names.current()
    assert not process_names.is_alive(name)


def test_one_that_was_killed_and_that_nobody_has_waited_for_is_not_alive() -> None:
    """As it is with a node's receiver once the node is killed, until the machine's first process looks after it."""
    code = "from dicomnode.store import process_names; print(process_names.current(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        name = one.stdout.readline().strip()
        assert process_names.is_alive(name)
        one.kill()
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{one.pid}/stat").exists()
        assert not process_names.is_alive(name)


def test_same_pid_with_another_start_is_another_process() -> None:
    host, pid, start = process_names.current().split(",")
    assert not process_names.is_alive(f"{host},{pid},{int(start) + 1}")


def test_other_machines_count_as_alive() -> None:
    assert process_names.is_alive("elsewhere,1,1")


def test_a_name_that_nobody_gave_is_not_alive() -> None:
    assert not process_names.is_alive("nonsense")
