"""Running cases under watch: what they raise, how long they take; whether memory, threads and files stay as they were.

A case that fails is written to a folder, as a file that `python -m tests.fuzz --replay FILE` takes: a line of JSON that
names target, seed and reason, then the bytes of the case.
"""

import gc
import hashlib
import json
import os
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.target import Run, Target

LONGEST_S = 5.0
#: What may be left at the end beyond the state after the first tenth, when caches are full.
MORE_MB, MORE_THREADS, MORE_DESCRIPTORS = 60.0, 0, 0
#: So many different failures of a target are kept.
_MOST_KEPT = 20


class SlowCaseError(BaseException):
    """A case took longer than `LONGEST_S`; no `except Exception` of the product keeps it."""


@dataclass(frozen=True)
class Finding:
    """A case that failed: where it lies, and why."""

    target: str
    why: str
    path: Path


@dataclass
class Tally:
    """What one target has done."""

    cases: int = 0
    seconds: float = 0.0
    failures: dict[str, Finding] = field(default_factory=dict)

    def text(self, name: str) -> str:
        rate = self.cases / self.seconds if self.seconds else 0.0
        return f"{name:<12} {self.cases:>9} cases  {rate:>7.0f}/s  {len(self.failures)} findings"


def fuzz(
    targets: Sequence[Target], seed: str, out: Path, *, runs: int, until: float
) -> tuple[dict[str, Tally], list[str]]:
    """Run `runs` cases dealt out by the targets' shares, or until the monotonic clock shows `until`.

    Returns:
        what each target did, and what was left behind afterwards.
    """
    whole = sum(target.share for target in targets)
    tallies = {}
    left: list[str] = []
    with temporary_folder(out) as folder:
        for target in targets:
            part = target.share / whole
            now = time.monotonic()
            ends = now + (until - now) * part / sum(t.share / whole for t in targets[targets.index(target) :])
            with target.opened() as run:
                tally, trouble = _run(target, run, seed, out, max(round(runs * part), 1), ends)
            tallies[target.name] = tally
            left += trouble
        gc.collect()
        left += [f"{path.name} was left in the temporary folder" for path in folder.iterdir()]
    return tallies, left


def _run(target: Target, run: Run, seed: str, out: Path, runs: int, ends: float) -> tuple[Tally, list[str]]:
    tally, before, started = Tally(), None, time.monotonic()
    with alarm():
        for number in range(runs):
            case_seed = f"{seed}:{target.name}:{number}"
            case = target.make(Random(case_seed))
            why = tried(target, run, case)
            tally.cases += 1
            if why and why not in tally.failures and len(tally.failures) < _MOST_KEPT:
                tally.failures[why] = keep(out, target, case_seed, why, case)
            if before is None and number >= max(runs // 10, min(runs - 1, 200)):
                gc.collect()
                before = State.now()
            if time.monotonic() > ends:
                break
    tally.seconds = time.monotonic() - started
    gc.collect()
    return tally, [] if before is None else [f"{target.name}: {text}" for text in State.now().beyond(before)]


def tried(target: Target, run: Run, case: bytes) -> str:
    """Return why a case fails, in words that are the same for the same place; "" if it does not."""
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        run(case)
    except target.expected:
        pass
    except SlowCaseError as error:
        return f"longer than {LONGEST_S:g} s, at {_place(error)}"
    except Exception as error:  # noqa: BLE001  (that is what is looked for)
        return f"{type(error).__name__} at {_place(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - started > LONGEST_S:
        return f"longer than {LONGEST_S:g} s"
    return ""


def _place(error: BaseException) -> str:
    """Where in the product, and where in the end."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/dicomnode/" in f.filename or "/training/" in f.filename] or frames
    shown = list(dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in (ours[-1], frames[-1])))
    return " < ".join(shown)


@contextmanager
def alarm() -> Iterator[None]:
    """Interrupt what takes too long."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise SlowCaseError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def memory_folder() -> Path | None:
    """A folder in memory, where this machine has one: the disk's speed is not what is looked at."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() else None


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """All temporary files go to a folder of their own, so that what is left behind can be seen."""
    before = tempfile.tempdir
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-tmp-", dir=memory_folder() or out) as name:
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before


def keep(out: Path, target: Target, seed: str, why: str, case: bytes) -> Finding:
    """Write a failing case to be replayed."""
    path = out / f"{target.name}-{hashlib.sha256(case).hexdigest()[:12]}.case"
    head = json.dumps({"target": target.name, "seed": seed, "why": why})
    path.write_bytes(head.encode() + b"\n" + case)
    return Finding(target.name, why, path)


def stored(path: Path) -> tuple[str, str, bytes]:
    """Return target, reason and bytes of a case that was kept."""
    head, _, case = path.read_bytes().partition(b"\n")
    told = json.loads(head)
    return told["target"], told["why"], case


@dataclass(frozen=True)
class State:
    """What a process holds."""

    resident_mb: float
    threads: int
    descriptors: Counter[str]

    @classmethod
    def now(cls) -> "State":
        """Of this process."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threading.active_count(), _open_files())

    def beyond(self, before: "State") -> list[str]:
        """What has grown since `before`, in words."""
        grown = []
        if self.resident_mb > before.resident_mb + MORE_MB:
            grown.append(f"memory grew from {before.resident_mb:.0f} to {self.resident_mb:.0f} MB")
        if self.threads > before.threads + MORE_THREADS:
            grown.append(f"threads grew from {before.threads} to {self.threads}")
        if self.descriptors.total() > before.descriptors.total() + MORE_DESCRIPTORS:
            more = ", ".join(sorted((self.descriptors - before.descriptors).elements()))
            grown.append(f"descriptors grew from {before.descriptors.total()} to {self.descriptors.total()}: {more}")
        return grown


def _open_files() -> Counter[str]:
    """What this process has open, by name."""
    found: Counter[str] = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder that is being read
            found[str(path.readlink())] += 1
    return found
