"""Pseudonyms and shifted dates by a secret key, for scans that never went through the node.

The key is a file beside the registry, never in it: who has both can find the patient, who has the registry cannot.
"""

import csv
import hashlib
import hmac
import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from dicomnode.errors import UsageError
from training.data import csv_tables
from training.data.follow_up import COVARIATES, OUTCOMES
from training.files import write_atomically

#: Dates move into the past by up to this, so that none lies in the future.
LONGEST_SHIFT_DAYS = 730


@dataclass(frozen=True)
class Pseudonyms:
    """Names and shifts that hang on the key alone: the same patient gets the same ones at every call."""

    key: bytes

    def patient(self, patient_id: str) -> str:
        """Return the pseudonym of a Patient ID."""
        return "P" + self._keyed("patient", patient_id).hex()[:16]

    def read_patient(self, text: str) -> str:
        """Return the pseudonym of a Patient ID in a table; a parser for `training.data.csv_tables`.

        Raises:
            ValueError: it is empty.
        """
        return self.patient(_patient_id(text))

    def scan(self, series_uid: str, part: str) -> str:
        """Return the pseudonym of a series, or of a part of one."""
        return "S" + self._keyed("scan", series_uid, part).hex()[:16]

    def shifted(self, patient_id: str, day: date) -> date:
        """Return the day on the patient's shifted calendar: intervals stay as they are."""
        number = int.from_bytes(self._keyed("shift", patient_id)[:8], "big")
        return day - timedelta(days=1 + number % LONGEST_SHIFT_DAYS)

    def _keyed(self, *parts: str) -> bytes:
        return hmac.new(self.key, "\0".join(parts).encode(), hashlib.sha256).digest()


def of_file(path: Path) -> Pseudonyms:
    """Return the pseudonyms by a key file (64 hexadecimal digits).

    It is made, for its owner alone, where there is none.

    Raises:
        UsageError: the file holds no key.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if len(text) != 64 or any(c not in "0123456789abcdef" for c in text):
        raise UsageError(f"{path} holds no key of 64 hexadecimal digits: restore it, or make a new registry")
    return Pseudonyms(bytes.fromhex(text))


def _patient_id(text: str) -> str:
    if not text:
        raise ValueError("is empty: give the Patient ID as it stands in the images")
    return text


def pseudonymise(source: Path, out: Path, columns: Mapping[str, csv_tables.Parse], names: Pseudonyms) -> Path:
    """Write a clinic's CSV, by Patient ID and true dates, as the registry needs it; rows stay in their order.

    Args:
        source: the file.
        out: where to write.
        columns: `follow_up.OUTCOMES` or `follow_up.COVARIATES`.
        names: the registry's pseudonyms.

    Raises:
        UsageError: the file does not fit.
    """
    table = csv_tables.read(source, {**columns, "patient": _patient_id})
    patients = [str(p) for p in table.columns["patient"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for index, patient in enumerate(patients):
        cells = [names.patient(patient) if k == "patient" else table.columns[k][index] for k in columns]
        writer.writerow(names.shifted(patient, c) if isinstance(c, date) else "" if c is None else c for c in cells)
    write_atomically(out, text.getvalue())
    return out


TABLES: Mapping[str, Mapping[str, csv_tables.Parse]] = {"outcomes": OUTCOMES, "covariates": COVARIATES}
