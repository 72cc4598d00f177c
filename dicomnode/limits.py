"""How much memory and time one analysis may take, and how a process is held to it.

The limits hold for a process of its own, which another one watches: what a decoder does within one call of C cannot be
stopped from within. Memory is what the process has in use (resident, from /proc), looked at ten times a second; beside
that, the kernel refuses it address space far beyond the limit (RLIMIT_DATA), so that a claim of 240 GB fails at once.
"""

import contextlib
import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GB: Final = 1e9
#: Of the machine's memory, what its analyses may use together.
SHARE: Final = 0.75
#: What libraries reserve and do not use.
_RESERVED_BYTES: Final = 8 << 30
LOOK_S: Final = 0.1
#: Whom the kernel ends first when memory runs out (proc(5)): the analysis, not the worker or the receiver.
_OOM_SCORE_ADJ: Final = 500
_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Limits:
    """Of one analysis. `seconds`: wall-clock time."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Watch:
    """One analysis in the process `pid`, from now on."""

    pid: int
    limits: Limits
    _since: float = field(default_factory=time.monotonic)

    def breach(self) -> str | None:
        """Say which limit is broken, in words for a report; None while none is."""
        used = resident_bytes(self.pid)
        if used > self.limits.memory_bytes:
            return f"its analysis needs more than {self.limits.memory_bytes / GB:.1f} GB of memory (worker.memory_gb)"
        if time.monotonic() - self._since > self.limits.seconds:
            return f"its analysis takes longer than {self.limits.seconds:.0f} s (worker.analysis_s)"
        return None


def machine_memory_bytes() -> int:
    """Return the memory that this process' machine, or its cgroup (version 2), has."""
    found = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    with contextlib.suppress(OSError, ValueError, IndexError):
        group = Path("/proc/self/cgroup").read_text("ascii").strip().rpartition("::")[2]
        folder = Path("/sys/fs/cgroup") / group.lstrip("/")
        for one in (folder, *folder.parents):
            if one == Path("/sys/fs"):
                break
            with contextlib.suppress(OSError, ValueError):
                found.append(int((one / "memory.max").read_text("ascii")))
    return min(found)


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def confine(limits: Limits, *, reserves: bool = False) -> None:
    """Hold this process to its limits, as far as the kernel does that; another process watches the rest.

    Args:
        limits: of the analysis.
        reserves: whether a library reserves address space without bound, as CUDA does: then none is refused.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ), "ascii")
    if reserves:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limits.memory_bytes + _RESERVED_BYTES
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def one_heap() -> dict[str, str]:
    """Return the environment of a child process whose threads all allocate from one heap.

    glibc gives each thread one of its own, and what is freed in one is of no use to the others: a study of 300 slices
    then takes 180 MB more at its peak, and 150 MB of them stay (mallopt(3)). Other C libraries do not look at it.
    """
    return {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(8 << 20)}


def oom_kills() -> int:
    """Count what the kernel has ended for want of memory since the machine was started; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/vmstat").read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def boot_id() -> str:
    """Tell one start of the machine from another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""
