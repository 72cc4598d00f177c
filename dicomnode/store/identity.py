"""Which patient a data set belongs to, and when two are one's; the hash itself: `registry_format.identity`."""

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomnode.registry_format.identity import NO_PATIENT_ID, PATIENT_ID_DIGITS, patient_hash

__all__ = ["patient_hash", "same_patient", "whose"]

_PATIENT_ID, _ISSUER_OF_PATIENT_ID = BaseTag(0x00100020), BaseTag(0x00100021)


def same_patient(one: str, other: str) -> bool:
    """Whether two hashes name one patient: the same ID, and the same issuer where both state one.

    Nobody is the same patient as one without a Patient ID.
    """
    if one[:PATIENT_ID_DIGITS] != other[:PATIENT_ID_DIGITS] or one.startswith(NO_PATIENT_ID):
        return False
    issuers = {one[PATIENT_ID_DIGITS:], other[PATIENT_ID_DIGITS:]} - {""}
    return len(issuers) <= 1


def whose(item: Dataset) -> str:
    """Return the patient hash of a data set whose elements have not been decoded yet."""
    return patient_hash(_raw(item, _PATIENT_ID), _raw(item, _ISSUER_OF_PATIENT_ID))


def _raw(item: Dataset, tag: BaseTag) -> bytes:
    element = item.get_item(tag) if tag in item else None
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else str(value or "").encode()
