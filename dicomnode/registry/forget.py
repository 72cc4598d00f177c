"""A patient who is to leave the registry."""

from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.intake.identity import patient_hash
from dicomnode.intake.registry_rows import RegistryRows
from dicomnode.registry import pseudonyms


def forget(folder: Path, rows: RegistryRows, patient: str, issuer: str, *, is_pseudonym: bool, now: float) -> int:
    """Remove a patient's rows and volumes, and keep the next scans out. Returns how many volumes were removed.

    Args:
        folder: of the key and the volumes.
        rows: the registry's rows.
        patient: Patient ID, or a pseudonym.
        issuer: of the Patient ID; "" where the images name none.
        is_pseudonym: what `patient` is.
        now: UTC seconds since 1970.

    Raises:
        UsageError: the patient is empty, or the key cannot be read.
        SpoolError: the database failed.
    """
    if not patient.strip():
        raise UsageError("there is no patient: give a Patient ID, or a pseudonym with --pseudonym")
    names = pseudonyms.load(folder)
    name = patient if is_pseudonym else names.patient(patient_hash(patient.strip().encode(), issuer.strip().encode()))
    volumes = rows.leave_registry(name, now)
    for volume in volumes:
        Path(volume).unlink(missing_ok=True)
    return len(volumes)
