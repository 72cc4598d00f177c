"""A node under a steady load, with the console open: does anything grow, and how long do studies take?

    python -m tests.benchmarks.soak [--minutes 60] [--per-hour 120] [--out docs/evidence/soak.md]

A node with two workers gets the chest of the demo's phantom (every fourth slice of it) again and again, each time as
another patient's study, at random times (exponential intervals, so that some come at once); DCMTK's storescp is the
PACS. A user has the console open: its first page every five seconds, the list of studies twice a minute; Prometheus'
page every fifteen. Resident memory and descriptors of the node's processes are noted every ten seconds.
"""

import argparse
import calendar
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import httpx
import psutil
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicomnode import __version__
from dicomnode.demo import study as demo_study
from dicomnode.operations import console_users
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import MissingError, program
from tests.helpers.running import Node
from tests.helpers.scanners import associated
from tests.helpers.waiting import until
from tests.helpers.web import http_client

_LOOK_S = 10.0
#: So small a study lets a machine of two cores pass 60 an hour while others work on it too.
_EVERY = 4
_PASSWORD = "a password for an hour"
#: Growth from the second third of the run to the last that counts as none: what an allocator keeps by chance.
FLAT_MB, FLAT_DESCRIPTORS = 25.0, 8
#: Working sets are reached by then: models are loaded, pages have been shown.
_SETTLED = 1 / 3
_STAGES = (
    ("last image to settled", "last_seen", "settled_at"),
    ("settled to analysis", "settled_at", "started_at"),
    ("analysis", "started_at", "analysed_at"),
    ("analysed to delivered", "analysed_at", "delivered_at"),
    ("turnaround: last image to delivered", "last_seen", "delivered_at"),
)


@dataclass
class Looks:
    """What was seen of one process: seconds since the start, MB resident, open descriptors."""

    at_s: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


def role(process: psutil.Process) -> str:
    """Return what a process of the node does: the command that it runs."""
    words = process.cmdline()
    for name in ("receive", "work", "monitor", "serve"):
        if name in words:
            return "console" if name == "serve" and "console" in words else name
    return "analysis" if any("multiprocessing" in word for word in words) else "other"


def look(node: Node, seen: dict[tuple[str, int], Looks], at_s: float) -> None:
    """Note every process of the node that lives."""
    assert node.process is not None
    own = psutil.Process(node.process.pid)
    for process in [own, *own.children(recursive=True)]:
        try:
            mb, descriptors, name = process.memory_info().rss / 1e6, process.num_fds(), role(process)
        except psutil.Error:
            continue  # it has just ended
        one = seen.setdefault((name, process.pid), Looks())
        one.at_s.append(at_s)
        one.mb.append(mb)
        one.descriptors.append(descriptors)


def send(node: Node, images: Sequence[Dataset], number: int) -> None:
    """Send the phantom as another patient's study."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    with associated(node, calling="SOAK", called="DICOMNODE") as association:
        for image in images:
            image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            image.PatientID, image.AccessionNumber = f"SOAK-{number}", f"SOAK{number:06d}"
            image.RequestAttributesSequence[0].StudyInstanceUID = study
            image.RequestAttributesSequence[0].AccessionNumber = image.AccessionNumber
            status = association.send_c_store(image).get("Status")
            if status != 0:
                raise SystemExit(f"image {image.InstanceNumber} of study {number}: status {status}")


class Reader(threading.Thread):
    """A user with the console open, and Prometheus; `slow_ms`: how long the pages took."""

    def __init__(self, console: int, monitoring: int) -> None:
        super().__init__(daemon=True)
        self._console, self._monitoring = console, monitoring
        self.ended = threading.Event()
        self.slow_ms: list[float] = []
        self.trouble = ""

    def run(self) -> None:
        try:
            with http_client(f"http://127.0.0.1:{self._console}", timeout=60) as browser:
                token = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login").text)
                assert token is not None
                browser.post("/login", data={"name": "soak", "password": _PASSWORD, "csrf": token[1]})
                beat = 0
                while not self.ended.wait(5):
                    self._get(browser, "/")
                    if beat % 6 == 0:
                        self._get(browser, "/studies")
                    if beat % 3 == 0:
                        self._get(browser, f"http://127.0.0.1:{self._monitoring}/metrics")
                    beat += 1
        except (httpx.HTTPError, AssertionError, OSError) as error:
            self.trouble = f"{type(error).__name__}: {error}"

    def _get(self, browser: httpx.Client, path: str) -> None:
        begun = time.perf_counter()
        answer = browser.get(path)
        self.slow_ms.append(1000 * (time.perf_counter() - begun))
        assert answer.status_code == 200, f"{path}: {answer.status_code}"


@contextmanager
def pacs(folder: Path) -> Iterator[int]:
    """DCMTK's storescp, which takes everything and keeps nothing; its port."""
    port = free_port()
    command = [program("storescp", "dcmtk"), "--ignore", "--fork", "-aet", "PACS", str(port)]
    with (folder / "pacs.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def soak(folder: Path, minutes: float, per_hour: float, seed: int) -> str:
    """Run it; the page."""
    demo_study.write(folder / "study")
    images = [dcmread(path) for path in sorted((folder / "study" / "2-axial").glob("*.dcm"))[::_EVERY]]
    shape = f"{len(images)} slices of {images[0].Columns} x {images[0].Rows}"
    console, monitoring = free_port(), free_port()
    load_before = os.getloadavg()[2]
    with pacs(folder) as pacs_port:
        more = (
            f"[worker]\nprocesses = 2\n[console]\nenabled = true\nport = {console}\n[monitoring]\nport = {monitoring}\n"
        )
        table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
        node = Node(folder / "node", table, more)
        node.start()
        try:
            console_users.add(node.config, "soak", "reader", _PASSWORD, time.time())
            # What is measured is a node that runs, not one that starts.
            until("two workers that are ready", lambda: node.log().count(" ready: segmenter") == 2, 300)
            for port in (console, monitoring):
                until(f"somebody who answers on {port}", lambda port=port: _answers(port), 120)
            reader = Reader(console, monitoring)
            reader.start()
            seen, sent, seconds = _run(node, images, minutes, per_hour, random.Random(seed))
            reader.ended.set()
            reader.join()
            rows = json.loads(node.cli("jobs", "list", "--json", "--limit", "100000").stdout)
        finally:
            status = node.stop()
    if status or reader.trouble:
        raise SystemExit(f"the node ended with {status}; the console's user: {reader.trouble or 'well'}")
    return page(rows, seen, reader.slow_ms, _Facts(shape, sent, seconds, minutes, per_hour, load_before))


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/login").status_code < 500
    except httpx.TransportError:
        return False


def _run(
    node: Node, images: Sequence[Dataset], minutes: float, per_hour: float, chance: random.Random
) -> tuple[dict[tuple[str, int], Looks], int, float]:
    """Send until the time is over, then wait until all are delivered. What was seen, how many, how long."""
    seen: dict[tuple[str, int], Looks] = {}
    begun, sent = time.monotonic(), 0
    due, next_look = chance.expovariate(per_hour / 3600), 0.0
    while (now := time.monotonic() - begun) < 60 * minutes:
        if now >= due:
            send(node, images, sent)
            sent += 1
            due += chance.expovariate(per_hour / 3600)
        if now >= next_look:
            look(node, seen, now)
            next_look = now + _LOOK_S
        time.sleep(max(0.0, min(due, next_look, 60 * minutes) - (time.monotonic() - begun)))
    deadline = time.monotonic() + 60 * max(20.0, minutes)
    while list(node.jobs().values()).count("delivered") < sent:
        if time.monotonic() > deadline:
            raise SystemExit(f"not all are delivered: {node.jobs()}\n{node.log()[-4000:]}")
        time.sleep(1)
    return seen, sent, time.monotonic() - begun


@dataclass(frozen=True)
class _Facts:
    shape: str
    sent: int
    seconds: float
    minutes: float
    per_hour: float
    load_before: float


def seconds_of(text: str) -> float | None:
    """The seconds of a time as `jobs list --json` gives it; None for none."""
    if not text:
        return None
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%SZ")))


def stages(rows: Sequence[dict[str, str]]) -> dict[str, list[float]]:
    """Seconds in each stage, of the studies that have passed it. Times are whole seconds."""
    found: dict[str, list[float]] = {name: [] for name, _, _ in _STAGES}
    for row in rows:
        for name, first, last in _STAGES:
            begin, end = seconds_of(row[first]), seconds_of(row[last])
            if begin is not None and end is not None:
                found[name].append(max(0.0, end - begin))
    return found


def growth(one: Looks, values: Sequence[float]) -> float | None:
    """The median of the last third less that of the second; None where a process was not there for both."""
    first, last = one.at_s[0], one.at_s[-1]
    settled = first + (last - first) * _SETTLED
    later = first + (last - first) * (1 + _SETTLED) / 2
    middle = [v for at, v in zip(one.at_s, values, strict=True) if settled <= at < later]
    end = [v for at, v in zip(one.at_s, values, strict=True) if at >= later]
    return median(end) - median(middle) if middle and end else None


def page(
    rows: Sequence[dict[str, str]], seen: dict[tuple[str, int], Looks], slow_ms: Sequence[float], facts: _Facts
) -> str:
    """Write what was measured as a page."""
    # Those that came and went (an analysis may have a process of its own) are not asked whether they grow.
    lasting = {key: one for key, one in seen.items() if one.at_s[-1] - one.at_s[0] >= 0.8 * 60 * facts.minutes}
    memory = {key: growth(one, one.mb) for key, one in lasting.items()}
    open_files = {key: growth(one, one.descriptors) for key, one in lasting.items()}
    is_flat = all(g is not None and g <= FLAT_MB for g in memory.values()) and all(
        g is not None and g <= FLAT_DESCRIPTORS for g in open_files.values()
    )
    times = {name: values for name, values in stages(rows).items() if values}
    turnaround = times["turnaround: last image to delivered"]
    p95 = _percentile(turnaround, 95)
    processor = next((x.partition(":")[2].strip() for x in _cpuinfo() if x.startswith("model name")), "unknown")
    lines = [
        "# Soak: a steady load with the console open",
        "",
        f"`make soak MINUTES={facts.minutes:g}` (`tests/benchmarks/soak.py`). A node with two workers; "
        f"{facts.shape} a study (the demo's phantom, small beside a thin chest CT), classical segmenter, radiomics, "
        f"risk of the demo bundle; random arrivals, {facts.per_hour:g} an hour on average; a user with the console "
        "open, Prometheus; storescp as the PACS.",
        "",
        f"dicomnode {__version__}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({processor}) that send, "
        f"analyse and receive, load of the quarter of an hour before: {facts.load_before:.1f} (above 0.5 others were "
        "at work, and times are longer than they need be).",
        "",
        "| | |",
        "|---|---|",
        f"| studies sent and delivered | {facts.sent} in {facts.minutes:g} min, all of them delivered after "
        f"{facts.seconds / 60:.1f} min |",
        f"| rate | {facts.sent / facts.minutes * 60:.0f} an hour |",
        f"| turnaround, last image to last object delivered | median {median(turnaround):.0f} s, 95 % {p95:.0f} s, "
        f"longest {max(turnaround):.0f} s |",
        f"| pages of the console and /metrics | {len(slow_ms)}, median {median(slow_ms):.0f} ms, 95 % "
        f"{_percentile(slow_ms, 95):.0f} ms |",
        f"| memory and descriptors | {'flat: no' if is_flat else '**not flat**: a'} process grew by more than "
        f"{FLAT_MB:g} MB or {FLAT_DESCRIPTORS} descriptors from the second third to the last |",
        "",
        "| stage, s | median | 95 % | longest |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {median(values):.0f} | {_percentile(values, 95):.0f} | {max(values):.0f} |"
            for name, values in times.items()
        ),
        "",
        "| process | MB at first | at the end | most | growth, last third | descriptors at the end | growth |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {key[0]} | {one.mb[0]:.0f} | {one.mb[-1]:.0f} | {max(one.mb):.0f} | {memory[key]:+.1f} | "
            f"{one.descriptors[-1]} | {open_files[key]:+.0f} |"
            for key, one in sorted(lasting.items())
            if memory[key] is not None and open_files[key] is not None
        ),
        "",
        f"{len(seen) - len(lasting)} processes came and went.",
    ]
    return "\n".join(lines) + "\n"


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text("utf-8").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--per-hour", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        program("storescp", "dcmtk")
    except MissingError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory(prefix="dicomnode-soak-") as folder:
        text = soak(Path(folder), given.minutes, given.per_hour, given.seed)
    print(text)
    print(f"on {socket.gethostname()}", file=sys.stderr)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
