"""Prepared slices on disk, made once for a spec by the node's own `prepare`, and read in batches ahead of their use.

A prepared scan is one .npy file (float32, exactly what the node computes), in a folder named by the hash of the spec.
Files are written whole: a preparation that was killed goes on where it was, and several runs may share the folder.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from dicomnode.registry_format.volumes import read_volume
from training.models.arm import Rows
from training.progress_type import ProgressCallback

#: Groups of scans that are read ahead, each by a thread: reading a file releases the interpreter's lock.
_AHEAD = 3


@dataclass(frozen=True)
class Prepared:
    """Where the prepared slices of each scan lie; (slices, height, width) a file."""

    files: tuple[Path, ...]

    def read(self, rows: Iterable[int]) -> Tensor:
        """Return the prepared slices of some scans: (scans, slices, height, width), float32, 0 to 1."""
        return torch.from_numpy(np.stack([np.load(self.files[row]) for row in rows]))


def spec_hash(spec: Spec) -> str:
    """Return the name of a spec's folder."""
    return hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def prepare_all(volumes: Sequence[Path], spec: Spec, cache: Path, workers: int, progress: ProgressCallback) -> Prepared:
    """Prepare every scan that is not in the cache yet, in `workers` processes.

    A volume that was changed since (its size or time) is prepared again.

    Raises:
        UsageError: a volume is missing or damaged, or the cache cannot be written.
        RefusedError: a scan has no lungs.
    """
    folder = cache / spec_hash(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(spec.to_dict(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} is not writable ({error.strerror}): set deep.cache to a folder that is") from None
    files = tuple(_place(folder, volume) for volume in volumes)
    missing = [_CacheTask(v, f, spec) for v, f in dict(zip(volumes, files, strict=True)).items() if not f.is_file()]
    done = len(files) - len(missing)
    progress("Preparing scans", done, len(files))
    for _ in _each(missing, min(workers, len(missing))):
        done += 1
        progress("Preparing scans", done, len(files))
    return Prepared(files)


def batches(prepared: Prepared, groups: Sequence[Rows]) -> Iterator[Tensor]:
    """Yield the slices of each group of rows, in turn: (scans, slices, height, width), 0 to 1.

    The next ones are read while the last is used.
    """
    with ThreadPoolExecutor(_AHEAD) as ahead:
        waiting: deque[Future[Tensor]] = deque()
        for rows in groups:
            waiting.append(ahead.submit(prepared.read, rows))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class _CacheTask:
    volume: Path
    file: Path
    spec: Spec


def _place(folder: Path, volume: Path) -> Path:
    try:
        state = volume.stat()
    except OSError as error:
        raise UsageError(f"{volume} cannot be read: {error.strerror}; the cohort names it as a scan's volume") from None
    name = f"{volume.resolve()} {state.st_size} {state.st_mtime_ns}"
    return folder / f"{volume.stem}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.npy"


def _each(tasks: Sequence[_CacheTask], workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(_write, tasks)
        return
    # Spawned, not forked: a fork of a process with threads (torch has some) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write, tasks, chunksize=4)


def _write(task: _CacheTask) -> None:
    slices: NDArray[np.float32] = prepare(*read_volume(task.volume), task.spec)
    write_whole(task.file, lambda file: np.save(file, slices))
