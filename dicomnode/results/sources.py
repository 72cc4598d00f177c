"""Headers of the images that a result's reports refer to, read while those images are still being measured.

They are kept in memory, each for one result, and hold for their path: the spool never writes other bytes to it.
"""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from dicomnode.analysis.series.headers import read_source
from dicomnode.errors import RefusedError

#: Some 0.1 MB each.
MOST = 1000

_kept: dict[Path, Dataset] = {}
_lock = threading.Lock()


def read_ahead(paths: Sequence[Path]) -> None:
    """Read the headers of a study's images, the first `MOST` of them; those of the study before are forgotten."""
    found: dict[Path, Dataset] = {}
    for path in paths[:MOST]:
        with contextlib.suppress(RefusedError):  # who needs it reads it again, and tells
            found[path] = read_source(path)
    with _lock:
        _kept.clear()
        _kept.update(found)


def headers(paths: Sequence[Path]) -> list[Dataset]:
    """Return the images' headers (`headers.read_source`), in the order given; nothing is kept any longer.

    Raises:
        RefusedError: one cannot be read.
    """
    with _lock:
        kept = dict(_kept)
        _kept.clear()
    return [kept.get(path) or read_source(path) for path in paths]
