"""The registry as a folder that training reads: no key, no Patient ID, no date of the records in it.

registry.toml      who made it, when, with which algorithms
scans.csv          one row a scan
features.parquet   the scans' numbers
outcomes.csv       where outcomes were imported
volumes/           the lungs' voxels, where they are kept

Each file is written whole, and registry.toml last: an export that was stopped goes on in its folder.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import dicomnode
from dicomnode.errors import UsageError
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryRows, RegistryScan

FORMAT = 1
SCAN_COLUMNS = (
    "patient", "scan", "date", "age_years", "sex", "manufacturer", "model", "kernel", "kernel_family",
    "slice_thickness_mm", "spacing_z_mm", "segmenter", "software_version", "algorithm_digest", "volume",
)  # fmt: skip
OUTCOME_COLUMNS = ("patient", "death_date", "last_contact_date", "transplant_date")
_ABOUT = "registry.toml"
#: Stands in a folder from the first moment of an export until registry.toml takes its place.
_BEGUN = f".{_ABOUT}.part"
_OWN = re.compile(r"scans\.csv|features\.parquet|outcomes\.csv|volumes|\..*\.part")
_OWN_VOLUME = re.compile(r"\.?[0-9a-f]{32}\.npz(\.part)?")
#: 1980 and later, which every archive format can hold.
_FIRST_TIME, _TIMES = 315_532_800, 2**30


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

    A folder in which an export was stopped is gone on with: it holds in the end what a new one would.

    Raises:
        UsageError: the folder holds something else, the registry is empty, or pyarrow is not installed.
        SpoolError: the database failed.
    """
    _check_folder(out)
    recorded = rows.registry_scans()
    scans = [s for s in recorded if not s.doubts]
    if not scans:
        raise UsageError("the registry holds no scan: set registry.record = true, and let the node analyse some")
    out.mkdir(parents=True, exist_ok=True)
    (out / _BEGUN).touch()
    placed = [_with_volume(scan, out) for scan in _counted(scans, progress)]
    _remove_others(out / "volumes", {Path(s.volume).name for s in placed if s.volume})
    # Sorted by patient and date: the last that is put in stays.
    latest = {s.patient: s.date for s in scans}
    outcomes = [_known_alive(o, latest[o.patient]) for o in rows.registry_outcomes() if o.patient in latest]
    _write_features(out / "features.parquet", placed)
    _write_csv(out / "scans.csv", SCAN_COLUMNS, placed)
    (out / "outcomes.csv").unlink(missing_ok=True)
    if outcomes:
        _write_csv(out / "outcomes.csv", OUTCOME_COLUMNS, outcomes)
    # Last: a folder with this file is a whole export.
    with _whole(out / _ABOUT) as temporary:
        temporary.write_text(_about(placed), encoding="utf-8")
    return Exported(
        scans=len(scans),
        patients=len(latest),
        doubtful=len(recorded) - len(scans),
        volumes=sum(bool(s.volume) for s in placed),
        outcomes=len(outcomes),
    )


def _check_folder(out: Path) -> None:
    """Raise UsageError unless the folder is new, empty, or what a stopped export has left and nobody has touched."""
    found = {p.name for p in out.iterdir()} if out.exists() else set()
    volumes = {p.name for p in (out / "volumes").iterdir()} if "volumes" in found else set()
    own = all(map(_OWN.fullmatch, found)) and all(map(_OWN_VOLUME.fullmatch, volumes))
    if found and not (own and _BEGUN in found):
        raise UsageError(f"{out} is not empty: give a new folder, so that no export is mixed with another")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a name to write under; the file takes its place when it is whole."""
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    temporary.replace(path)


def _counted(scans: Sequence[RegistryScan], progress: Callable[[int, int], None] | None) -> Iterable[RegistryScan]:
    for done, scan in enumerate(scans, start=1):
        yield scan
        if progress:
            progress(done, len(scans))


def _known_alive(outcome: RegistryOutcome, latest_scan: str) -> RegistryOutcome:
    """Take a scan or a transplant for a contact: a survivor's scan after the import must not contradict it."""
    if outcome.death_date:
        return outcome
    last = max(outcome.last_contact_date, outcome.transplant_date, latest_scan)
    return replace(outcome, last_contact_date=last)


def _with_volume(scan: RegistryScan, out: Path) -> RegistryScan:
    """Return the scan with a copy of its volume under `out`; without one where none is kept (any more).

    A link would let who works with the export change the node's own file. The copy's time says nothing of the
    analysis, whose day would give away by how much the patient's dates are shifted. It follows from the content: what
    training has cached of another content of this name and size is not taken for this one's.
    """
    try:
        content = Path(scan.volume).read_bytes() if scan.volume else b""
    except FileNotFoundError:
        content = b""
    if not content:
        return replace(scan, volume="")
    target = out / "volumes" / f"{scan.scan}.npz"
    target.parent.mkdir(exist_ok=True)
    time = _FIRST_TIME + int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % _TIMES
    if not _is_there(target, len(content), time):
        with _whole(target) as temporary:
            temporary.write_bytes(content)
            os.utime(temporary, (time, time))
    return replace(scan, volume=str(target.relative_to(out)))


def _is_there(path: Path, size: int, time: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime) == (size, time)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove what a stopped export has left of other scans: their patients may have been forgotten since."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in wanted:
            path.unlink()


def _write_features(path: Path, scans: Sequence[RegistryScan]) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415  (needed here only)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError("the export needs pyarrow: install dicomnode with its extra [training]") from None
    names = sorted({name for s in scans for name in s.features})
    columns = {name: pa.array([s.features.get(name) for s in scans], pa.float64()) for name in names}
    with _whole(path) as temporary:
        parquet.write_table(pa.table({"scan": pa.array([s.scan for s in scans]), **columns}), temporary)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[RegistryScan] | Sequence[RegistryOutcome]) -> None:
    with _whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
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
