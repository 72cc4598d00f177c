"""`make bench-receive`: how fast images come in, ours beside DCMTK's storescp, Orthanc and a plain pynetdicom SCP.

One run, one machine for sender and receivers. The sender is the same for all: DCMTK's storescu with TCP_NODELAY=1, one
process per association. Writes its tables into `docs/evidence/benchmarks-receive.md`; the words around them are ours.
"""

import argparse
import atexit
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import pydicom
from pydicom.uid import generate_uid

from dicomnode.network.tls import TlsFiles
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.certificates import Authority, toml
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import ROOT, check_or_exit, dicom_files, program

SCAN = "chest_lidc0314_every4th"
PACE = os.environ | {"TCP_NODELAY": "1"}

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

PLAIN = """
import sys
from pathlib import Path
from pynetdicom import AE, AllStoragePresentationContexts, evt
def store(event):
    Path(sys.argv[2], event.request.AffectedSOPInstanceUID).write_bytes(event.encoded_dataset())
    return 0x0000
ae = AE("SCP")
ae.supported_contexts = AllStoragePresentationContexts
ae.add_supported_context("1.2.840.10008.1.1")
ae.maximum_associations = 64
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


@dataclass(frozen=True)
class Measured:
    """One receiver with one number of associations. `cpu_s`: the receiver's; `peak_mb`: its resident memory."""

    receiver: str
    associations: int
    images_per_s: float
    mb_per_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Receiver:
    """`command(port, folder)` starts it; `count(folder)`: how many images it holds; `processes`: how many to start."""

    name: str
    command: Callable[[int, Path], list[str]]
    count: Callable[[Path], int]
    environment: dict[str, str]
    processes: int = 1
    associations: tuple[int, ...] = (1, 4, 8)
    tls: bool = False


@cache
def _authority() -> Authority:
    """RSA keys of 3072 bits, which is what `dicomnode tls` makes."""
    authority = Authority(Path(tempfile.mkdtemp(prefix="bench-tls-")), "rsa")
    atexit.register(shutil.rmtree, authority.folder)
    return authority


@cache
def _files(name: str) -> TlsFiles:
    return _authority().files(name)


def _by_tls(name: str) -> list[str]:
    """DCMTK's options for TLS with a certificate."""
    files = _files(name)
    return ["+tls", str(files.key), str(files.certificate), "+cf", str(files.ca_file)]


def slices(folder: Path, count: int) -> list[Path]:
    """CT slices of 0.5 MB with UIDs of their own, all of one series."""
    sources = dicom_files(SCAN)
    study, series = generate_uid(), generate_uid()
    made = []
    for i in range(count):
        dataset = pydicom.dcmread(sources[i % len(sources)])
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study, series, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        made.append(folder / f"{i:04}.dcm")
        dataset.save_as(made[-1])
    return made


def _ours(processes: int, *, with_tls: bool = False) -> Receiver:
    def command(port: int, folder: Path) -> list[str]:
        path = folder / "ae_config.toml"
        receivers = f"receivers = {processes}\n" if processes > 1 else ""
        listening = f"plain = false\ntls_port = {port}\n" if with_tls else f"port = {port}\n"
        more = toml(_files("node")) if with_tls else ""
        path.write_text(f'[node]\nae_title = "SCP"\n{listening}{receivers}[storage]\nminimum_free_gb = 0.1\n{more}')
        return [sys.executable, "-m", "dicomnode", "receive", "--config", str(path)]

    def count(folder: Path) -> int:
        catalog = Catalog.open(f"sqlite:///{folder}/var/state/catalog.sqlite")
        try:
            return sum(study.instances for study in catalog.studies(10))
        finally:
            catalog.close()

    name = f"dicomnode, {processes} receiving process{'es' * (processes > 1)}{', TLS' * with_tls}"
    return Receiver(name, command, count, {}, processes, tls=with_tls)


def _storescp(
    name: str,
    environment: dict[str, str],
    *arguments: str,
    associations: tuple[int, ...],
    with_tls: bool = False,
) -> Receiver:
    def command(port: int, folder: Path) -> list[str]:
        more = [*arguments, *(_by_tls("storescp") if with_tls else [])]
        return [program("storescp", "dcmtk"), "--fork", "-aet", "SCP", "-od", str(folder), *more, str(port)]

    return Receiver(
        name, command, lambda f: sum(1 for _ in f.iterdir()), environment, associations=associations, tls=with_tls
    )


def _orthanc() -> Receiver:
    def command(port: int, folder: Path) -> list[str]:
        settings = {"Name": "bench", "DicomAet": "SCP", "DicomPort": port, "HttpPort": free_port(),
                    "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
                    "DicomAlwaysAllowStore": True, "Plugins": []}  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        return [program("Orthanc", "orthanc"), str(folder / "orthanc.json")]

    def count(folder: Path) -> int:
        # Orthanc keeps each image and beside it its tags as JSON.
        return sum(p.stat().st_size > 500_000 for p in (folder / "storage").glob("*/*/*"))

    return Receiver("Orthanc", command, count, {})


def _plain() -> Receiver:
    def command(port: int, folder: Path) -> list[str]:
        return [sys.executable, "-c", PLAIN, str(port), str(folder)]

    return Receiver("plain pynetdicom SCP", command, lambda f: sum(1 for _ in f.iterdir()), {})


RECEIVERS = {
    "ours1": _ours(1),
    "ours2": _ours(2),
    "ours1tls": _ours(1, with_tls=True),
    "ours2tls": _ours(2, with_tls=True),
    "tuned": _storescp(
        "DCMTK storescp, TCP_NODELAY=1, PDU of 128 KiB", {"TCP_NODELAY": "1"}, "--max-pdu", "131072",
        associations=(1, 4, 8),
    ),
    "tunedtls": _storescp(
        "DCMTK storescp, as above, TLS", {"TCP_NODELAY": "1"}, "--max-pdu", "131072",
        associations=(1, 4, 8), with_tls=True,
    ),
    "default": _storescp("DCMTK storescp, as it comes", {}, associations=(1, 4, 8)),
    "orthanc": _orthanc(),
    "plain": _plain(),
}  # fmt: skip


class Watch:
    """CPU seconds and peak resident memory of processes and their children, looked at all the time."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self._processes = [psutil.Process(p.pid) for p in processes]
        self._stop = threading.Event()
        self._cpu: dict[int, float] = {}
        self.peak = 0
        self._look()
        self._before = dict(self._cpu)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _look(self) -> None:
        resident = 0
        for process in [q for p in self._processes for q in (p, *p.children(recursive=True))]:
            try:
                times = process.cpu_times()
                # storescp forks: children that have ended are in their parent's account.
                self._cpu[process.pid] = times.user + times.system + times.children_user + times.children_system
                resident += process.memory_info().rss
            except psutil.Error:
                continue  # a fork that ended just now
        self.peak = max(self.peak, resident)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def end(self) -> float:
        """CPU seconds since the start."""
        self._look()
        self._stop.set()
        self._thread.join()
        own = {p.pid for p in self._processes}
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._cpu.items() if pid in own)


@contextmanager
def running(receiver: Receiver, folder: Path, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The receiver, from its port's first answer to its end."""
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"} | receiver.environment
    command = receiver.command(port, folder)
    # Not in the folder: for some receivers that is where the images go, and they are counted.
    with Path(f"{folder}.log").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            for _ in range(receiver.processes)
        ]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(
            ["/usr/bin/echoscu", *(_by_tls("sender") if receiver.tls else []), "-aec", "SCP", "127.0.0.1", str(port)],
            capture_output=True,
            check=False,
        ).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{receiver.name} does not answer")
            time.sleep(0.1)
        time.sleep(1.0 * (receiver.processes > 1))
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
        Path(f"{folder}.log").unlink()


def measure(receiver: Receiver, associations: int, files: list[Path], folder: Path) -> Measured:
    """Sends all files, shared out over so many associations at once, to a receiver that keeps them in `folder`.

    Raises:
        RuntimeError: an image was refused or is not there.
    """
    port = free_port()
    secured = _by_tls("sender") if receiver.tls else []
    with running(receiver, folder, port) as processes:
        watch = Watch(processes)
        start = time.perf_counter()
        senders = [
            subprocess.Popen(
                [
                    program("storescu", "dcmtk"),
                    *secured,
                    "-aec",
                    "SCP",
                    "127.0.0.1",
                    str(port),
                    *files[i::associations],
                ],
                env=PACE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for i in range(associations)
        ]
        refused = [s for s in senders if s.wait()]
        seconds = time.perf_counter() - start
        cpu = watch.end()
        held = receiver.count(folder)
        if refused or held < len(files):
            raise RuntimeError(f"{receiver.name}: {len(refused)} senders failed, {held} of {len(files)} images held")
    size = sum(path.stat().st_size for path in files) / 1e6
    return Measured(receiver.name, associations, len(files) / seconds, size / seconds, cpu, watch.peak / 1e6)


def flush_ms(folder: Path) -> float:
    """Median milliseconds of what «durable» costs here: a new file of 0.5 MB, its fsync, rename, its folder's fsync."""
    content, times = os.urandom(525_000), []
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(60):
        start = time.perf_counter()
        with (folder / f"{i}.part").open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / f"{i}.part").rename(folder / f"{i}")
        os.fsync(descriptor)
        times.append(time.perf_counter() - start)
        (folder / f"{i}").unlink()
    os.close(descriptor)
    return statistics.median(times) * 1e3


def table(where: str, found: dict[tuple[str, int], list[Measured]], images: int, flush: float) -> list[str]:
    """The medians of all rounds, and each receiver's share of tuned DCMTK's speed, compared round by round."""
    lines = [
        f"### {where}",
        "",
        f"{images} images, median of {max(map(len, found.values()))} rounds; a durable file of 0.5 MB: {flush:.2f} ms.",
        "",
        "| receiver | associations | images/s | MB/s | of tuned DCMTK | CPU s | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    order = list(RECEIVERS)
    for (key, associations), measured in sorted(found.items(), key=lambda one: (one[0][1], order.index(one[0][0]))):
        tuned = found.get(("tuned", associations), [])
        shares = [one.images_per_s / other.images_per_s for one, other in zip(measured, tuned, strict=False)]
        share = f"{statistics.median(shares):.2f}" if shares else ""
        speed, rate, cpu, peak = (
            statistics.median(getattr(one, field) for one in measured)
            for field in ("images_per_s", "mb_per_s", "cpu_s", "peak_mb")
        )
        lines.append(
            f"| {RECEIVERS[key].name} | {associations} | {speed:.0f} | {rate:.0f} | {share} | {cpu:.2f} | {peak:.0f} |"
        )
    return [*lines, ""]


def measured_in(folder: Path, keys: list[str], given: argparse.Namespace, *, keep: bool) -> list[str]:
    """All rounds, with the receivers' folders in `folder`.

    `keep`: nothing is removed before the end (14 GB with the default numbers). For minutes ext4 steers around inodes
    that were deleted: after the first rounds opening a file took 0.6 ms instead of 0.02.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = Path(temporary) / "slices"
        source.mkdir()
        files = slices(source, given.images)
        found: dict[tuple[str, int], list[Measured]] = {}
        for _ in range(given.rounds):
            for associations in given.associations:
                for key in keys:
                    own = Path(tempfile.mkdtemp(dir=temporary))
                    one = measure(RECEIVERS[key], associations, files, own)
                    if not keep:
                        shutil.rmtree(own)
                    found.setdefault((key, associations), []).append(one)
                    print(f"{one.receiver:50} {associations} {one.images_per_s:7.1f}/s", flush=True)
        return table(f"Files in {folder}", found, given.images, flush_ms(Path(temporary)))


def main() -> None:
    """Measures and writes the tables."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--images", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", nargs="*", choices=RECEIVERS, default=list(RECEIVERS))
    arguments.add_argument("--associations", nargs="*", type=int, default=[1, 4, 8])
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    arguments.add_argument("--memory", type=Path, default=None, help="a memory file system: the same without a disk")
    arguments.add_argument("--out", type=Path, default=None, help="the document whose tables are replaced")
    given = arguments.parse_args()
    peers = [("storescp", "dcmtk")] if {"tuned", "default"} & set(given.only) else []
    peers += [("Orthanc", "orthanc")] if "orthanc" in given.only else []
    check_or_exit([SCAN], [("storescu", "dcmtk"), *peers])
    load = os.getloadavg()[0]
    lines = measured_in(given.folder, given.only, given, keep=True)
    if given.memory is not None:
        in_memory = [key for key in given.only if key in ("ours1", "ours2", "ours1tls", "tuned", "tunedtls")]
        lines += measured_in(given.memory, in_memory, given, keep=False)
    scheduling = "normal priority" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time priority"
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores for sender and receiver together, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; load before the run {load:.1f}, {scheduling}.",
        "",
        *lines,
    ]
    print("\n".join(lines))
    if given.out is not None:
        before, _, rest = given.out.read_text("utf-8").partition(BEGIN)
        given.out.write_text("\n".join([before + BEGIN, "", *lines, END + rest.partition(END)[2]]), encoding="utf-8")


if __name__ == "__main__":
    main()
