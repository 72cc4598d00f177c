"""The registry read back: scans with their outcomes, and the network's input made by the node's own preprocessing."""

import csv
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.preprocess import Spec, prepare
from dicomnode.errors import UsageError
from training.outcome import DAYS_PER_YEAR, Outcomes


@dataclass(frozen=True)
class Registry:
    """Scans in the order of `registry.csv`, one entry a scan in each field."""

    folder: Path
    patients: tuple[str, ...]
    scans: tuple[str, ...]
    files: tuple[Path, ...]
    outcomes: Outcomes

    @property
    def sha256(self) -> str:
        """Digest of the two tables: which scans, which outcomes."""
        tables = (self.folder / name for name in ("registry.csv", "outcomes.csv"))
        return hashlib.sha256(b"".join(t.read_bytes() for t in tables)).hexdigest()


def load_registry(folder: Path) -> Registry:
    """Read `registry.csv` and `outcomes.csv`.

    Raises:
        UsageError: a table or column is missing, a scan has no outcome, or a value is no number.
    """
    rows = _read_csv(folder / "registry.csv", ("patient", "scan", "file"))
    outcomes = {r["scan"]: r for r in _read_csv(folder / "outcomes.csv", ("scan", "days", "event"))}
    without = [r["scan"] for r in rows if r["scan"] not in outcomes]
    if without or not rows:
        raise UsageError(f"{folder}: {len(without)} of {len(rows)} scans have no row in outcomes.csv")
    try:
        years = np.array([float(outcomes[r["scan"]]["days"]) for r in rows]) / DAYS_PER_YEAR
        event = np.array([bool(int(outcomes[r["scan"]]["event"])) for r in rows])
        known = Outcomes(years, event)
    except ValueError as error:
        raise UsageError(f"{folder / 'outcomes.csv'}: {error}") from None
    return Registry(
        folder=folder,
        patients=tuple(r["patient"] for r in rows),
        scans=tuple(r["scan"] for r in rows),
        files=tuple(folder / r["file"] for r in rows),
        outcomes=known,
    )


def load_truth(registry: Registry, horizons: Sequence[int]) -> NDArray[np.float64]:
    """The generator's own risk (scans, horizons): for the oracle only, never for training."""
    columns = [f"risk_{h}" for h in horizons]
    truth = {r["scan"]: r for r in _read_csv(registry.folder / "truth.csv", ("scan", *columns))}
    return np.array([[float(truth[scan][c]) for c in columns] for scan in registry.scans])


def load_scan(path: Path) -> tuple[Volume, Labels]:
    """A stored scan and its lung labels. The labels are those in the registry, for a synthetic one the phantom's truth.

    Raises:
        UsageError: the file is missing or is not such a scan.
    """
    try:
        with np.load(path) as stored:
            hu, labels = stored["hu"], stored["labels"]
            spacing = tuple(float(v) for v in stored["spacing_mm"])
            origin = tuple(float(v) for v in stored["origin_mm"])
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a scan of a registry: {error}") from None
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(hu, spacing, origin, axes, frames=()), labels  # type: ignore[arg-type]


def prepare_all(
    files: Sequence[Path], spec: Spec, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Prepared slices of every scan: (scans, slices, height, width), float32, 0 to 1."""
    out = np.empty((len(files), spec.slices, *spec.canvas), np.float32)

    def one(path: Path) -> NDArray[np.float32]:
        return prepare(*load_scan(path), spec)

    with ThreadPoolExecutor(2) as pool:  # unpacking and NumPy's large operations release the interpreter's lock
        for index, slices in enumerate(pool.map(one, files)):
            out[index] = slices
            if progress:
                progress(index + 1, len(files))
    return out


def _read_csv(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"{path} is missing: give a registry folder, for example one made by `training synthetic`")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(needed) - set(reader.fieldnames or ())
        if missing:
            raise UsageError(f"{path} has no column {', '.join(sorted(missing))}")
        return list(reader)
