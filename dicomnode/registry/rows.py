"""From an analysis to its row in the catalogue's registry."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from pydicom import Dataset

from dicomnode.analysis.findings import Findings, Risk
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.registry_format.rows import measured, scan_row
from dicomnode.store.catalog.registry import RegistryRisk, RegistryScan


def row(
    findings: Findings, header: Dataset, patient_hash: str, names: Pseudonyms, *, volume: str, now: float
) -> RegistryScan | None:
    """Make the registry's row of an analysed scan. None: the study has no usable date, so it has no place in time.

    Args:
        findings: of an analysed study.
        header: of any of its images.
        patient_hash: the catalogue's (`store.records.Instance`).
        names: the node's pseudonyms.
        volume: the file with the lungs' voxels, or "".
        now: UTC seconds since 1970.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    found = scan_row(findings, header, patient_hash, names, volume=volume, today=today)
    if found is None:
        return None
    return RegistryScan(
        **asdict(found),
        doubts=" ".join(sorted({f.code for f in findings.flags if f.severity == "error"})),
        features=measured(findings),
        recorded_at=now,
    )


def risks(scan: RegistryScan, served: Risk | None, shadow: Risk | None, now: float) -> Iterator[RegistryRisk]:
    """Yield what the served bundle and the candidate beside it said of the scan."""
    for risk, is_served in ((served, True), (shadow, False)):
        if risk is not None:
            yield RegistryRisk(
                scan=scan.scan,
                bundle_sha256=risk.bundle_sha256,
                patient=scan.patient,
                bundle=risk.bundle,
                version=risk.version,
                served=is_served,
                risk={h.years: h.probability for h in risk.horizons},
                recorded_at=now,
            )
