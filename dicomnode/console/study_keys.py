"""How a study is named in a URL: its UID sealed under the patients' key (AES-SIV, RFC 5297), the same each time.

A browser's history, a proxy's log or a bookmark then names no study that anybody else could look up.
"""

import base64
import binascii
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from dicomnode.store.patient_key import PatientKey

_FORM = re.compile(r"[A-Za-z0-9_-]{22,80}")
#: Two characters of a UID are a byte: its dot and what fills the last one are hexadecimal digits that it has not.
_DOT, _FILLED = "a", "f"


class StudyKeys:
    """Keys of studies under one node's patients' key."""

    def __init__(self, key: PatientKey) -> None:
        self._cipher = AESSIV(bytes.fromhex(key.digest("console", "study")))

    def key(self, study_uid: str) -> str:
        """Return the key of a study."""
        digits = study_uid.replace(".", _DOT)
        packed = bytes.fromhex(digits + _FILLED * (len(digits) % 2))
        return base64.urlsafe_b64encode(self._cipher.encrypt(packed, None)).rstrip(b"=").decode()

    def study_uid(self, key: str) -> str | None:
        """Return the study of a key; None where it is not one of ours."""
        if not _FORM.fullmatch(key):
            return None
        try:
            sealed = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
            packed = self._cipher.decrypt(sealed, None)
        except (InvalidTag, ValueError, binascii.Error):
            return None
        return packed.hex().rstrip(_FILLED).replace(_DOT, ".")
