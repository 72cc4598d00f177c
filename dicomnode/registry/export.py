"""The registry as a folder that training reads (`registry_format`): no key, no Patient ID, no date of the records.

The node's own: outcomes that were imported; volumes copied as the worker has kept them. registry.toml comes last, and
an export that was stopped goes on in its folder.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.files import make_folder, write_whole
from dicomnode.registry_format import volumes
from dicomnode.registry_format.description import NAME as DESCRIPTION
from dicomnode.registry_format.description import write_description
from dicomnode.registry_format.rows import OUTCOME_COLUMNS, SCAN_COLUMNS
from dicomnode.registry_format.tables import write_csv, write_features
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryRows, RegistryScan

#: Stands in a folder from the first moment of an export until registry.toml is there.
_BEGUN = f".{DESCRIPTION}.part"
_OWN = re.compile(r"scans\.csv|features\.parquet|outcomes\.csv|volumes")
#: What a write that was stopped leaves of a file.
_HALF = re.compile(r"\.(scans\.csv|features\.parquet|outcomes\.csv|registry\.toml)\..+")
_OWN_VOLUME = re.compile(r"[0-9a-f]{32}\.npz|\.[0-9a-f]{32}\.npz\..+")
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


def export(
    rows: RegistryRows,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    disease: str = "",
    site: str = "",
) -> Exported:
    """Write the registry to the new or empty folder `out`; `progress(done, total)` follows the volumes.

    `disease` and `site` are stated in registry.toml. A folder in which an export was stopped is gone on with: it holds
    in the end what a new one would.

    Raises:
        UsageError: the folder holds something else, the registry is empty, or pyarrow is not installed.
        SpoolError: the database failed.
    """
    _check_folder(out)
    recorded = rows.registry_scans()
    scans = [s for s in recorded if not s.doubts]
    if not scans:
        raise UsageError("the registry has no scans: set registry.record = true, and analyse some")
    make_folder(out)
    (out / _BEGUN).touch()
    _remove_halves(out)
    placed = [_with_volume(scan, out) for scan in _counted(scans, progress)]
    _remove_others(out / volumes.FOLDER, {Path(s.volume).name for s in placed if s.volume})
    # Sorted by patient and date: the last that is put in stays.
    latest = {s.patient: s.date for s in scans}
    outcomes = [known_alive(o, latest[o.patient]) for o in rows.registry_outcomes() if o.patient in latest]
    write_features(out / "features.parquet", {s.scan: s.features for s in placed})
    write_csv(out / "scans.csv", SCAN_COLUMNS, map(asdict, placed))
    (out / "outcomes.csv").unlink(missing_ok=True)
    if outcomes:
        write_csv(out / "outcomes.csv", OUTCOME_COLUMNS, map(asdict, outcomes))
    notes = "dates are shifted by patient; ages above 89 are 90; voxels outside the lungs are not kept"
    stated = {"disease": disease, "sites": [site] if site else []}
    write_description(out, "node", (s.algorithm_digest for s in placed), notes, {k: v for k, v in stated.items() if v})
    (out / _BEGUN).unlink(missing_ok=True)
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
    kept = {p.name for p in (out / volumes.FOLDER).iterdir()} if volumes.FOLDER in found else set()
    own = all(_OWN.fullmatch(n) or _HALF.fullmatch(n) for n in found) and all(map(_OWN_VOLUME.fullmatch, kept))
    if found and not (own and _BEGUN in found):
        raise UsageError(f"{out} is not empty: give a new folder, so that exports are not mixed")


def _remove_halves(out: Path) -> None:
    for path in out.iterdir():
        if _HALF.fullmatch(path.name) and path.name != _BEGUN:
            path.unlink()


def _counted(scans: Sequence[RegistryScan], progress: Callable[[int, int], None] | None) -> Iterable[RegistryScan]:
    for done, scan in enumerate(scans, start=1):
        yield scan
        if progress:
            progress(done, len(scans))


def known_alive(outcome: RegistryOutcome, latest_scan: str) -> RegistryOutcome:
    """Take a scan or a transplant for a contact: a survivor's scan after the import must not contradict it."""
    if outcome.death_date:
        return outcome
    last = max(outcome.last_contact_date, outcome.transplant_date, latest_scan)
    return replace(outcome, last_contact_date=last)


def _with_volume(scan: RegistryScan, out: Path) -> RegistryScan:
    """Copy the scan's volume to `out`; the scan comes back without one where none is kept (any more).

    A link would let who works with the export change the node's own file. The copy's time says nothing of the
    analysis, whose day would give away by how much the patient's dates are shifted. It follows from the content: what
    training has cached of another content of this name and size is not taken for this one's.
    """
    try:
        content = Path(scan.volume).read_bytes() if volumes.is_volume(Path(scan.volume)) else b""
    except FileNotFoundError:
        content = b""
    if not content:
        return replace(scan, volume="")
    name = volumes.volume_name(scan.scan)
    time = _FIRST_TIME + int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % _TIMES
    if not _is_there(out / name, len(content), time):
        write_whole(out / name, content)
        os.utime(out / name, (time, time))
    return replace(scan, volume=name)


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
