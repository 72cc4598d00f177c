"""What researchers see in place of a patient and a study: the registry's pseudonyms where there is a registry."""

from typing import Any

from dicomnode.config import Config
from dicomnode.registry.key import KEY_FILE, load_pseudonyms
from dicomnode.registry_format.identity import patient_hash
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.store.patient_key import PatientKey


class ConsolePseudonyms:
    """Names patients and scans; the same names as in `dicomnode registry export`, if the registry has a key."""

    def __init__(self, config: Config, key: PatientKey) -> None:
        self._folder = config.registry.folder
        # No key is made by looking: without a registry the names are this console's alone.
        self._own = Pseudonyms(bytes.fromhex(key.digest("console", "pseudonyms")))

    def _current(self) -> Pseudonyms:
        return load_pseudonyms(self._folder) if (self._folder / KEY_FILE).exists() else self._own

    def patient(self, shown: dict[str, Any]) -> str:
        """Return the patient's pseudonym of a row that says whose a study is; "" where it does not."""
        patient_id, issuer = str(shown["patient_id"]), str(shown["issuer_of_patient_id"])
        return self._current().patient(patient_hash(patient_id.encode(), issuer.encode())) if patient_id else ""

    def scan(self, study_uid: str) -> str:
        """Return the scan's pseudonym."""
        return self._current().scan(study_uid)
