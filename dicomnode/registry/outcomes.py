"""Outcomes from a CSV file into the registry: by Patient ID, on the node alone, or by pseudonym.

By Patient ID, dates are those of the records and are shifted here; by pseudonym they are on the patient's shifted
calendar already.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.intake.identity import patient_hash
from dicomnode.intake.registry_rows import RegistryOutcome, RegistryRows
from dicomnode.registry.pseudonyms import Pseudonyms

DATES = ("death_date", "last_contact_date", "transplant_date")
_MOST_NAMED = 20


@dataclass(frozen=True)
class Imported:
    """`noted`: outcomes taken; `with_scan`: those of a patient of whom the registry holds a scan."""

    noted: int
    with_scan: int


def import_outcomes(rows: RegistryRows, path: Path, names: Pseudonyms, now: float) -> Imported:
    """Take in the outcomes of a file, all or none.

    Columns: `patient` (pseudonym) or `patient_id` with, where it is known, `issuer`; then death_date,
    last_contact_date, transplant_date (ISO, empty for none).

    Raises:
        UsageError: the file is not such a table; every mistake with its row and column. What stands in the cell is not
            repeated: it may tell who the patient is.
        SpoolError: the database failed.
    """
    outcomes: dict[str, RegistryOutcome] = {}
    mistakes: list[str] = []
    for number, row in _read(path):
        found = list(_mistakes(row, date.today()))
        patient = _patient(row, names)
        if patient in outcomes:
            found.append("the patient stood in an earlier row: give one row for each")
        mistakes += [f"row {number}: {text}" for text in found]
        if not found:
            outcomes[patient] = _outcome(row, patient, names, now)
    if mistakes:
        more = f"\n… and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
        raise UsageError(f"{path}: nothing was taken:\n" + "\n".join(mistakes[:_MOST_NAMED]) + more)
    return Imported(*rows.put_outcomes(list(outcomes.values())))


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            by = columns & {"patient", "patient_id"}
            missing = [c for c in DATES[:2] if c not in columns]
            unknown = sorted(columns - {"patient", "patient_id", "issuer", *DATES})
            if len(by) != 1 or missing or unknown:
                raise UsageError(
                    f"{path}: give the columns patient (pseudonyms) or patient_id, {', '.join(DATES)}, and perhaps "
                    f"issuer beside patient_id; missing: {', '.join(missing) or 'none'}; unknown: "
                    f"{', '.join(unknown) or 'none'}"
                )
            for row in reader:
                yield reader.line_num, {k: (v or "").strip() for k, v in row.items() if k is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text ({type(error).__name__}): check the path") from None


def _mistakes(row: Mapping[str, str], today: date) -> Iterator[str]:
    if not row.get("patient", "") and not row.get("patient_id", ""):
        yield "there is no patient: fill in the first column, or remove the row"
    if row.get("patient") and not re.fullmatch("[0-9a-f]{32}", row["patient"]):
        yield "patient is no pseudonym (32 hex digits): for Patient IDs name the column patient_id"
    days: dict[str, date] = {}
    for column in DATES:
        text = row.get(column, "")
        if not text:
            continue
        try:
            days[column] = date.fromisoformat(text)
        except ValueError:
            yield f"{column} is not a date: write it as 2024-03-31"
            continue
        if days[column] > today:
            yield f"{column} lies in the future: correct it"
    death = days.get("death_date")
    if not days and not any(row.get(c) for c in DATES):
        yield "there is neither a date of death nor of the last contact: give one"
    for column in DATES[1:]:
        if death is not None and column in days and days[column] > death:
            yield f"{column} lies after death_date: correct one of them"


def _patient(row: Mapping[str, str], names: Pseudonyms) -> str:
    if "patient" in row:
        return row["patient"]
    return names.patient(patient_hash(row["patient_id"].encode(), row.get("issuer", "").encode()))


def _outcome(row: Mapping[str, str], patient: str, names: Pseudonyms, now: float) -> RegistryOutcome:
    def moved(column: str) -> str:
        text = row.get(column, "")
        if not text or "patient" in row:
            return text
        return names.shifted(date.fromisoformat(text), patient).isoformat()

    death, contact, transplant = (moved(column) for column in DATES)
    return RegistryOutcome(patient, death, contact, transplant, now)
