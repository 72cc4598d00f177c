"""The cells of somebody's wide table, read strictly: what does not fit is refused with row, column and cure."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk.scan_inputs import MM_RANGE
from dicomnode.errors import UsageError
from dicomnode.registry_format.rows import FIRST_DAY
from training.data import csv_tables
from training.data.covariate_types import LUNG_FUNCTION
from training.data.import_columns import MEASURED, Columns

#: What tables write for «not known»: pandas nothing, R NA, spreadsheets an error.
MISSING = {"", "NA", "NaN", "nan", "N/A", "n/a", "#N/A", "null", "None", "<NA>"}
#: Numbers that stand for «not known» where no other of the column is negative.
_PLACEHOLDERS = {-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0}
#: Of scans without a date: it says nothing, and leaves room for any follow-up.
DAY_0 = date(1950, 1, 1)
LONGEST_YEARS = 60
T = TypeVar("T")
_DAYS: Mapping[str, float] = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}
_SEX = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M", "o": "O", "other": "O"}
_EVENT = {
    **dict.fromkeys(("1", "1.0", "true", "dead", "died", "deceased", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "alive", "censored", "no"), False),
}


@dataclass(frozen=True)
class WideTable:
    """A table read as text, with what its columns are; `rows` are those of the file, from row 2 on."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: Columns

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, role: str) -> bool:
        """Whether a column has this role."""
        return role in self.columns.roles

    def refuse(self, index: int, at: int, wrong: str, cure: str) -> UsageError:
        """Return the error about one cell; a patient's ID is not shown."""
        private = at == self.columns.roles.get("patient")
        shown = "…" if private else self.rows[index][at]
        return csv_tables.refusal(
            self.path, index + csv_tables.FIRST_ROW, self.header[at] or f"number {at + 1}", shown, wrong, cure
        )

    def parsed(self, role: str, parse: Callable[[str], T], *, needed: bool = False) -> list[T | None]:
        """Return a role's values, None where the cell is empty; [None, …] without such a column.

        Args:
            role: as in `Columns.roles`.
            parse: raises ValueError("what is wrong: the cure").
            needed: whether an empty cell is refused.

        Raises:
            UsageError: a cell does not fit.
        """
        if role not in self.columns.roles:
            return [None] * len(self)
        return self.cells(self.columns.roles[role], parse, needed=needed)

    def cells(self, at: int, parse: Callable[[str], T], *, needed: bool = False) -> list[T | None]:
        """As `parsed`, of the column at a position."""
        found: list[T | None] = []
        for index, row in enumerate(self.rows):
            text = row[at].strip()
            if text in MISSING:
                if needed:
                    raise self.refuse(index, at, "is missing", "fill it in, or remove the row")
                found.append(None)
                continue
            try:
                found.append(parse(text))
            except ValueError as error:
                wrong, _, cure = str(error).partition(": ")
                raise self.refuse(index, at, wrong, cure) from None
        return found


def check_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raise UsageError for a table without rows, or with rows that are longer or shorter than the header."""
    if header and not rows:
        raise UsageError(f"{path} has a header but no rows: add at least one")
    for number, cells in enumerate(rows, start=csv_tables.FIRST_ROW):
        if len(cells) != len(header):
            raise UsageError(
                f"{path}, row {number}: {len(cells)} values for {len(header)} columns: give one per column (a decimal "
                "comma makes two values of one)"
            )


def sex(text: str) -> str:
    """Return F, M or O; ValueError for other codes, since 1 and 2 mean either."""
    if (found := _SEX.get(text.casefold())) is None:
        raise ValueError("is not allowed: write F, M or O")
    return found


def event(text: str) -> bool:
    """Tell whether a death was observed; ValueError says what is wrong, and the cure."""
    if (found := _EVENT.get(text.casefold())) is None:
        raise ValueError("is no event: write 1 where the death was observed, 0 where follow-up ended alive")
    return found


def scan_day(text: str) -> date:
    """Return the day of a scan; ValueError says what is wrong, and the cure."""
    if (day := csv_tables.day(text)) < FIRST_DAY:
        raise ValueError(f"lies before {FIRST_DAY.year}: correct it")
    return day


def duration(unit: str) -> Callable[[str], timedelta]:
    """Return a parser of times in this unit; its ValueError says what is wrong, and the cure."""

    def parse(text: str) -> timedelta:
        years = csv_tables.number(-math.inf, math.inf)(text) * _DAYS[unit] / _DAYS["years"]
        if not 0 <= years <= LONGEST_YEARS:
            raise ValueError(f"{unit} is not between 0 and {LONGEST_YEARS} years: correct it, or check --time-unit")
        return timedelta(days=round(years * _DAYS["years"]))

    return parse


def age(text: str) -> float:
    """Return the age in years, 90 for all above 89; ValueError says what is wrong, and the cure."""
    years = csv_tables.number(-math.inf, math.inf)(text)
    if years == 0:
        raise ValueError("is no age of a patient who had a CT: leave it empty where it is not known")
    if not 1 <= years <= 120:
        raise ValueError("is not between 1 and 120 years: correct the value or check the unit")
    return min(years, 90.0)


def thickness(text: str) -> float:
    """Return the slice thickness, mm; ValueError says what is wrong, and the cure."""
    return csv_tables.number(*MM_RANGE)(text)


def measurements(table: WideTable) -> dict[str, NDArray[np.float64]]:
    """Return each feature's values, (scans,), NaN where the cell is empty.

    Raises:
        UsageError: a value is no finite number, a column is empty, or a placeholder stands among measurements.
    """
    found = {}
    for name, at in table.columns.features.items():
        values = table.cells(at, _finite)
        numbers = np.array([np.nan if value is None else value for value in values])
        if np.isnan(numbers).all():
            raise UsageError(f"{table.path}, column {table.header[at]}: holds no value: remove it, or `ignore` it")
        _check_placeholders(table, at, numbers)
        found[name] = numbers
    return found


def _finite(text: str) -> float:
    value = csv_tables.number(-math.inf, math.inf)(text)
    if not math.isfinite(value):
        raise ValueError("is no finite number: leave it empty where it could not be measured")
    return value


def _check_placeholders(table: WideTable, at: int, numbers: NDArray[np.float64]) -> None:
    negative = {float(v) for v in numbers[numbers < 0]}
    if len(negative) != 1 or not negative <= _PLACEHOLDERS:
        return
    common, count = Counter(numbers[~np.isnan(numbers)].tolist()).most_common(1)[0]
    if len(set(numbers[~np.isnan(numbers)].tolist())) < 3 and common not in negative and count < len(numbers):
        return  # a column of two values may well mean them
    index = int(np.flatnonzero(numbers < 0)[0])
    raise table.refuse(index, at, "is the column's only negative value and looks like «not known»", "leave it empty")


def lung_function(table: WideTable, column: str) -> list[float | None]:
    """Return a column of lung function in its own unit.

    Raises:
        UsageError: a value is implausible in its unit (of the cell's parser: ValueError).
    """
    name, unit = MEASURED[column]
    one = LUNG_FUNCTION[name, unit]

    def parse(text: str) -> float:
        value = csv_tables.number(-math.inf, math.inf)(text)
        if not one.low <= value <= one.high:
            other = [
                u for (n, u), its in LUNG_FUNCTION.items() if n == name and u != unit and its.low <= value <= its.high
            ]
            hint = f" (is it {' or '.join(other)}?)" if other else ""
            raise ValueError(f"is not between {one.low:g} and {one.high:g} {unit}: correct the value or its unit{hint}")
        return value

    return table.parsed(column, parse)


def free(table: WideTable, at: int) -> list[float | str | None]:
    """Return the values of a declared covariate.

    Raises:
        UsageError: a value is outside the declared range, or no declared category (of the cell's parser: ValueError).
    """
    one = table.columns.covariates[at]

    def parse(text: str) -> float | str:
        value = text if one.type == "category" else csv_tables.number(-math.inf, math.inf)(text)
        if not one.accepts(value):
            near = [c for c in one.categories if c.casefold() == text.casefold()]
            hint = f" (written {near[0]!r} there)" if near else ""
            raise ValueError(f"is not {one.name} as declared ({one.described}){hint}: correct it, or the declaration")
        return value

    found = table.cells(at, parse)
    if all(value is None for value in found):
        raise UsageError(f"{table.path}, column {table.header[at]}: holds no value: remove it, or `ignore` it")
    return found
