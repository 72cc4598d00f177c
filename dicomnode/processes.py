"""Which processes of this machine run, and how ours begin."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: States (proc(5)) of a process that has ended, and whose parent has not looked at it yet.
_ENDED = frozenset("ZXx")


@contextmanager
def imports() -> Iterator[None]:
    """Import without the garbage collector: it finds nothing in modules, and takes an eighth of the time to look."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor does it look at them later
        gc.enable()


def started(pid: int) -> str | None:
    """Return when the kernel started process `pid` (clock ticks since boot, proc(5)); None: it does not run.

    One that has ended may stay in the kernel's list for as long as its parent does not ask: it has let go of its files,
    and does nothing any more. While threads of it still end, it counts as running.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold spaces, so count from the last bracket.
    fields = stat.rpartition(")")[2].split()
    state, threads, start = fields[0], int(fields[17]), fields[19]
    return None if state in _ENDED and threads <= 1 else start
