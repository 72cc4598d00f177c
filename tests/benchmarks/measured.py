"""A piece of work in a process of its own: wall time, CPU time and peak memory, and what it found."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cost:
    """What one run cost. Memory is what the work added to the process's peak after its imports and its input."""

    wall_s: float
    cpu_s: float
    memory_mb: float
    found: Any


def run(module: str, name: str, case: str) -> Cost:
    """Run `module.WORK[name](case)` in a new Python: it prepares, and returns the function that is measured."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.measured", module, name, case, answer.name]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return Cost(**json.loads(Path(answer.name).read_text()))


def measure(work: Callable[[], Any]) -> Cost:
    """Call it once, here."""
    _forget_peak()
    before = _peak_mb()
    wall, cpu = time.perf_counter(), _cpu()
    found = work()
    return Cost(time.perf_counter() - wall, _cpu() - cpu, _peak_mb() - before, found)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forget_peak() -> None:
    """Linux starts to count the peak anew from the present size (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    """VmHWM: unlike ru_maxrss it can be set back."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    from importlib import import_module

    module_, name_, case_, answer_ = sys.argv[1:]
    cost = measure(import_module(module_).WORK[name_](case_))
    Path(answer_).write_text(json.dumps(vars(cost)))
