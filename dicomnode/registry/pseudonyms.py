"""Pseudonyms and shifted dates by a key that never leaves the node.

Whoever holds the key can find a patient's rows by the Patient ID; nobody else can go either way (HMAC-SHA-256, RFC
2104). The key is made at first use, readable by the node's user alone. Without it no outcome can be joined any more:
keep a copy where the hospital keeps its secrets.
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

KEY_FILE = "pseudonyms.key"
_KEY_BYTES = 32
#: Dates move back by 1 to so many days: the years too are then not those of the records.
_MOST_DAYS = 3650


@dataclass(frozen=True)
class Pseudonyms:
    """The same key gives the same pseudonyms; the key is not shown."""

    key: bytes = field(repr=False)

    def patient(self, patient_hash: str) -> str:
        """32 hex digits from the catalogue's hash of Patient ID and issuer (`store.records.Instance`)."""
        return self._digest("patient", patient_hash).hex()[:32]

    def scan(self, study_uid: str) -> str:
        """32 hex digits from the Study Instance UID: a study that is analysed again keeps its place."""
        return self._digest("scan", study_uid).hex()[:32]

    def shift_days(self, patient: str) -> int:
        """By how many days a patient's dates move back; all of a patient's alike, so that intervals stay."""
        return 1 + int.from_bytes(self._digest("shift", patient)[:8], "big") % _MOST_DAYS

    def shifted(self, day: date, patient: str) -> date:
        """Return a date on the patient's own calendar."""
        return day - timedelta(days=self.shift_days(patient))

    def _digest(self, use: str, text: str) -> bytes:
        return hmac.new(self.key, f"{use}:{text}".encode(), hashlib.sha256).digest()


def is_pseudonym(text: str) -> bool:
    """Whether `text` has the form of a patient's or a scan's pseudonym."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def load(folder: Path) -> Pseudonyms:
    """Return the key in `folder`; made there at first use, by whichever process comes first.

    Raises:
        UsageError: the file is no key, or cannot be read or made.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read or made ({error.strerror}): check registry.folder") from None
    if len(key) != _KEY_BYTES:
        raise UsageError(
            f"{path} holds {len(key)} bytes, a key has {_KEY_BYTES}: put the right file back from its copy"
        )
    return Pseudonyms(key)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    # A link does not replace: of two processes that start together, one makes the key and both read it.
    with suppress(FileExistsError):
        path.hardlink_to(temporary)
    temporary.unlink()
