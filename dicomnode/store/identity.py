"""Which patient an object belongs to, as a hash: it tells patients apart and names none."""

import hashlib

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomnode.store.records import NO_PATIENT_ID, PATIENT_ID_DIGITS

_PATIENT_ID, _ISSUER_OF_PATIENT_ID = BaseTag(0x00100020), BaseTag(0x00100021)


def patient_hash(patient_id: bytes, issuer: bytes) -> str:
    """Of Patient ID and, where there is one, Issuer of Patient ID, as their bytes stand in the object."""
    issuer = issuer.strip(b" \0")
    return _half(patient_id.strip(b" \0")) + (_half(issuer) if issuer else "")


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


def _half(value: bytes) -> str:
    # 128 bits tell any two apart, and two of them fill the catalogue's column.
    return hashlib.sha256(value).hexdigest()[:PATIENT_ID_DIGITS]
