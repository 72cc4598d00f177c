"""Which patient an object belongs to, as a hash: one rule for the catalogue and for every registry.

A patient is a Patient ID (0010,0020) and its issuer (0010,0021). The hash tells patients apart and names none.
"""

import hashlib
from collections.abc import Collection

#: The part of a patient hash that stands for the Patient ID; what follows stands for its issuer.
PATIENT_ID_DIGITS = 32
#: That part where the Patient ID is empty: it tells nobody apart.
NO_PATIENT_ID = hashlib.sha256(b"").hexdigest()[:PATIENT_ID_DIGITS]


def patient_hash(patient_id: bytes, issuer: bytes) -> str:
    """Hash Patient ID and, where there is one, Issuer of Patient ID, as their bytes stand in the object.

    Returns:
        32 hex digits for the ID, and 32 for the issuer unless that is empty.
    """
    issuer = issuer.strip(b" \0")
    return _half(patient_id.strip(b" \0")) + (_half(issuer) if issuer else "")


def count_patients(hashes: Collection[str]) -> int:
    """Count the patients that the hashes of one study's instances name.

    Patients differ by their ID, or by two issuers of it; within a study, objects of other systems may lack the issuer,
    and that alone makes no second patient. Nor does one without a Patient ID: it names nobody.
    """
    named = _named(hashes) or hashes
    ids = {one[:PATIENT_ID_DIGITS] for one in named}
    issuers = {one[PATIENT_ID_DIGITS:] for one in named} - {""}
    return max(len(ids), len(issuers))


def one_patient(hashes: Collection[str]) -> str | None:
    """Tell whose a study is, by the hashes of its instances; None where that is in doubt or no ID is given."""
    named = _named(hashes)
    if not named or count_patients(named) != 1:
        return None
    return max(named, key=len)


def lacks_patient_id(hashes: Collection[str]) -> bool:
    """Say whether some instances of a study name its patient and others name nobody."""
    return 0 < len(_named(hashes)) < len(hashes)


def _named(hashes: Collection[str]) -> list[str]:
    return [one for one in hashes if not one.startswith(NO_PATIENT_ID)]


def _half(value: bytes) -> str:
    # 128 bits tell any two apart, and two of them fill the catalogue's column.
    return hashlib.sha256(value).hexdigest()[:PATIENT_ID_DIGITS]
