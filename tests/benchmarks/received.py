"""How long it takes a node to receive an image over C-STORE, while something else goes on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.receive import slices
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import ROOT, program
from tests.helpers.processes import listens
from tests.helpers.running import storescu_process
from tests.helpers.waiting import until

#: Images of 0.5 MB that one association brings, and the pause before the next one, seconds.
IMAGES, PAUSE_S = 50, 1.5


@contextmanager
def receiver(state: Path, database_url: str = "") -> Iterator[int]:
    """Run a receiver on the catalogue in `state`, or on a PostgreSQL; its port."""
    port, path = free_port(), state / "ae_config.toml"
    where = f'database_url = "{database_url}"\n' if database_url else ""
    path.write_text(f'[node]\nport = {port}\n[storage]\nminimum_free_gb = 0.1\nstate = "{state}"\n{where}')
    with (state / "receive.log").open("wb") as log:
        command = [sys.executable, "-m", "dicomnode", "receive", "--config", str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until("listening", lambda: listens(process.pid, port), 60)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def scans(folder: Path, count: int) -> Iterator[Path]:
    """Yield folders of new images, made beforehand."""
    made = [folder / f"{number:03}" for number in range(count)]
    for one in made:
        one.mkdir(parents=True)
        slices(one, IMAGES)
    yield from made


def received(port: int, waiting: Iterator[Path], seconds: float) -> list[float]:
    """Send scans for so long, one after another; milliseconds of an image of each.

    Raises:
        SystemExit: an image was not taken.
    """
    taken: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and (scan := next(waiting, None)) is not None:
        begun = time.perf_counter()
        done = storescu_process(program("storescu", "dcmtk"), port, scan)
        taken.append(1000 * (time.perf_counter() - begun) / IMAGES)
        if done.returncode:
            raise SystemExit(done.stderr)
        time.sleep(PAUSE_S)
    return taken
