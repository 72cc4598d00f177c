"""The registry read back: scans with their outcomes, and the network's input made by the node's own preprocessing."""

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.preprocess import Spec, prepare
from dicomnode.errors import UsageError
from training.outcome import DAYS_PER_YEAR, Outcomes

_OUTCOME_COLUMNS = ("patient", "death_date", "last_contact_date")


@dataclass(frozen=True)
class Registry:
    """Scans in the order of `scans.csv`, one entry a scan in each field."""

    folder: Path
    patients: tuple[str, ...]
    scans: tuple[str, ...]
    files: tuple[Path, ...]
    outcomes: Outcomes

    @property
    def sha256(self) -> str:
        """Digest of the two tables: which scans, which outcomes."""
        tables = (self.folder / name for name in ("scans.csv", "outcomes.csv"))
        return hashlib.sha256(b"".join(t.read_bytes() for t in tables)).hexdigest()


def load_registry(folder: Path) -> Registry:
    """Read `scans.csv` and `outcomes.csv`, as a synthetic registry has them. `training cohort` reads any registry.

    Raises:
        UsageError: a table or column is missing, a scan has no volume, a patient no outcome, or a value is no date.
    """
    rows = _read_csv(folder / "scans.csv", ("patient", "scan", "date", "volume"))
    outcomes = {r["patient"]: r for r in _read_csv(folder / "outcomes.csv", _OUTCOME_COLUMNS)}
    without = [r["scan"] for r in rows if r["patient"] not in outcomes]
    if without or not rows:
        raise UsageError(f"{folder}: the patients of {len(without)} of {len(rows)} scans have no row in outcomes.csv")
    empty = [r["scan"] for r in rows if not r["volume"]]
    if empty:
        raise UsageError(f"{folder}: {len(empty)} of {len(rows)} scans have no volume: make it without --no-volumes")
    try:
        days = [_days(r["date"], outcomes[r["patient"]]) for r in rows]
        event = [bool(outcomes[r["patient"]]["death_date"]) for r in rows]
        known = Outcomes(np.array(days) / DAYS_PER_YEAR, np.array(event))
    except ValueError as error:
        raise UsageError(f"{folder / 'outcomes.csv'}: {error}") from None
    return Registry(
        folder=folder,
        patients=tuple(r["patient"] for r in rows),
        scans=tuple(r["scan"] for r in rows),
        files=tuple(folder / r["volume"] for r in rows),
        outcomes=known,
    )


def _days(scan: str, outcome: Mapping[str, str]) -> int:
    """Days from a scan to death or last contact."""
    end = outcome["death_date"] or outcome["last_contact_date"]
    return (date.fromisoformat(end) - date.fromisoformat(scan)).days


def load_truth(registry: Registry, horizons: Sequence[int]) -> NDArray[np.float64]:
    """The generator's own risk (scans, horizons): for the oracle only, never for training."""
    columns = [f"risk_{h}y" for h in horizons]
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
