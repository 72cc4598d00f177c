"""A worker's part: after each analysis its scan goes into the registry. Nothing here may hold up or stop a result."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode import logs
from dicomnode.analysis.findings import Findings, Risk
from dicomnode.analysis.measures.change import latest_before
from dicomnode.analysis.pipeline import Analysis
from dicomnode.analysis.risk.predict import predict
from dicomnode.analysis.series.headers import read_source
from dicomnode.config import RegistryTable
from dicomnode.errors import DicomnodeError
from dicomnode.registry import rows
from dicomnode.registry.key import load_pseudonyms
from dicomnode.registry_format.identity import one_patient
from dicomnode.registry_format.volumes import is_volume, volume_name, write_volume
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.patient_key import unkeyed

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle

log = logging.getLogger(__name__)


def keep(
    table: RegistryTable,
    catalog: Catalog,
    analysis: Analysis,
    priors: Sequence[Findings],
    shadow: "Bundle | None",
    *,
    now: float,
) -> bool:
    """Note an analysed scan, and what the candidate says of it; where that fails, the log says so.

    Args:
        table: the configuration's.
        catalog: the catalogue.
        analysis: of the scan.
        priors: findings of the patient's other scans (`pipeline.analyse`).
        shadow: the candidate, if one runs.
        now: UTC seconds since 1970.

    Returns:
        Whether the scan is in the registry.
    """
    if not table.record:
        return False
    series = analysis.findings.series
    assert series is not None
    try:
        kept = _keep(table, catalog, analysis, _shadow_risk(analysis, priors, shadow), now)
    except Exception as error:  # noqa: BLE001  (the analysis is done: its result goes out, whatever happens here)
        _tell(error, "study %s not recorded in the registry", series.study_uid)
        return False
    if not kept:
        withdraw(table, catalog, series.study_uid)  # an earlier generation may have been somebody else's
    return kept


def keep_corrected(table: RegistryTable, catalog: Catalog, findings: Findings, image: Path, *, now: float) -> bool:
    """Note a scan whose patient or study was corrected while its images stayed: its measurements and voxels stand.

    Args:
        table: the configuration's.
        catalog: the catalogue.
        findings: of the corrected scan.
        image: any of its images.
        now: UTC seconds since 1970.

    Returns:
        Whether the scan is in the registry.
    """
    if not table.record:
        return False
    assert findings.series is not None
    try:
        analysis = Analysis(findings, (read_source(image),))
        if _keep(table, catalog, analysis, None, now):
            return True
    except Exception as error:  # noqa: BLE001  (as above)
        _tell(error, "study %s not recorded in the registry", findings.series.study_uid)
    withdraw(table, catalog, findings.series.study_uid)  # else it would stay another patient's
    return False


def withdraw(table: RegistryTable, catalog: Catalog, study_uid: str) -> None:
    """Take a scan out of the registry, whose study has no result any more, or whose patient nobody can tell."""
    if not table.record:
        return
    try:
        names = load_pseudonyms(table.folder)
        volume = catalog.withdraw_scan(names.scan(study_uid))
        if volume and is_volume(Path(volume)):
            Path(volume).unlink(missing_ok=True)
    except Exception as error:  # noqa: BLE001  (as above)
        _tell(error, "study %s not taken out of the registry", study_uid)


def _keep(table: RegistryTable, catalog: Catalog, analysis: Analysis, shadow: Risk | None, now: float) -> bool:
    findings = analysis.findings
    assert findings.series is not None
    study_uid = findings.series.study_uid
    instances = [i for i in catalog.instances(study_uid) if not i.is_note]
    keyed = one_patient({i.patient_hash for i in instances})
    if keyed is None:
        # Under one pseudonym, the scans of many would be one patient's.
        log.warning("study %s not recorded in the registry: no Patient ID, or more than one", study_uid)
        return False
    # Pseudonyms are made of what training too can make from the images: of the hash without the catalogue's key.
    theirs = (unkeyed(catalog.patient_key, keyed, Path(i.path)) for i in instances if i.patient_hash == keyed)
    patient = next((p for p in theirs if p is not None), None)
    if patient is None:
        log.warning("study %s not recorded in the registry: no image that tells its patient can be read", study_uid)
        return False
    names = load_pseudonyms(table.folder)
    path = table.folder / volume_name(names.scan(study_uid)) if table.volumes else None
    volume = "" if path is None else str(path)
    row = rows.row(findings, analysis.headers[0], patient, names, volume=volume, now=now)
    if row is None:
        log.warning("study %s not recorded in the registry: no usable Study Date", study_uid)
        return False
    # The row first: where the patient was forgotten, no voxel is written.
    if not catalog.put_scan(row, rows.risks(row, findings.risk, shadow, now)):
        return False
    if path is not None and analysis.volume is not None:  # of a corrected scan the volume is there
        assert analysis.labels is not None
        write_volume(path, analysis.volume, analysis.labels)
    return True


def _shadow_risk(analysis: Analysis, priors: Sequence[Findings], shadow: "Bundle | None") -> Risk | None:
    """Return what the candidate says; None where there is none, where no risk may be given, or where it fails."""
    doubtful = any(f.severity == "error" for f in analysis.findings.flags)
    if shadow is None or doubtful or analysis.volume is None or analysis.labels is None:
        return None
    start = time.perf_counter()
    try:
        before = latest_before(analysis.findings, priors)
        risk = predict(shadow, analysis.findings, analysis.headers[0], analysis.volume, analysis.labels, before)
    except Exception as error:  # noqa: BLE001  (the scan goes into the registry without the candidate's word)
        _tell(error, "shadow bundle %s %s gave no prediction for this scan", shadow.name, shadow.version)
        return None
    log.info("shadow bundle %s %s ran in %.1f s", shadow.name, shadow.version, time.perf_counter() - start)
    return risk


def _tell(error: Exception, message: str, *args: object) -> None:
    """Log an error: our own texts name no patient, but those of other libraries may."""
    if isinstance(error, DicomnodeError | OSError):
        log.error(f"{message}: %s", *args, error)
    else:
        logs.log_unexpected(log, error, message, *args)
