"""The registry as a folder that training reads: no key, no Patient ID, no date of the records in it.

registry.toml      who made it, when, with which algorithms
scans.csv          one row a scan
features.parquet   the scans' numbers
outcomes.csv       where outcomes were imported
volumes/           the lungs' voxels, where they are kept
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import dicomnode
from dicomnode.errors import UsageError
from dicomnode.intake.registry_rows import RegistryOutcome, RegistryRows, RegistryScan

FORMAT = 1
SCAN_COLUMNS = (
    "patient", "scan", "date", "age_years", "sex", "manufacturer", "model", "kernel", "kernel_family",
    "slice_thickness_mm", "spacing_z_mm", "segmenter", "software_version", "algorithm_digest", "volume",
)  # fmt: skip
OUTCOME_COLUMNS = ("patient", "death_date", "last_contact_date", "transplant_date")


@dataclass(frozen=True)
class Exported:
    """What was written. `doubtful`: scans left out because their lungs were in doubt."""

    scans: int
    patients: int
    doubtful: int
    volumes: int
    outcomes: int


def export(rows: RegistryRows, out: Path, progress: Callable[[int, int], None] | None = None) -> Exported:
    """Write the registry to the new or empty folder `out`; `progress(done, total)` follows the volumes.

    Raises:
        UsageError: the folder holds something, the registry is empty, or pyarrow is not installed.
        SpoolError: the database failed.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no export is mixed with another")
    recorded = rows.registry_scans()
    scans = [s for s in recorded if not s.doubts]
    if not scans:
        raise UsageError("the registry holds no scan: set registry.record = true, and let the node analyse some")
    out.mkdir(parents=True, exist_ok=True)
    placed = [_with_volume(scan, out) for scan in _counted(scans, progress)]
    patients = {s.patient for s in scans}
    outcomes = [o for o in rows.registry_outcomes() if o.patient in patients]
    _write_features(out / "features.parquet", placed)
    _write_csv(out / "scans.csv", SCAN_COLUMNS, placed)
    if outcomes:
        _write_csv(out / "outcomes.csv", OUTCOME_COLUMNS, outcomes)
    # Last: a folder with this file is a whole export.
    (out / "registry.toml").write_text(_about(placed), encoding="utf-8")
    return Exported(
        scans=len(scans),
        patients=len(patients),
        doubtful=len(recorded) - len(scans),
        volumes=sum(bool(s.volume) for s in placed),
        outcomes=len(outcomes),
    )


def _counted(scans: Sequence[RegistryScan], progress: Callable[[int, int], None] | None) -> Iterable[RegistryScan]:
    for done, scan in enumerate(scans, start=1):
        yield scan
        if progress:
            progress(done, len(scans))


def _with_volume(scan: RegistryScan, out: Path) -> RegistryScan:
    """The scan with its volume under `out`, by a hard link where the file system allows it."""
    if not scan.volume or not Path(scan.volume).exists():
        return replace(scan, volume="")
    target = out / "volumes" / f"{scan.scan}.npz"
    target.parent.mkdir(exist_ok=True)
    try:
        target.hardlink_to(scan.volume)
    except OSError:  # another file system
        with suppress(FileNotFoundError):
            shutil.copyfile(scan.volume, target)
    return replace(scan, volume=str(target.relative_to(out)))


def _write_features(path: Path, scans: Sequence[RegistryScan]) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415  (needed here only)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError("the export needs pyarrow: install dicomnode with its extra [training]") from None
    names = sorted({name for s in scans for name in s.features})
    columns = {name: pa.array([s.features.get(name) for s in scans], pa.float64()) for name in names}
    parquet.write_table(pa.table({"scan": pa.array([s.scan for s in scans]), **columns}), path)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[RegistryScan] | Sequence[RegistryOutcome]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_plain(asdict(row)) for row in rows)


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    return {k: "" if v is None else v for k, v in row.items()}


def _about(scans: Sequence[RegistryScan]) -> str:
    lines = {
        "format": FORMAT,
        "made_by": "node",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software_version": dicomnode.__version__,
        "algorithm_digest": sorted({s.algorithm_digest for s in scans}),
        "notes": "dates are shifted by patient; ages above 89 are 90; voxels outside the lungs are not kept",
    }
    # JSON's numbers, strings and lists of strings are TOML's.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
