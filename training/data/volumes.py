"""A registry's scans read back. Its tables: `training.data.registry_folder`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.errors import UsageError


def load_scan(path: Path) -> tuple[Volume, Labels]:
    """Read a stored scan, HU, and its lung labels, both (z, y, x).

    The labels are those in the registry, for a synthetic one the phantom's truth.

    Raises:
        UsageError: the file is missing or is not such a scan.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            hu, labels = stored["hu"], stored["labels"]
            spacing = tuple(float(v) for v in stored["spacing_mm"])
            origin = tuple(float(v) for v in stored["origin_mm"])
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} is not a scan of a registry: {error}") from None
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(hu, spacing, origin, axes, frames=()), labels  # type: ignore[arg-type]
