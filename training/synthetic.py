"""A synthetic registry with a known truth: serial phantom scans of synthetic patients, outcomes, features.

Its folder is a registry like the node's (`registry.toml`, `scans.csv`, `features.parquet`), with `outcomes.csv` beside
it. The generator's own risk is kept in `truth.csv`, which nothing but the evaluation's oracle reads: its AUC is the
best that any model of these scans could reach.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import dicomnode
from dicomnode.analysis import quantify
from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.phantom import Disease, Phantom, chest
from dicomnode.analysis.phantom import Scanner as Acquisition
from dicomnode.errors import UsageError
from training.outcome import DAYS_PER_YEAR, HORIZONS_YEARS
from training.synthetic_patients import Patient, Scan, draw

#: Of the phantoms, drawn for each scan: slice step and in-plane voxel, mm. A clinical scan has 0.6 to 1.5 and 0.7.
SLICE_STEP_MM, IN_PLANE_MM = (4.5, 6.0), (3.0, 4.0)
#: Radiomics are computed at this voxel, mm, where the node takes 1: the phantoms hold no finer detail.
RADIOMICS_MM = 4.0
_SEGMENTER = "phantom truth"
_EPOCH = date(2008, 1, 1)
_UNFINISHED = "unfinished.json"
_COMPUTED = "unfinished.jsonl"

Features = dict[str, float]


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
    _write_csv(out / "scans.csv", [_scan_row(s, computed[s.scan], request) for s in scans])
    _write_csv(out / "outcomes.csv", [_outcome_row(p) for p in patients])
    truth = [dict(zip((f"risk_{h}y" for h in HORIZONS_YEARS), s.risks, strict=True)) for s in scans]
    _write_csv(
        out / "truth.csv",
        [{"scan": s.scan, "severity": round(s.severity, 6), **t} for s, t in zip(scans, truth, strict=True)],
    )
    _write_features(out / "features.parquet", scans, computed)
    (out / "registry.toml").write_text(_description(request), encoding="utf-8")  # the last: its presence means finished
    (out / _COMPUTED).unlink(missing_ok=True)
    (out / _UNFINISHED).unlink()
    return len(scans)


def _finished(out: Path, request: Request) -> bool:
    if not (out / "registry.toml").is_file():
        return False
    if f"request = {_stated(request)}" not in (out / "registry.toml").read_text(encoding="utf-8").splitlines():
        raise UsageError(f"{out} holds another registry: give a new folder, so that none is overwritten")
    return True


def _claim(out: Path, request: Request) -> None:
    """Refuse a folder of something else, so that nothing is overwritten."""
    begun = out / _UNFINISHED
    if begun.is_file():
        if begun.read_text(encoding="utf-8") != _stated(request):
            raise UsageError(f"{out} was begun with {begun.read_text(encoding='utf-8')}: repeat that, or a new folder")
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no registry is overwritten")
    (out / "scans").mkdir(parents=True, exist_ok=True)
    begun.write_text(_stated(request), encoding="utf-8")


def _stated(request: Request) -> str:
    """The request as a TOML inline table."""
    return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in asdict(request).items()) + "}"


def _compute(
    out: Path,
    request: Request,
    scans: Sequence[Scan],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Features]:
    """Images and features of every scan. Each result is a line of a file, so that a killed run loses none."""
    log = out / _COMPUTED
    computed = dict(_read_log(log))
    waiting = [s for s in scans if s.scan not in computed]
    # Spawned, not forked: a fork of a process with threads (torch has some) may hang.
    pool = ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn"))
    with pool, log.open("a", encoding="utf-8") as file:
        futures = {pool.submit(_make_scan, out, request, s): s.scan for s in waiting}
        for future in as_completed(futures):
            name = futures[future]
            computed[name] = future.result()
            file.write(json.dumps({"scan": name, "features": computed[name]}) + "\n")
            file.flush()
            if progress:
                progress(len(computed), len(scans))
    return computed


def _read_log(path: Path) -> Iterator[tuple[str, Features]]:
    """The complete lines of the log; one that a kill has cut is removed."""
    if not path.is_file():
        return
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    for line in whole.splitlines():
        entry = json.loads(line)
        yield entry["scan"], entry["features"]


def _make_scan(out: Path, request: Request, scan: Scan) -> Features:
    """In a worker process: the phantom, its volume on disk, its features."""
    phantom = scan_phantom(scan)
    if request.volumes:
        _write_volume(out / _volume_name(scan), phantom)
    regions = quantify.by_region(phantom.volume, phantom.labels)
    found = {f"quantities.{region}.{k}": v for region, q in regions.items() for k, v in asdict(q).items()}
    if request.radiomics:
        found |= _radiomics(phantom)
    return {**found, "spacing_z_mm": phantom.volume.spacing_mm[0]}


def scan_phantom(scan: Scan) -> Phantom:
    """The image of a scan: disease from its severity, noise and kernel from its scanner, breath and voxels its own."""
    rng = np.random.default_rng([scan.seed, 3])
    z, yx = float(rng.uniform(*SLICE_STEP_MM)), float(rng.uniform(*IN_PLANE_MM))
    usual, fibrosis = Disease.of_severity(scan.severity), scan.patient.fibrosis
    mixed = {
        "ground_glass": usual.ground_glass * (2 - fibrosis),
        "reticulation": usual.reticulation * fibrosis,
        "honeycombing": usual.honeycombing * fibrosis,
    }
    varied = {k: v * rng.uniform(0.92, 1.08) for k, v in mixed.items()}
    breath = rng.normal(0, 0.05)  # how far the diaphragm stood from where full inspiration would have it
    disease = {k: float(np.clip(v, 0, 1)) for k, v in {**varied, "volume_loss": usual.volume_loss + breath}.items()}
    noise = scan.scanner.noise_hu * float(rng.uniform(0.8, 1.25))
    return chest(
        scan.seed,
        shape=(round(285 / z), round(255 / yx), round(330 / yx)),
        spacing_mm=(z, yx, yx),
        disease=Disease(**disease),
        scanner=Acquisition(noise_hu=noise, sharpness=scan.sharpness),
        person=scan.patient.person,
    )


def radiomics_settings() -> Mapping[str, Any]:
    """The node's settings at the registry's resolution."""
    from dicomnode.analysis.radiomics import DEFAULT_SETTINGS  # noqa: PLC0415 (imports PyRadiomics)

    return {
        **DEFAULT_SETTINGS,
        "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": [RADIOMICS_MM] * 3},
    }


def _radiomics(phantom: Phantom) -> Features:
    from dicomnode.analysis import radiomics  # noqa: PLC0415 (imports PyRadiomics)

    masks = {"lungs": phantom.labels > 0, "right": phantom.labels == RIGHT, "left": phantom.labels == LEFT}
    settings = radiomics_settings()
    return {
        f"radiomics.{region}.{name}": value
        for region, mask in masks.items()
        for name, value in radiomics.extract(phantom.volume, mask, settings).items()
    }


def _volume_name(scan: Scan) -> str:
    return f"scans/{scan.scan}.npz"


def _write_volume(path: Path, phantom: Phantom) -> None:
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            hu=phantom.volume.hu,
            labels=phantom.labels,
            spacing_mm=np.array(phantom.volume.spacing_mm),
            origin_mm=np.array(phantom.volume.origin_mm),
        )
    partial.rename(path)


def _day(patient: Patient, years: float) -> str:
    return (_EPOCH + timedelta(days=patient.first_day + round(years * DAYS_PER_YEAR))).isoformat()


def _scan_row(scan: Scan, computed: Features, request: Request) -> dict[str, object]:
    step = round(computed["spacing_z_mm"], 3)
    return {
        "patient": scan.patient.patient,
        "scan": scan.scan,
        "date": _day(scan.patient, scan.years),
        "age_years": round(scan.patient.age + scan.years, 2),
        "sex": scan.patient.sex,
        "manufacturer": scan.scanner.manufacturer,
        "model": scan.scanner.model,
        "kernel": scan.kernel,
        "kernel_family": scan.kernel_family,
        "slice_thickness_mm": step,
        "spacing_z_mm": step,
        "segmenter": _SEGMENTER,
        "software_version": dicomnode.__version__,
        "algorithm_digest": _digest(request),
        "volume": _volume_name(scan) if request.volumes else "",
    }


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


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_features(path: Path, scans: Sequence[Scan], computed: Mapping[str, Features]) -> None:
    import pandas as pd  # noqa: PLC0415 (the worker processes do without)

    rows = [{k: v for k, v in computed[s.scan].items() if k != "spacing_z_mm"} for s in scans]
    table = pd.DataFrame(rows, dtype="float64")
    table.insert(0, "scan", [s.scan for s in scans])
    table.to_parquet(path, index=False)


def _description(request: Request) -> str:
    notes = (
        f"Phantoms of reduced resolution: slices {SLICE_STEP_MM[0]:g} to {SLICE_STEP_MM[1]:g} mm apart, voxels of "
        f"{IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} mm in the plane. The lungs are the phantom's true labels, not a "
        f"segmenter's. Radiomics, where there are any, at {RADIOMICS_MM:g} mm where the node takes 1 mm. No patient."
    )
    return (
        f'format = 1\nmade_by = "synthetic"\ncreated = {datetime.now(UTC).isoformat(timespec="seconds")}\n'
        f"software_version = {json.dumps(dicomnode.__version__)}\nalgorithm_digest = {json.dumps(_digest(request))}\n"
        f"notes = {json.dumps(notes)}\nrequest = {_stated(request)}\n"
    )
