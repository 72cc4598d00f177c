"""The whole way, with a node as shipped: from the last C-STORE of a study to its four results in Orthanc.

    python -m tests.benchmarks.turnaround [CASE …]

A node with one worker, radiomics and the demo bundle; DCMTK's storescu (TCP_NODELAY=1) and Orthanc on the same machine.
A first study warms the node; of those after it the medians count. Memory is the peak of the worker's larger process
(VmHWM) over all.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import median

import psutil
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicomnode.store.catalog.catalog import Catalog
from tests.benchmarks.inputs import CASES, files
from tests.helpers.prerequisites import program
from tests.helpers.running import Node, Orthanc, storescu_process
from tests.helpers.waiting import until

#: SEG, measurements, risk, summary.
RESULTS = 4
#: Studies that count.
TIMES = 5
_LOOK_S, _MOST_S = 0.05, 300
HEAD = """
## The whole way

`python -m tests.benchmarks.turnaround`: from the end of the association that brought the last image, with a node as
shipped (`settle.release_s` = 5), to {results} results in Orthanc. CPU is that of all the node's processes from then on;
memory the peak of the worker's larger process; medians of {times} studies. {machine}

| what | images | settled, s | results written, s | results in Orthanc, s | CPU s | MB |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Way:
    """Seconds since the end of the association; CPU seconds of all the node's processes since then; MB."""

    images: int
    settled_s: float
    written_s: float
    arrived_s: float
    cpu_s: float
    peak_mb: float

    def row(self, case: str) -> str:
        """Return the row of the table."""
        cells = (self.settled_s, self.written_s, self.arrived_s, self.cpu_s)
        shown = " | ".join(f"{cell:.1f}" for cell in cells)
        return f"| {case} | {self.images} | {shown} | {self.peak_mb:.0f} |"


def measure(case: str) -> Way:
    """Send a case as the studies of several patients; the median way of all but the first."""
    sources = files(case)
    with tempfile.TemporaryDirectory(prefix="dicomnode-way-") as folder, _pair(Path(folder)) as (node, pacs):
        until("a worker that is ready", lambda: " ready: segmenter" in node.log(), 300)
        ways = [_sent(node, pacs, sources, Path(folder, f"study-{n}"), n) for n in range(1 + TIMES)][1:]
        print([f"{way.arrived_s:.2f}" for way in ways], file=sys.stderr)
        columns = zip(*(astuple(way) for way in ways), strict=True)
        return replace(Way(*map(median, columns)), peak_mb=ways[-1].peak_mb)


@contextmanager
def _pair(folder: Path) -> Iterator[tuple[Node, Orthanc]]:
    pacs = Orthanc(folder, program("Orthanc", "orthanc"))
    try:
        node = Node(folder / "node", pacs.destination())
        text = node.config_path.read_text("utf-8")
        shipped = text.replace("release_s = 0.5\nquiet_s = 4\ntick_s = 0.25\n", "")
        assert shipped != text, "the tests' node settles sooner than the shipped one"
        node.config_path.write_text(shipped, "utf-8")
        node.start()
        try:
            yield node, pacs
        finally:
            node.stop()
    finally:
        pacs.stop()


def _sent(node: Node, pacs: Orthanc, sources: list[Path], folder: Path, number: int) -> Way:
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index, path in enumerate(sources):
        image = dcmread(path)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.PatientID = f"WAY-{number}"
        image.save_as(folder / f"{index:04d}.dcm")
    done = storescu_process(program("storescu", "dcmtk"), node.port, folder)
    sent_at, before = time.time(), _cpu_s(node)
    if done.returncode:
        raise SystemExit(done.stderr)
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": str(study)}}
    # Not by `until`, whose pauses grow to 0.4 s: that is what is measured.
    while len(pacs.client.post("/tools/find", json=query).raise_for_status().json()) < RESULTS:
        time.sleep(_LOOK_S)
        if time.time() - sent_at > _MOST_S:
            raise SystemExit(f"no {RESULTS} results in Orthanc after {_MOST_S} s")
    arrived_s, cpu_s = time.time() - sent_at, _cpu_s(node) - before
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        at = {one.state: one.at for one in catalog.transitions(str(study))}
    finally:
        catalog.close()
    return Way(len(sources), at["queued"] - sent_at, at["analysed"] - sent_at, arrived_s, cpu_s, _peak_mb(node))


def _processes(node: Node) -> list[psutil.Process]:
    assert node.process is not None
    own = psutil.Process(node.process.pid)
    return [own, *own.children(recursive=True)]


def _cpu_s(node: Node) -> float:
    times = [process.cpu_times() for process in _processes(node)]
    return sum(one.user + one.system for one in times)


def _peak_mb(node: Node) -> float:
    worker = node.child("work")
    return max(_high_water_mb(process.pid) for process in (worker, *worker.children()))


def _high_water_mb(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def table(machine: str, ways: Mapping[str, Way]) -> str:
    """Return the part of the page."""
    rows = "\n".join(way.row(case) for case, way in ways.items())
    return HEAD.format(results=RESULTS, times=TIMES, machine=machine) + rows + "\n"


def main() -> None:
    """Measure and print."""
    for case in sys.argv[1:] or CASES:
        print(measure(case).row(case), flush=True)


if __name__ == "__main__":
    main()
