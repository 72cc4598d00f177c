"""Fuzz the node. Exit status 1: something was found.

python -m tests.fuzz --seed 1 --runs 100000 --minutes 10        in process, all targets (or --target NAME …)
python -m tests.fuzz --node 50000 --seed 1                      associations against a running node
python -m tests.fuzz --replay fuzz-out/header-0123456789ab.case
python -m tests.fuzz --guided header --minutes 5                coverage-guided, by atheris
"""

import argparse
import logging
import sys
import time
import warnings
from pathlib import Path

from tests.fuzz import files, network, node, series, watch
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {one.name: one for one in (*network.TARGETS, *files.TARGETS, *series.TARGETS)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--runs", type=int, default=100_000, help="cases of all targets together")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this, whatever is left")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of the cases that fail")
    parser.add_argument("--node", type=int, default=0, metavar="N", help="N associations against a running node")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="run cases that were found before")
    parser.add_argument("--guided", choices=sorted(TARGETS), help="one target, guided by coverage")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # pydicom's, of values that are odd on purpose
    until = time.monotonic() + 60 * given.minutes
    if given.replay:
        return replay(given.replay)
    if given.guided:
        from tests.fuzz import guided

        return guided.run(TARGETS[given.guided], given.seed, given.out, given.minutes)
    if given.node:
        return node.attack(given.node, given.seed, given.out, until)
    chosen = [TARGETS[name] for name in given.target or TARGETS]
    tallies, left = watch.fuzz(chosen, given.seed, given.out, runs=given.runs, until=until)
    for name, tally in tallies.items():
        print(tally.text(name))
    for finding in (f for tally in tallies.values() for f in tally.failures.values()):
        print(f"{finding.target}: {finding.why}\n    python -m tests.fuzz --replay {finding.path}")
    for text in left:
        print(f"LEFT BEHIND: {text}")
    cases, seconds = sum(t.cases for t in tallies.values()), sum(t.seconds for t in tallies.values())
    print(f"{cases} cases in {seconds:.0f} s, {cases / seconds:.0f} a second, seed {given.seed}")
    return 1 if left or any(tally.failures for tally in tallies.values()) else 0


def replay(paths: list[Path]) -> int:
    """Run found cases again; the traceback of one that still fails is shown by Python itself."""
    failed = 0
    for path in paths:
        name, told, case = watch.stored(path)
        target = TARGETS[name]
        with watch.alarm(), target.opened() as run:
            why = watch.tried(target, run, case)
            print(f"{path.name}: {why or f'as documented (was: {told})'}")
            failed += bool(why)
            if why and len(paths) == 1:
                run(case)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
