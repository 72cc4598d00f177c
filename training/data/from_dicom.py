"""A registry from a folder of DICOM files that never went through the node, analysed by the node's own pipeline.

It is what a node that received these files would export (`registry_format`): measured on the whole images, of which the
lungs alone are stored. The folder `analysed` in it keeps what each study gave, so that a call that was broken off goes
on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS
from dicomnode.analysis.series.headers import text
from dicomnode.analysis.series.selection import Series, find_files, group, read_headers, studies
from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from dicomnode.registry_format import pseudonyms
from dicomnode.registry_format.description import NAME as DESCRIPTION
from dicomnode.registry_format.description import write_description
from dicomnode.registry_format.identity import one_patient
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.registry_format.rows import SCAN_COLUMNS, measured, scan_row
from dicomnode.registry_format.tables import write_csv, write_features
from dicomnode.registry_format.volumes import volume_name, write_volume
from training.data import clinic_tables, follow_up
from training.files import digest
from training.progress_type import ProgressCallback

_ANALYSED = "analysed"
#: Of the folder before format 2.
_OLD_ANALYSED = "studies"


@dataclass(frozen=True)
class Made:
    """What `make_registry` wrote: the clinic's tables with pseudonyms, and why studies are not in the registry."""

    outcomes: Path
    covariates: Path | None
    refused: tuple[str, ...]


def make_registry(
    dicom: Path,
    out: Path,
    outcomes: Path,
    covariates: Path | None,
    progress: ProgressCallback,
    stated: Mapping[str, object] | None = None,
) -> Made:
    """Analyse every study in `dicom` into the registry folder `out`. Broken off, it goes on where it was.

    The lungs are found by the classical segmenter. Patients and scans get pseudonyms and shifted dates by the key in
    `<out>.key`, which is made there.

    Args:
        dicom: DICOM files, in any order and depth.
        out: a new folder, or one that an earlier call has begun.
        outcomes: as `training.data.follow_up` says, but by Patient ID (and issuer) and true dates: see
            `clinic_tables`.
        covariates: likewise; None for none.
        progress: told about each study.
        stated: who the patients are (`registry_format.provenance`), for registry.toml.

    Raises:
        UsageError: the tables do not fit (told before any scan is analysed), a folder is wrong, or nothing in it can be
            analysed.
    """
    if not dicom.is_dir():
        raise UsageError(f"{dicom} is no folder: give one with DICOM files")
    _check_folder(out)
    lost = f"remove it and {out}, and make the registry anew"
    names = pseudonyms.load(out.with_name(f"{out.name}.key"), lost)
    given = {name: path for name, path in (("outcomes", outcomes), ("covariates", covariates)) if path is not None}
    reader = partial(clinic_tables.read, names=names)
    follow_up.read_outcomes(outcomes, reader)
    if covariates is not None:
        follow_up.read_covariates(covariates, reader)
    found = studies(group(read_headers(find_files(dicom))[0]))
    patients = {uid: _patients(series) for uid, series in found.items()}
    for name, path in given.items():
        clinic_tables.check_issuers(path, clinic_tables.TABLES[name], _issuers(patients.values()))
    (out / _ANALYSED).mkdir(parents=True, exist_ok=True)  # first: by it a later call knows its own folder
    tables = {
        name: clinic_tables.pseudonymise(path, out / f"{name}.csv", clinic_tables.TABLES[name], names)
        for name, path in given.items()
    }
    method = Method(ClassicalSegmenter(), DEFAULT_SETTINGS, None)
    entries = []
    for number, (uid, series) in enumerate(found.items()):
        progress("Analysing studies", number, len(found))
        kept = out / _ANALYSED / f"{digest(names.key.hex(), method.digest, uid)[:32]}.json"
        if not kept.is_file():
            entry = _entry(series, one_patient(patients[uid]), method, names, out)
            write_whole(kept, json.dumps(entry))
        entries.append((uid, json.loads(kept.read_text(encoding="utf-8"))))
    progress("Analysing studies", len(found), len(found))
    analysed = [entry for _, entry in entries if "row" in entry]
    refused = tuple(f"study {uid}: {entry['refused']}" for uid, entry in entries if "refused" in entry)
    if not analysed:
        raise UsageError(f"{dicom}: none of {len(found)} studies can be analysed: " + "; ".join(refused[:5]))
    _write_tables(out, method, analysed, stated or {})
    return Made(tables["outcomes"], tables.get("covariates"), refused)


def _check_folder(out: Path) -> None:
    """Raise UsageError unless the folder is new, empty, or one that a call has begun."""
    if not out.exists() or not any(out.iterdir()) or (out / _ANALYSED).is_dir():
        return
    if (out / _OLD_ANALYSED).is_dir():
        raise UsageError(
            f"{out} was begun by an older version, which kept more of the patients' bodies than their lungs and took "
            "patients of two issuers with one Patient ID for one: give a new folder (--registry), and delete this one"
        )
    raise UsageError(f"{out} holds something else: give a new folder")


def _patients(series: Sequence[Series]) -> dict[str, str]:
    """Whose a study's images are: the issuer's text by the patient's hash, usually one."""
    return dict(_patient(h.dataset) for s in series for h in s.headers)


def _issuers(patients: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the issuer's text by the hash of each study's one patient."""
    return {one: of_study[one] for of_study in patients if (one := one_patient(of_study)) is not None}


def _patient(dataset: Dataset) -> tuple[str, str]:
    issuer = text(dataset, "IssuerOfPatientID")
    return clinic_tables.text_hash(text(dataset, "PatientID"), issuer), issuer


def _entry(series: Sequence[Series], patient: str | None, method: Method, names: Pseudonyms, out: Path) -> object:
    """Return a study's row and features, or why it has none; write its volume."""
    analysis = analyse(list(dict.fromkeys(h.path for s in series for h in s.headers)), method)
    findings = analysis.findings
    if findings.status == "refused" or analysis.volume is None or analysis.labels is None:
        codes = sorted({reason.code for series in findings.rejected for reason in series.reasons})
        return {"refused": f"no suitable chest CT ({', '.join(codes)})"}
    if doubts := [flag.code for flag in findings.flags if flag.severity == "error"]:
        return {"refused": f"the lungs are in doubt ({', '.join(doubts)})"}
    if patient is None:
        return {"refused": "there is no Patient ID"}
    assert findings.series is not None, "only of an analysed study"
    volume = volume_name(names.scan(findings.series.study_uid))
    row = scan_row(findings, analysis.headers[0], patient, names, volume=volume, today=_today())
    if row is None:
        return {"refused": "there is no Study Date, or none that can be"}
    write_volume(out / volume, analysis.volume, analysis.labels)
    return {"row": asdict(row), "features": measured(findings)}


def _today() -> date:
    return datetime.now(UTC).date()


def _write_tables(
    out: Path, method: Method, entries: Sequence[Mapping[str, Mapping[str, Any]]], stated: Mapping[str, object]
) -> None:
    (out / DESCRIPTION).unlink(missing_ok=True)  # until the tables are those of this call
    entries = sorted(entries, key=lambda e: [str(e["row"][k]) for k in ("patient", "date", "scan")])
    write_features(out / "features.parquet", {str(e["row"]["scan"]): e["features"] for e in entries})
    write_csv(out / "scans.csv", SCAN_COLUMNS, (e["row"] for e in entries))
    notes = "analysed by `training cohort --dicom`; pseudonyms and shifted dates by the key beside this folder"
    write_description(out, "training", [method.digest], notes, {k: v for k, v in stated.items() if v})
