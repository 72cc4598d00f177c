"""A patient who is to leave the registry."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.registry.key import load_pseudonyms
from dicomnode.registry_format.identity import patient_hash
from dicomnode.registry_format.pseudonyms import is_pseudonym as has_form
from dicomnode.registry_format.volumes import FOLDER, is_volume
from dicomnode.store.catalog.registry import RegistryRows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Forgotten:
    """How much of the patient was removed."""

    scans: int
    outcomes: int
    volumes: int

    @property
    def nothing(self) -> bool:
        """The registry held nothing: most likely the patient is in it under another name."""
        return not (self.scans or self.outcomes or self.volumes)


def forget(folder: Path, rows: RegistryRows, patient: str, issuer: str, *, is_pseudonym: bool, now: float) -> Forgotten:
    """Remove a patient's rows and volumes, and keep the next scans out, also where nothing was held.

    Args:
        folder: of the key and the volumes.
        rows: the registry's rows.
        patient: Patient ID, or a pseudonym.
        issuer: of the Patient ID; "" where the images name none.
        is_pseudonym: what `patient` is.
        now: UTC seconds since 1970.

    Raises:
        UsageError: the patient is empty or no pseudonym, or the key cannot be read.
        SpoolError: the database failed.
    """
    patient = patient.strip()
    if not patient:
        raise UsageError("no patient given: give a Patient ID, or a pseudonym with --pseudonym")
    if is_pseudonym and not has_form(patient):
        raise UsageError("not a pseudonym (32 of 0-9 and a-f): correct it, or omit --pseudonym")
    if is_pseudonym and issuer:
        raise UsageError("a pseudonym has no issuer: omit --issuer, or --pseudonym")
    names = load_pseudonyms(folder)
    name = patient if is_pseudonym else names.patient(patient_hash(patient.encode(), issuer.strip().encode()))
    # Before the rows that name them: where this is stopped in between, the next call finds what is left.
    removed = _remove(folder, (s.volume for s in rows.registry_scans() if s.patient == name and s.volume))
    left = rows.leave_registry(name, now)
    return Forgotten(left.scans, left.outcomes, removed + _remove(folder, left.volumes))


def _remove(folder: Path, volumes: Iterable[str]) -> int:
    """Delete files of volumes, as rows name them: one that is no volume of a registry stays, and is told."""
    removed = 0
    for volume in volumes:
        path = Path(volume)
        if not is_volume(path):
            log.error("a row of the registry names as its volume what is none: not removed")
            continue
        # The registry's folder may have been moved since the row was written.
        for place in {path, folder / FOLDER / path.name}:
            removed += place.exists()
            place.unlink(missing_ok=True)
    return removed
