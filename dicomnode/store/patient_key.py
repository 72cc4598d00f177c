"""The key under which the catalogue knows patients: whoever reads the database alone cannot try Patient IDs.

It lies beside the state, never in the database, and is made with the catalogue. Several machines on one PostgreSQL
share it: the database holds a fingerprint, and a process with another key does not start.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.errors import SpoolError, UsageError
from dicomnode.registry_format import pseudonyms
from dicomnode.registry_format.identity import NO_PATIENT_ID, PATIENT_ID_DIGITS
from dicomnode.store.identity import whose

KEY_FILE = "patient.key"
_LOST = (
    "remove it and the row of the table patient_keys: a new key is made at the next start, and prior scans that came "
    "before are not found any more"
)


@dataclass(frozen=True)
class PatientKey:
    """Makes the catalogue's hashes (HMAC-SHA-256, RFC 2104) of those that anybody can make; the key is not shown."""

    key: bytes = field(repr=False)

    def keyed(self, patient_hash: str) -> str:
        """Return the catalogue's form of a hash (`identity.patient_hash`): ID and issuer each by itself.

        An empty Patient ID stays as it is: it is nobody's, and code tells it by its value.
        """
        patient_id, issuer = patient_hash[:PATIENT_ID_DIGITS], patient_hash[PATIENT_ID_DIGITS:]
        if patient_id != NO_PATIENT_ID:
            patient_id = self.digest("id", patient_id)[:PATIENT_ID_DIGITS]
        return patient_id + (self.digest("issuer", issuer)[:PATIENT_ID_DIGITS] if issuer else "")

    def whose(self, item: Dataset) -> str:
        """Return the catalogue's patient hash of a data set whose elements have not been decoded yet."""
        return self.keyed(whose(item))

    def order(self, digest: str) -> str:
        """Return the catalogue's form of an order's key: its parts, Patient ID among them, could be tried too."""
        return self.digest("order", digest)

    @property
    def fingerprint(self) -> str:
        """What the database may know of the key."""
        return self.digest("fingerprint", "")

    def digest(self, use: str, text: str) -> str:
        """Return 64 hex digits."""
        return hmac.new(self.key, f"{use}:{text}".encode(), hashlib.sha256).hexdigest()


def load(folder: Path, fingerprint: str | None) -> PatientKey:
    """Read the key, or make it where the database knows of none.

    Args:
        folder: `storage.state`.
        fingerprint: of the key under which the database's rows stand; None where there are none yet.

    Raises:
        SpoolError: the file is missing, another database's, damaged, or cannot be read or made.
    """
    path = folder / KEY_FILE
    cure = (
        f"copy {KEY_FILE} from the storage.state of the machine that made the database, or from the backup; if it is "
        f"lost, {_LOST}"
    )
    if fingerprint is not None and not path.exists():
        raise SpoolError(f"{path} is missing, and the catalogue's patients are known by it: {cure}")
    try:
        found = PatientKey(pseudonyms.load(path, _LOST).key)
    except UsageError as error:
        raise SpoolError(str(error)) from None
    if fingerprint is not None and not hmac.compare_digest(found.fingerprint, fingerprint):
        raise SpoolError(f"{path} is not the key of this catalogue: {cure}")
    return found


def unkeyed(key: PatientKey, keyed: str, path: Path) -> str | None:
    """Return the hash (`identity.patient_hash`) behind a keyed one, from an image of the patient.

    None where the image is not that patient's, or cannot be read.
    """
    try:
        item = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "IssuerOfPatientID"])
    except Exception:  # noqa: BLE001  (a damaged file: the caller has others)
        return None
    found = whose(item)
    return found if key.keyed(found) == keyed else None
