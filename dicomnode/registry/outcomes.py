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
from dicomnode.registry_format.identity import patient_hash
from dicomnode.registry_format.pseudonyms import Pseudonyms, is_pseudonym
from dicomnode.registry_format.rows import FIRST_DAY, OUTCOME_COLUMNS
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryRows
from dicomnode.words.numerals import plural

DATES = OUTCOME_COLUMNS[1:]
_MOST_NAMED = 20
#: As a spreadsheet counts them: the header is row 1.
_FIRST_ROW = 2


@dataclass(frozen=True)
class Imported:
    """`noted`: outcomes taken; `with_scan`: those of a patient of whom the registry holds a scan."""

    noted: int
    with_scan: int


def import_outcomes(rows: RegistryRows, path: Path, names: Pseudonyms, now: float) -> Imported:
    """Take in the outcomes of a file, all or none: what training would refuse is refused here, where it can be mended.

    Columns: `patient` (pseudonym) or `patient_id` with, where it is known, `issuer`; then death_date,
    last_contact_date, transplant_date (ISO, empty for none).

    Raises:
        UsageError: the file is not such a table; every mistake with its row and column. What stands in the cell is not
            repeated: it may tell who the patient is.
        SpoolError: the database failed.
    """
    scanned = rows.latest_scan_dates()
    outcomes: dict[str, RegistryOutcome] = {}
    mistakes: list[str] = []
    for number, row in _read(path):
        found = list(_mistakes(row, date.today()))
        patient = _patient(row, names)
        if patient in outcomes:
            found.append("the patient occurs in an earlier row: give one row for each patient")
        if not found:
            outcomes[patient] = _outcome(row, patient, names, now)
            found += _against_scans(outcomes[patient], scanned.get(patient, ""))
        mistakes += [f"row {number}, {text}" for text in found]
    if mistakes:
        more = f"\n… and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
        raise UsageError(f"{path}: nothing imported:\n" + "\n".join(mistakes[:_MOST_NAMED]) + more)
    if not outcomes:
        raise UsageError(f"{path} has no rows below its header: give at least one")
    return Imported(*rows.put_outcomes(list(outcomes.values())))


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for number, cells in enumerate(reader, start=_FIRST_ROW):
                if not cells:
                    continue  # an empty line
                if len(cells) != len(header):
                    raise UsageError(
                        f"{path}, row {number}: {plural(len(cells), 'value')} for {plural(len(header), 'column')}, "
                        f"nothing imported: "
                        "give one for each (a comma within a value needs quotes around it)"
                    )
                yield number, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text ({type(error).__name__}): check the path") from None
    except csv.Error as error:  # its text holds nothing of the file
        raise UsageError(
            f"{path}, line {reader.line_num}: not a CSV file ({error}): export it again as «CSV UTF-8»"
        ) from None


def _check_header(path: Path, header: list[str]) -> None:
    """Raise UsageError. The names of unknown columns are not repeated: without a header, they are a patient's row."""
    known = {"patient", "patient_id", "issuer", *DATES}
    missing = [name for name in DATES[:2] if name not in header]
    unknown = [str(number) for number, name in enumerate(header, start=1) if name not in known]
    one_kind = ("patient" in header) != ("patient_id" in header) and not {"patient", "issuer"} <= set(header)
    if missing or unknown or not one_kind or len(set(header)) < len(header):
        raise UsageError(
            f"{path}, row 1: the first row must name the columns, each once: patient (pseudonyms), or patient_id and "
            f"optionally issuer; {', '.join(DATES[:2])}, and optionally {DATES[2]}. "
            f"Missing: {', '.join(missing) or 'none'}; unknown: {'column ' + ', '.join(unknown) if unknown else 'none'}"
        )


def _mistakes(row: Mapping[str, str], today: date) -> Iterator[str]:
    """Yield what is wrong within a row: `column NAME: what, and the cure`."""
    by = "patient" if "patient" in row else "patient_id"
    if not row[by]:
        yield f"column {by}: is empty: fill it in, or remove the row"
    elif by == "patient" and not is_pseudonym(row[by]):
        yield "column patient: is not a pseudonym (32 of 0-9 and a-f): for Patient IDs, name the column patient_id"
    days: dict[str, date] = {}
    wrong = False
    for column in DATES:
        try:
            if text := row.get(column, ""):
                days[column] = _day(text, today)
        except ValueError as error:
            wrong = True
            yield f"column {column}: {error}"
    if not wrong:
        yield from _contradictions(days)


def _day(text: str, today: date) -> date:
    """Raise ValueError("what is wrong: the cure")."""
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("is not a date: write it as 2024-03-31")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a day of the calendar: write it as 2024-03-31") from None
    if not FIRST_DAY <= day <= today:
        raise ValueError(f"{'is in the future' if day > today else 'is before 1900'}: correct it")
    return day


def _contradictions(days: Mapping[str, date]) -> Iterator[str]:
    death, contact, transplant = (days.get(column) for column in DATES)
    end = death or contact
    if end is None:
        yield (
            "column last_contact_date: is empty, as is death_date: give one of them (a transplant alone does not "
            "define the follow-up)"
        )
        return
    if contact and contact > end:
        yield "column last_contact_date: is after death_date: correct one of them"
    if transplant and transplant > end:
        after = "death_date" if death else "last_contact_date"
        yield f"column transplant_date: is after {after}: correct one of them (a transplant is a contact)"


def _against_scans(outcome: RegistryOutcome, latest_scan: str) -> Iterator[str]:
    if outcome.death_date and outcome.death_date < latest_scan:
        yield ("column death_date: is before a scan of this patient in the registry: correct the date or the patient")


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
