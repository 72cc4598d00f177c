"""`python -m tests.benchmarks.run [WORD …]`: time, CPU and memory beside the stock way, in docs/evidence/benchmarks.md.

Each row is two processes one after the other on the same machine. A module of CASES has NAME, STOCK (the stock way in
words), WORK ({"stock": …, "ours": …}: each takes a case of `inputs.CASES`, prepares, and returns the work to measure)
REPEATS (of both ways in turn; the fastest of each counts) and agreement(stock, ours) (in words, how far the results
agree). Words choose the modules whose name contains one. The whole way through a running node (`turnaround`, needs
Orthanc and DCMTK) stands in a table of its own.
"""

import datetime
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

from tests.benchmarks import turnaround
from tests.benchmarks.inputs import CASES as INPUTS
from tests.benchmarks.measured import ROOT, Cost, run
from tests.helpers.prerequisites import check_or_exit

#: Add a module here.
CASES = (
    "tests.benchmarks.radiomics_cases",
    "tests.benchmarks.lungmask_cases",
    "tests.benchmarks.loading_cases",
    "tests.benchmarks.segmentation_cases",
    "tests.benchmarks.chain_cases",
)
HEAD = """# Benchmarks

Made by `make bench`. For each row both ways run in turn on the same input, in fresh processes; where that is repeated,
the fastest of each counts.
Memory is what the work added to the process's peak, after imports and input. Ratios are stock / ours.

{machine}

| what | input | stock way | stock: s, CPU s, MB | ours: s, CPU s, MB | faster | CPU | memory | agreement |
|---|---|---|---|---|---|---|---|---|
"""


def main(words: list[str]) -> None:
    """Measure, print, and store the table."""
    check_or_exit([INPUTS[0]])
    rows = []
    for name in CASES:
        if words and not any(word in name for word in words):
            continue
        module = import_module(name)
        for case in INPUTS:
            pairs = [(run(name, "stock", case), run(name, "ours", case)) for _ in range(module.REPEATS)]
            stock, ours = (min(costs, key=lambda c: c.wall_s) for costs in zip(*pairs, strict=True))
            rows.append(_row(module.NAME, case, module.STOCK, stock, ours, module.agreement(stock, ours)))
            print(rows[-1], flush=True)
    if any(word in "turnaround" for word in words):
        print(turnaround.table("", {case: turnaround.measure(case) for case in INPUTS}))
    if not words:
        machine = _machine()
        ways = turnaround.table(machine, {case: turnaround.measure(case) for case in INPUTS})
        page = HEAD.format(machine=machine) + "\n".join(rows) + "\n" + ways
        (ROOT / "docs" / "evidence" / "benchmarks.md").write_text(page)


def _row(name: str, case: str, way: str, stock: Cost, ours: Cost, agreement: str) -> str:
    ratios = (
        stock.wall_s / ours.wall_s,
        stock.cpu_s / ours.cpu_s,
        stock.memory_mb / max(ours.memory_mb, 1),
    )
    cells = [name, case, way, _cost(stock), _cost(ours), *(f"{r:.3g} x" for r in ratios), agreement]
    return f"| {' | '.join(cells)} |"


def _cost(cost: Cost) -> str:
    return f"{cost.wall_s:.3g}, {cost.cpu_s:.3g}, {cost.memory_mb:.0f}"


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[2]
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {model}, {cores} cores, Python {platform.python_version()}. Load average of the last 15 minutes: "
        f"{load:.1f}; above {cores}, others were working on the machine and seconds are longer than they need be."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
