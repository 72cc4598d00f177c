"""A synthetic registry with a known truth: serial phantom scans of synthetic patients, outcomes, features.

Its folder is a registry as a node's is (`dicomnode.registry_format`), with `outcomes.csv`; its patients are drawn, so
their names are numbers and their dates need no shift. The generator's own risk is kept in `truth.csv`, which nothing
but the evaluation's oracle reads: its AUC is the best that any model of these scans could reach.
"""

import hashlib
import json
import os
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import tomli_w

import dicomnode
from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from dicomnode.registry_format import volumes
from dicomnode.registry_format.description import NAME as DESCRIPTION
from dicomnode.registry_format.description import read_description, write_description
from dicomnode.registry_format.rows import OUTCOME_COLUMNS, SCAN_COLUMNS, ScanRow
from dicomnode.registry_format.tables import write_csv, write_features
from training.data.outcomes import DAYS_PER_YEAR, HORIZONS_YEARS
from training.synthetic.patients import Patient, SyntheticScan, draw
from training.synthetic.scans import (
    IN_PLANE_MM,
    RADIOMICS_MM,
    SLICE_STEP_MM,
    Features,
    make_scan,
    radiomics_settings,
)

_SEGMENTER = "phantom truth"
_EPOCH = date(2000, 1, 1)  # the last date lies 22 years later: a registry refuses dates in the future
_UNFINISHED = "unfinished.json"
_COMPUTED = "unfinished.jsonl"
#: Of a registry before format 2, with whole phantoms.
_OLD_VOLUMES = "scans"
_RISKS = tuple(f"risk_{h}y" for h in HORIZONS_YEARS)


@dataclass(frozen=True)
class Request:
    """What a registry is made of; the same request makes the same tables and volumes."""

    patients: int
    seed: int
    radiomics: bool = False
    volumes: bool = True

    def __post_init__(self) -> None:
        if self.patients < 1:
            raise UsageError(f"--patients is {self.patients}: give at least 1")


def make_registry(
    out: Path, request: Request, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write a registry to `out`. One that was broken off goes on where it was; a finished one is left as it is.

    Args:
        out: a new or empty folder, or one that an earlier call with the same request has begun.
        request: what to make.
        workers: processes; default: one for each core.
        progress: `progress(done, total)`, called after each scan.

    Returns:
        The number of scans.

    Raises:
        UsageError: the folder holds something else.
    """
    if _finished(out, request):
        return len(draw(request.patients, request.seed)[1])
    _claim(out, request)
    patients, scans = draw(request.patients, request.seed)
    computed = _compute(out, request, scans, workers, progress)
    write_csv(out / "scans.csv", SCAN_COLUMNS, (asdict(_scan_row(s, computed[s.scan], request)) for s in scans))
    write_csv(out / "outcomes.csv", OUTCOME_COLUMNS, map(_outcome_row, patients))
    truth = [dict(zip(_RISKS, s.risks, strict=True)) for s in scans]
    write_csv(
        out / "truth.csv",
        ("scan", "severity", *_RISKS),
        ({"scan": s.scan, "severity": round(s.severity, 6), **t} for s, t in zip(scans, truth, strict=True)),
    )
    write_features(out / "features.parquet", {s.scan: _measured(computed[s.scan]) for s in scans})
    _describe(out, request)  # the last: its presence means finished
    (out / _COMPUTED).unlink(missing_ok=True)
    (out / _UNFINISHED).unlink()
    return len(scans)


def _finished(out: Path, request: Request) -> bool:
    if not (out / DESCRIPTION).is_file():
        return False
    if read_description(out).get("request") != tomllib.loads(_stated(request)):
        raise UsageError(f"{out} holds another registry: give a new folder, so that none is overwritten")
    return True


def _claim(out: Path, request: Request) -> None:
    """Refuse a folder of something else, so that nothing is overwritten."""
    begun = out / _UNFINISHED
    if begun.is_file():
        if (out / _OLD_VOLUMES).is_dir():
            raise UsageError(f"{out} was begun by an older version, in another format: give a new folder")
        if begun.read_text(encoding="utf-8") != _stated(request):
            settings = ", ".join(begun.read_text(encoding="utf-8").split("\n")).strip(", ")
            raise UsageError(f"{out} was begun with {settings}: use the same settings, or a new folder")
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no registry is overwritten")
    (out / volumes.FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(begun, _stated(request).encode())


def _stated(request: Request) -> str:
    """Return the request as TOML."""
    return tomli_w.dumps(asdict(request))


def _compute(
    out: Path,
    request: Request,
    scans: Sequence[SyntheticScan],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Features]:
    """Images and features of every scan. Each result is a line of a file, so that a killed run loses none."""
    log = out / _COMPUTED
    computed = dict(_read_log(log))
    waiting = [s for s in scans if s.scan not in computed]
    # Spawned, not forked: a fork of a process with threads (torch has some) may hang.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        with log.open("a", encoding="utf-8") as file:
            futures = {
                pool.submit(make_scan, out, s, radiomics=request.radiomics, volume=request.volumes): s.scan
                for s in waiting
            }
            for future in as_completed(futures):
                name = futures[future]
                computed[name] = future.result()
                file.write(json.dumps({"scan": name, "features": computed[name]}) + "\n")
                file.flush()
                if progress:
                    progress(len(computed), len(scans))
    finally:
        pool.shutdown(cancel_futures=True)  # broken off: what has not begun is not waited for
    return computed


def _end_with_parent() -> None:
    """In a worker process: a killed parent must not leave it waiting for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_log(path: Path) -> Iterator[tuple[str, Features]]:
    """Yield the complete lines of the log; one that a kill has cut is removed."""
    if not path.is_file():
        return
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    for line in whole.splitlines():
        entry = json.loads(line)
        yield entry["scan"], entry["features"]


def _day(patient: Patient, years: float) -> str:
    return (_EPOCH + timedelta(days=patient.first_day + round(years * DAYS_PER_YEAR))).isoformat()


def _scan_row(scan: SyntheticScan, computed: Features, request: Request) -> ScanRow:
    step = round(computed["spacing_z_mm"], 3)
    return ScanRow(
        patient=scan.patient.patient,
        scan=scan.scan,
        date=_day(scan.patient, scan.years),
        age_years=round(scan.patient.age + scan.years, 2),
        sex=scan.patient.sex,
        manufacturer=scan.scanner.manufacturer,
        model=scan.scanner.model,
        kernel=scan.kernel,
        kernel_family=scan.kernel_family,
        slice_thickness_mm=step,
        spacing_z_mm=step,
        segmenter=_SEGMENTER,
        software_version=dicomnode.__version__,
        algorithm_digest=_digest(request),
        volume=volumes.volume_name(scan.scan) if request.volumes else "",
    )


def _outcome_row(patient: Patient) -> dict[str, object]:
    died = patient.death <= patient.contact
    last = _day(patient, patient.end)
    return {
        "patient": patient.patient,
        "death_date": last if died else "",
        "last_contact_date": last,
        "transplant_date": last if patient.transplanted else "",
    }


def _digest(request: Request) -> str:
    settings = dict(radiomics_settings()) if request.radiomics else None
    method = {"software": dicomnode.__version__, "segmenter": _SEGMENTER, "radiomics": settings}
    return hashlib.sha256(json.dumps(method, sort_keys=True).encode()).hexdigest()


def _measured(computed: Features) -> Features:
    return {name: value for name, value in computed.items() if name != "spacing_z_mm"}


def _describe(out: Path, request: Request) -> None:
    notes = (
        f"Phantoms of reduced resolution: slices {SLICE_STEP_MM[0]:g} to {SLICE_STEP_MM[1]:g} mm apart, voxels of "
        f"{IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} mm in the plane. The lungs are the phantom's true labels, not a "
        f"segmenter's. Radiomics, where there are any, at {RADIOMICS_MM:g} mm where the node takes 1 mm. No patient."
    )
    more = {"radiomics_spacing_mm": RADIOMICS_MM, "request": asdict(request)}
    write_description(out, "synthetic", [_digest(request)], notes, more)
