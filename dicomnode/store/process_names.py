"""A name for the running process that no later process can have, on any machine that shares the spool."""

import os
import re
import socket
from pathlib import Path

from dicomnode import processes

#: Where `dicomnode serve` notes its process, in `storage.state`.
SERVE = "serve.process"
_NAME = re.compile(r"(?P<host>.*),(?P<pid>\d+),(?P<start>\d+)")


def current() -> str:
    """`host,pid,start`: the pid alone is not enough, a restarted container gives the same pid again."""
    pid = os.getpid()
    return f"{socket.gethostname()},{pid},{processes.started(pid)}"


def is_alive(name: str) -> bool:
    """Whether the process called `name` still runs. One of another machine counts as alive: nobody here can tell."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    return match["host"] != socket.gethostname() or processes.started(int(match["pid"])) == match["start"]


def is_serving(state: Path) -> bool:
    """Whether `dicomnode serve` of this `storage.state` runs on this machine."""
    try:
        return is_alive((state / SERVE).read_text("utf-8").strip())
    except OSError:
        return False
