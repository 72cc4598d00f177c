"""The list of a research cohort: a CSV file, one row for each study that is asked for.

Spreadsheets write such files in many ways. What can be read in one way only is taken; what may have been spoilt (dates
that are two, numbers that were shortened) is refused with its row. No Patient ID or accession number is repeated in a
message, and nothing of the file becomes a path.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.logs import is_uid

#: How the columns may be called; case, spaces and underscores do not count.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patient_id": ("patientid", "patid", "pid"),
    "issuer": ("issuer", "issuerofpatientid"),
    "accession_number": ("accessionnumber", "accession", "accessionno"),
    "study_date": ("studydate", "date"),
    "study_uid": ("studyuid", "studyinstanceuid"),
}
_DELIMITERS = ",;\t"
_MOST_NAMED, _MOST_ROWS, _MOST_BYTES = 20, 100_000, 64 << 20
#: As a spreadsheet counts them: the header is row 1.
_FIRST_ROW = 2
_LONGEST = 64  # of VR LO; an accession number that is longer than SH has 16 is asked for all the same
_WITH_TIME = re.compile(r"[ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$")
#: Day 0 of the 1900 date system, which takes 1900 for a leap year; its days of 1954 to 2064.
_EXCEL_EPOCH, _EXCEL_DAYS = date(1899, 12, 30), range(20_000, 60_001)
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
_OLDEST = date(1970, 1, 1)


@dataclass(frozen=True)
class CohortRow:
    """A study that is asked for; `number` as a spreadsheet counts rows, `study_date` as YYYYMMDD, "" for not given."""

    number: int
    patient_id: str = ""
    issuer: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_uid: str = ""


def read(path: Path) -> tuple[CohortRow, ...]:
    """Return the rows of a list.

    Raises:
        UsageError: it cannot be read, or a row asks for nothing that can be found; all such rows are named.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count), strict=True)
    rows, mistakes = list[CohortRow](), list[str]()
    try:
        header = next(reader, [])
        columns = _columns(path, header)
        for number, cells in enumerate(reader, start=_FIRST_ROW):
            if not any(cell.strip() for cell in cells):
                continue
            row, wrong = _row(number, {name: _plain(cells[at]) for name, at in columns.items() if at < len(cells)})
            if any(cell.strip() for cell in cells[len(header) :]):
                wrong.append("it has more values than row 1 has columns: put quotes around a value with a delimiter")
            rows.append(row)
            mistakes += [f"row {number}: {one}" for one in wrong]
            if len(rows) > _MOST_ROWS:
                raise UsageError(f"{path} has more than {_MOST_ROWS} rows: give them in several lists")
    except csv.Error as error:  # its text holds nothing of the file
        raise UsageError(f"{path}, line {reader.line_num}: not a CSV file ({error}): save it as «CSV UTF-8»") from None
    if mistakes:
        more = f"\n… and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
        raise UsageError(f"{path}: nothing was asked for:\n" + "\n".join(mistakes[:_MOST_NAMED]) + more)
    if not rows:
        raise UsageError(f"{path} has no rows below its first: give at least one")
    return tuple(rows)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if content is None:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MB: that is no list of studies")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UsageError(f"{path} is a workbook, not a CSV file: save it as «CSV UTF-8»")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise UsageError(f"{path} is not {name} text (byte {error.start}): save it as «CSV UTF-8»") from None
    if "\0" in text:
        raise UsageError(f"{path} holds zero bytes: save it as «CSV UTF-8»")
    return text


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Return where each column stands. What row 1 says is not repeated: without a header, it is a patient's row."""
    found: dict[str, int] = {}
    for at, name in enumerate(header):
        plain = re.sub(r"[\s_-]", "", name).casefold()
        for column, names in COLUMNS.items():
            if plain in names:
                if column in found:
                    raise UsageError(f"{path}, row 1: two columns are called {column}: remove one")
                found[column] = at
    if not found.keys() & {"accession_number", "study_uid"} and not {"patient_id", "study_date"} <= found.keys():
        raise UsageError(
            f"{path}, row 1: it must name the columns: accession_number, or study_uid, or patient_id and study_date "
            f"(known: {', '.join(COLUMNS)}; others are ignored); it has {', '.join(found) or 'none of them'}"
        )
    return found


def _plain(cell: str) -> str:
    """Return a cell without the form by which a spreadsheet is kept from changing it: ="00123", '00123."""
    cell = cell.strip().strip("\ufeff")
    formula = re.fullmatch(r'="([^"]*)"', cell)
    return formula[1].strip() if formula else cell.removeprefix("'")


def _row(number: int, values: Mapping[str, str]) -> tuple[CohortRow, list[str]]:
    wrong = []
    for column in ("patient_id", "issuer", "accession_number"):
        value = values.get(column, "")
        if any(sign in value for sign in "\\*?") or not value.isprintable():
            wrong.append(f"{column} holds a wild card, a backslash or a control character: others would match it")
        elif len(value) > _LONGEST:
            wrong.append(f"{column} is longer than {_LONGEST} characters")
        elif _SHORTENED.fullmatch(value):
            wrong.append(f"{column} is a number that a spreadsheet has shortened: format the column as text first")
    study_uid = values.get("study_uid", "")
    if study_uid and not is_uid(study_uid):
        wrong.append("study_uid is not a UID: digits and dots, at most 64")
    day = ""
    try:
        day = _day(values.get("study_date", ""))
    except ValueError as error:
        wrong.append(f"study_date {error}")
    patient_id, issuer, accession = (values.get(name, "") for name in ("patient_id", "issuer", "accession_number"))
    row = CohortRow(number, patient_id, issuer, accession, day, study_uid)
    if not wrong and not (row.accession_number or row.study_uid or (row.patient_id and row.study_date)):
        wrong.append("give accession_number, or study_uid, or patient_id and study_date")
    return row, wrong


def _day(text: str) -> str:
    """Return a date as YYYYMMDD. Raises ValueError("what is wrong: the cure")."""
    text = _WITH_TIME.sub("", text)
    if not text:
        return ""
    if re.fullmatch(r"\d{5}(\.0+)?", text, re.ASCII) and int(text[:5]) in _EXCEL_DAYS:
        day = _EXCEL_EPOCH + timedelta(days=int(text[:5]))
    elif found := re.fullmatch(r"(\d{4})(-?)(\d{2})\2(\d{2})", text, re.ASCII):
        day = _date(found[1], found[3], found[4])
    elif found := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", text, re.ASCII):
        day = _date(found[3], found[2], found[1])
    elif re.fullmatch(r"\d{1,4}/\d{1,2}/\d{1,4}", text, re.ASCII):
        raise ValueError("may be two dates (day or month first): write it as 2024-03-31")
    else:
        raise ValueError("is not a date: write it as 2024-03-31")
    if not _OLDEST <= day <= date.today() + timedelta(days=1):
        raise ValueError("is before 1970 or in the future: correct it")
    return f"{day:%Y%m%d}"


def _date(year: str, month: str, day: str) -> date:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise ValueError("is not a day of the calendar: write it as 2024-03-31") from None
