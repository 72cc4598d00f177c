"""Pseudonyms and shifted dates by a secret key that stays with those who know the patients.

Whoever holds the key can find a patient's rows by the Patient ID; nobody else can go either way (HMAC-SHA-256, RFC
2104). The key is made at first use, readable by its owner alone, and lies outside every registry folder. Without it no
outcome can be joined any more: keep a copy where the hospital keeps its secrets.
"""

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.files import make_folder, sync_folder

_KEY_BYTES = 32
#: Dates move back by 1 to so many days: the years too are then not those of the records.
LONGEST_SHIFT_DAYS = 3650
#: The key of `training cohort --dicom` before format 2.
_OLD_KEY = re.compile(rb"[0-9a-f]{64}\s*")


@dataclass(frozen=True)
class Pseudonyms:
    """The same key gives the same pseudonyms; the key is not shown."""

    key: bytes = field(repr=False)

    def patient(self, patient_hash: str) -> str:
        """Name a patient by 32 hex digits, from the hash of Patient ID and issuer (`identity.patient_hash`)."""
        return self._digest("patient", patient_hash).hex()[:32]

    def scan(self, study_uid: str) -> str:
        """Name a scan by 32 hex digits, from its Study Instance UID.

        A study has one scan in a registry: the series, or part of a series, that the analysis chose. Series UID and
        part are no part of the name, so that a study that is analysed again, and of which another series is chosen by
        then, keeps its place; and node and training, which choose by the same rules, name the same scan alike.
        """
        return self._digest("scan", study_uid).hex()[:32]

    def shift_days(self, patient: str) -> int:
        """Give the days by which a patient's dates move back; all of a patient's alike, so that intervals stay.

        Args:
            patient: the pseudonym.
        """
        return 1 + int.from_bytes(self._digest("shift", patient)[:8], "big") % LONGEST_SHIFT_DAYS

    def shifted(self, day: date, patient: str) -> date:
        """Move a date to the patient's own calendar; `patient` is the pseudonym."""
        return day - timedelta(days=self.shift_days(patient))

    def _digest(self, use: str, text: str) -> bytes:
        return hmac.new(self.key, f"{use}:{text}".encode(), hashlib.sha256).digest()


def is_pseudonym(text: str) -> bool:
    """Tell whether `text` has the form of a patient's or a scan's pseudonym."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def load(path: Path, lost: str) -> Pseudonyms:
    """Read the key file; it is made at first use, by whichever process comes first.

    Args:
        path: the file; 32 bytes.
        lost: what to do where the key is damaged and there is no copy of it, for the message.

    Raises:
        UsageError: the file is no key, or cannot be read or made.
    """
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read or made ({error.strerror}): check the path and its owner") from None
    if _OLD_KEY.fullmatch(key):
        raise UsageError(
            f"{path} is the key of a registry that an older version made from DICOM files, in which patients of two "
            "issuers may be one: make the registry anew, under a new name"
        )
    if len(key) != _KEY_BYTES:
        raise UsageError(
            f"{path} holds {len(key)} bytes, a key has {_KEY_BYTES}: restore the file from its copy; if "
            f"there is none, {lost}"
        )
    return Pseudonyms(key)


def _make(path: Path) -> None:
    """Make the key file: whole or not at all, and there for good when a pseudonym is first given."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link does not replace: of two processes that start together, one makes the key and both read it.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
