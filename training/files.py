"""JSON files of a run, digests of what it was made with, and the lock that keeps a second process out."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dicomnode.errors import UsageError
from dicomnode.files import write_whole


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON of plain values whole or not at all; a float that is not finite becomes null, which JSON can hold."""
    write_whole(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value


def digest(*parts: object) -> str:
    """SHA-256 over plain values, by their JSON."""
    return hashlib.sha256(json.dumps([_plain(p) for p in parts], sort_keys=True).encode()).hexdigest()


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """Hold the file `lock` against all others who want it; the lock ends with the process, however that ends.

    Raises:
        UsageError: another holds it; `busy` says so, with the cure.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(busy) from None
        yield
