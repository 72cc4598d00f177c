"""Which processes of this machine run, and how ours begin."""

import gc
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

#: States (proc(5)) of a process that has ended, and whose parent has not looked at it yet.
_ENDED = frozenset("ZXx")
_PYTHON: Final = sys.version_info[:2]
#: What the workflow engine asks of SQLite: to return what it inserts; from a Python on, to count milliseconds
#: (`unixepoch('subsec')`).
_RETURNING, _MILLISECONDS, _COUNTED_FROM = (3, 35), (3, 42), (3, 12)
SQLITE_NEEDED: Final = _MILLISECONDS if _PYTHON >= _COUNTED_FROM else _RETURNING


def prefer_new_sqlite() -> None:
    """Let `import sqlite3` mean `pysqlite3` in this process, where Python's is too old and the other is there.

    Python takes its SQLite from the system, and RHEL 9 has one of 2020; `pysqlite3` brings its own. To be called before
    anything else imports it: two SQLites in one process would undo each other's locks.
    """
    if sqlite3.sqlite_version_info >= SQLITE_NEEDED:
        return
    try:
        import pysqlite3  # noqa: PLC0415  (where it is needed alone)
        from pysqlite3 import dbapi2  # noqa: PLC0415
    except ImportError:
        return
    sys.modules.update({"sqlite3": pysqlite3, "sqlite3.dbapi2": dbapi2})


def sqlite_trouble() -> str | None:
    """Say why this process cannot work with SQLite; None where it can."""
    used: ModuleType = sys.modules["sqlite3"]
    if used.sqlite_version_info >= SQLITE_NEEDED:
        return None
    python, needed = (".".join(map(str, version)) for version in (_PYTHON, SQLITE_NEEDED))
    return (
        f"SQLite {used.sqlite_version} is too old: with Python {python} at least {needed} is needed. Install "
        "pysqlite3-binary beside dicomnode, or use PostgreSQL (storage.database_url)"
    )


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
