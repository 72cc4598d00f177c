"""Strict CSV tables: whatever does not fit is refused with file, row, column, value and cure.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

import csv
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

from dicomnode.errors import UsageError

FIRST_ROW = 2
#: What Python's float takes of what people write; not its 1_000, nor other scripts' digits.
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|NaN|Inf)"

#: What tables come as that are no CSV, by their first bytes.
_NO_TEXT = {
    b"PK\x03\x04": "an Excel workbook or another ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed (gzip)",
    b"\xff\xfe": "UTF-16 (Excel's «Unicode text»)",
    b"\xfe\xff": "UTF-16",
}
#: Excel counts days from here (its calendar has a 29 February 1900).
_EXCEL_EPOCH = date(1899, 12, 30)
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

T = TypeVar("T")
Parse = Callable[[str], object]


@dataclass(frozen=True)
class CsvTable:
    """A CSV file as columns of parsed values; position i is the file's row i + 2."""

    path: Path
    columns: Mapping[str, list[object]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def refuse(self, index: int, column: str, wrong: str, cure: str) -> UsageError:
        """Return the error that says what is wrong with one value; `index` counts from 0."""
        return refusal(self.path, index + FIRST_ROW, column, self.columns[column][index], wrong, cure)

    def once(self, index: int, column: str, first: dict[object, int]) -> None:
        """See that a value stands in one row alone; `first`: the row of each value before this one, which is added.

        Raises:
            UsageError: it stands in one before.
        """
        value = self.columns[column][index]
        if value in first:
            where = f"already occurs in row {first[value] + FIRST_ROW}"
            raise self.refuse(index, column, where, f"each {column} has one row, remove one of the two")
        first[value] = index


def refusal(path: Path, row: int, column: str, value: object, wrong: str, cure: str) -> UsageError:
    """Return the error of one value in a file."""
    shown = value.isoformat() if isinstance(value, date) else "" if value is None else value
    return UsageError(f"{path}, row {row}, column {column}: {str(shown)!r} {wrong}: {cure}")


def read(path: Path, columns: Mapping[str, Parse], optional: Mapping[str, Parse] | None = None) -> CsvTable:
    """Read a CSV file (UTF-8, a header line, commas).

    Args:
        path: the file.
        columns: what must be there; each parser raises ValueError("what is wrong: the cure").
        optional: what may be there. Any other column is refused, so that no misspelt one is passed over.

    Raises:
        UsageError: the file is missing, empty or no CSV, a column is missing or unknown, a value does not fit.
    """
    known = {**columns, **(optional or {})}
    check_file(path, f"provide a CSV file with the columns {', '.join(columns)}")
    parsed: dict[str, list[object]] = {}
    header, rows = cells_of(path)
    _check_header(path, header, columns, known)
    if not rows:
        raise UsageError(f"{path} has a header but no rows: add at least one")
    parsed = {name: [] for name in header}
    for number, cells in enumerate(rows, start=FIRST_ROW):
        _take(path, number, header, cells, known, parsed)
    return CsvTable(path, parsed)


def check_file(path: Path, cure: str) -> None:
    """Raise UsageError unless `path` is a file that begins like text; a link is followed.

    Args:
        path: the file.
        cure: what to do where there is none.
    """
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist: {cure}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: {cure}")
    if not path.is_file():
        raise UsageError(f"{path} does not exist: {cure}")
    with path.open("rb") as file:
        begin = file.read(8)
    for magic, what in _NO_TEXT.items():
        if begin.startswith(magic):
            raise UsageError(f"{path} is not a CSV file in UTF-8 but {what}: save it as «CSV UTF-8», with commas")


def cells_of(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file, as text.

    Raises:
        UsageError: it is no CSV file in UTF-8 with commas.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header, rows = next(reader, []), list(reader)
            header[:1] = [name.lstrip("\ufeff") for name in header[:1]]  # a second byte order mark
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file in UTF-8 ({error}): export it again as CSV UTF-8") from None
    if len(header) == 1:
        for separator, what in _SEPARATORS.items():
            if separator in header[0]:
                raise UsageError(
                    f"{path}, row 1: its columns are separated by {what}, not by commas: save it as «CSV UTF-8» with "
                    "commas, and numbers with a decimal point"
                )
    return header, rows


def _check_header(path: Path, header: list[str], needed: Mapping[str, Parse], known: Mapping[str, Parse]) -> None:
    for name in header:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f"perhaps you meant {near[0]!r}" if near else f"the known columns are {', '.join(known)}"
            raise UsageError(f"{path}, row 1: unknown column {name!r}: {guess}")
        if header.count(name) > 1:
            raise UsageError(f"{path}, row 1: the column {name!r} occurs twice: remove one")
    if missing := [name for name in needed if name not in header]:
        raise UsageError(f"{path}, row 1: missing column {', '.join(missing)}: the columns are {', '.join(known)}")


def _take(
    path: Path,
    number: int,
    header: list[str],
    cells: list[str],
    known: Mapping[str, Parse],
    parsed: dict[str, list[object]],
) -> None:
    if len(cells) != len(header):
        raise UsageError(f"{path}, row {number}: {len(cells)} values for {len(header)} columns: give one per column")
    for name, cell in zip(header, cells, strict=True):
        try:
            parsed[name].append(known[name](cell.strip()))
        except ValueError as error:
            wrong, _, cure = str(error).partition(": ")
            raise refusal(path, number, name, cell, wrong, cure) from None


def day(text: str) -> date:
    """Return a date as YYYY-MM-DD that is not in the future; ValueError says what is wrong, and the cure."""
    text = re.sub(r"[ T]00:00(:00(\.0+)?)?$", "", text)  # as pandas writes a day that it holds as a time
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError(f"is not a date{_other_date(text)}: write it as YYYY-MM-DD")
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a valid date: write it as YYYY-MM-DD") from None
    if found > date.today():
        raise ValueError("is in the future: correct the date")
    return found


def _other_date(text: str) -> str:
    """Say what a text is that is a date in another form."""
    if re.fullmatch(r"[0-9]{8}", text):
        return " as DICOM writes it (YYYYMMDD)" if text.startswith(("19", "20")) else ""
    if re.fullmatch(r"[0-9]{5}(\.[0-9]+)?", text):
        return f" but Excel's number of {_EXCEL_EPOCH + timedelta(days=int(text[:5]))} (format the cells as dates)"
    if re.fullmatch(r"[0-9]{1,2}[/.-][0-9]{1,2}[/.-]([0-9]{2}|[0-9]{4})", text):
        return " (day and month cannot be told apart)"
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T].*", text):
        return " alone (it has a time of day)"
    return ""


def name(text: str) -> str:
    """Return a pseudonym, which also becomes part of file names; ValueError says what is wrong, and the cure."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("is not a valid pseudonym: use up to 64 letters, digits, dots, dashes and underscores")
    return text


def words(text: str) -> str:
    """Free text, which may be empty."""
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not allowed: use {', '.join(repr(c) for c in choices)}")
        return text

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a number within limits, both included."""

    def parse(text: str) -> float:
        if not re.fullmatch(_NUMBER, text):
            comma = " but has a decimal comma" if re.fullmatch(r"[+-]?[0-9]*,[0-9]+", text) else ""
            raise ValueError(f"is not a number{comma}: write it with a decimal point and without a unit")
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"is not between {low:g} and {high:g}: correct the value or check the unit")
        return value

    return parse


def maybe(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """None where the cell is empty."""
    return lambda text: parse(text) if text else None
