"""A registry from a folder of DICOM files that never went through the node, analysed by the node's own pipeline."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

import dicomnode
from dicomnode.analysis.lungs.segmenter import ClassicalSegmenter
from dicomnode.analysis.pipeline import Analysis, Method, analyse
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS
from dicomnode.analysis.risk.predict import age_years
from dicomnode.analysis.risk.tabular import names_of
from dicomnode.analysis.series.headers import ImageHeader, string, text
from dicomnode.analysis.series.selection import find_files, group, read_headers, studies
from dicomnode.errors import UsageError
from training.data import follow_up, pseudonyms
from training.data.pseudonyms import Pseudonyms
from training.data.registry_folder import FORMAT, SCANS
from training.files import digest, write_atomically
from training.progress_type import ProgressCallback


@dataclass(frozen=True)
class Made:
    """What `make_registry` wrote: the clinic's tables with pseudonyms, and why studies are not in the registry."""

    outcomes: Path
    covariates: Path | None
    refused: tuple[str, ...]


def make_registry(dicom: Path, out: Path, outcomes: Path, covariates: Path | None, progress: ProgressCallback) -> Made:
    """Analyse every study in `dicom` into the registry folder `out`. Broken off, it goes on where it was.

    The lungs are found by the classical segmenter. Patients and scans get pseudonyms and shifted dates by the key in
    `<out>.key`, which is made there.

    Args:
        dicom: DICOM files, in any order and depth.
        out: a new folder, or one that an earlier call has begun.
        outcomes: as `training.data.follow_up` says, but by Patient ID and true dates.
        covariates: likewise; None for none.
        progress: told about each study.

    Raises:
        UsageError: the tables do not fit (told before any scan is analysed), a folder is wrong, or nothing in it can be
            analysed.
    """
    if not dicom.is_dir():
        raise UsageError(f"{dicom} is no folder: give one with DICOM files")
    if out.exists() and any(out.iterdir()) and not (out / "studies").is_dir():
        raise UsageError(f"{out} holds something else: give a new folder")
    names = pseudonyms.of_file(out.with_name(f"{out.name}.key"))
    follow_up.read_outcomes(outcomes, names.read_patient)
    if covariates is not None:
        follow_up.read_covariates(covariates, names.read_patient)
    (out / "studies").mkdir(parents=True, exist_ok=True)  # first: by it a later call knows its own folder
    tables = {
        name: pseudonyms.pseudonymise(path, out / f"{name}.csv", pseudonyms.TABLES[name], names)
        for name, path in (("outcomes", outcomes), ("covariates", covariates))
        if path is not None
    }
    method = Method(ClassicalSegmenter(), DEFAULT_SETTINGS, None)
    found = list(studies(group(read_headers(find_files(dicom))[0])).items())
    entries = []
    for number, (uid, series) in enumerate(found):
        progress("Analysing studies", number, len(found))
        kept = out / "studies" / f"{digest(names.key.hex(), method.digest, uid)[:32]}.json"
        if not kept.is_file():
            entry = _entry([h for s in series for h in s.headers], method, names, out)
            write_atomically(kept, json.dumps(entry))
        entries.append((uid, json.loads(kept.read_text(encoding="utf-8"))))
    progress("Analysing studies", len(found), len(found))
    analysed = [entry for _, entry in entries if "row" in entry]
    refused = tuple(f"study {uid}: {entry['refused']}" for uid, entry in entries if "refused" in entry)
    if not analysed:
        raise UsageError(f"{dicom}: none of {len(found)} studies can be analysed: " + "; ".join(refused[:5]))
    _write_tables(out, method, analysed)
    return Made(tables["outcomes"], tables.get("covariates"), refused)


def _entry(headers: Iterable[ImageHeader], method: Method, names: Pseudonyms, out: Path) -> dict[str, object]:
    """Return a study's row and features, or why it has none; write its volume."""
    analysis = analyse(list(dict.fromkeys(h.path for h in headers)), method)
    findings = analysis.findings
    if findings.status == "refused" or findings.series is None or analysis.volume is None:
        codes = sorted({reason.code for series in findings.rejected for reason in series.reasons})
        return {"refused": f"no suitable chest CT ({', '.join(codes)})"}
    if doubts := [flag.code for flag in findings.flags if flag.severity == "error"]:
        return {"refused": f"the lungs are in doubt ({', '.join(doubts)})"}
    patient_id, taken = text(analysis.headers[0], "PatientID"), _day(findings.series.study_date)
    if not patient_id or taken is None:
        return {"refused": "there is no Patient ID" if not patient_id else "there is no Study Date"}
    scan = names.scan(findings.series.series_uid, findings.series.part)
    _write_volume(out / "volumes" / f"{scan}.npz", analysis)
    radiomics = {} if findings.radiomics is None else findings.radiomics.features
    return {
        "row": _row(analysis, scan, patient_id, taken, names),
        "features": names_of(findings.quantities, radiomics),
    }


def _row(analysis: Analysis, scan: str, patient_id: str, taken: date, names: Pseudonyms) -> dict[str, object]:
    findings, first = analysis.findings, analysis.headers[0]
    series, lungs = findings.series, findings.lungs
    assert series is not None
    assert lungs is not None
    age = age_years(findings, first)
    sex = string(first, "PatientSex").upper()
    return {
        "patient": names.patient(patient_id),
        "scan": scan,
        "date": names.shifted(patient_id, taken).isoformat(),
        "age_years": "" if age is None else age,
        "sex": sex if sex in ("F", "M", "O") else "",
        "manufacturer": series.manufacturer,
        "model": series.manufacturer_model,
        "kernel": series.kernel,
        "kernel_family": series.kernel_family,
        "slice_thickness_mm": _readable("slice_thickness_mm", series.slice_thickness_mm),
        "spacing_z_mm": series.spacing_mm[0],
        "segmenter": f"{lungs.segmenter} {lungs.segmenter_version}",
        "software_version": findings.software_version,
        "algorithm_digest": findings.algorithm_digest,
        "volume": f"volumes/{scan}.npz",
    }


def _day(text_: str) -> date | None:
    try:
        return datetime.strptime(text_.replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def _readable(column: str, value: float | None) -> float | str:
    """Return the value, or none where the registry would not read it again: some scanners write a thickness of 0."""
    try:
        SCANS[column]("" if value is None else str(value))
    except ValueError:
        return ""
    return "" if value is None else value


def _write_volume(path: Path, analysis: Analysis) -> None:
    volume = analysis.volume
    assert volume is not None
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        hu=volume.hu,
        labels=np.asarray(analysis.labels),
        spacing_mm=np.array(volume.spacing_mm),
        origin_mm=np.array(volume.origin_mm),
    )
    write_atomically(path, packed.getvalue())


def _write_tables(out: Path, method: Method, entries: list[dict[str, dict[str, object]]]) -> None:
    rows = pd.DataFrame([e["row"] for e in entries], columns=list(SCANS)).sort_values(["patient", "date", "scan"])
    features = pd.DataFrame([e["features"] for e in entries], dtype=np.float64)
    features.insert(0, "scan", [e["row"]["scan"] for e in entries])
    write_atomically(out / "features.parquet", features.to_parquet(index=False))
    write_atomically(out / "scans.csv", rows.to_csv(index=False))
    about = {
        "format": FORMAT,
        "made_by": "training",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software_version": dicomnode.__version__,
        "algorithm_digest": method.digest,
        "notes": "analysed by `training cohort --dicom`; pseudonyms and shifted dates by the key beside this folder",
    }
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in about.items())
    write_atomically(out / "registry.toml", "".join(lines))
