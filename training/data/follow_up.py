"""Outcomes and covariates as clinics keep them, a row a patient or a measurement, read and checked.

All dates are on the registry's shifted calendar: the same constant was added to every date of a patient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from dicomnode.analysis.risk.covariates import Covariate
from training.data import csv_tables
from training.data.covariate_types import LUNG_FUNCTION

#: What a lung transplant is: the end (as bad as death), the end of observation, or nothing.
Transplant = Literal["event", "censor", "ignore"]
#: How a file becomes a table: as it stands, or with pseudonyms in the place of Patient IDs (`clinic_tables`).
Reader = Callable[[Path, Mapping[str, csv_tables.Parse]], csv_tables.CsvTable]


def _death_day(text: str) -> date:
    try:
        return csv_tables.day(text)
    except ValueError as error:
        if text[:1].isdigit() and len(text) > 4:
            raise
        cure = "find the date; if it cannot be determined, leave this empty and give the last contact"
        raise ValueError(f"is a death without a date: {cure}") from error


OUTCOMES: Mapping[str, csv_tables.Parse] = {
    "patient": csv_tables.name,
    "death_date": csv_tables.maybe(_death_day),
    "last_contact_date": csv_tables.maybe(csv_tables.day),
    "transplant_date": csv_tables.maybe(csv_tables.day),
}
COVARIATES: Mapping[str, csv_tables.Parse] = {
    "patient": csv_tables.name,
    "date": csv_tables.day,
    "name": csv_tables.words,
    "value": csv_tables.words,
    "unit": csv_tables.words,
}


def read_outcomes(path: Path, read: Reader = csv_tables.read) -> csv_tables.CsvTable:
    """`outcomes.csv`: patient, death_date, last_contact_date, transplant_date; empty is none.

    Args:
        path: the file.
        read: reads it; messages show the patients that this returns.

    Raises:
        UsageError: a patient stands twice, has no end at all, or dates contradict one another.
    """
    table = read(path, OUTCOMES)
    columns = table.columns
    first: dict[object, int] = {}
    for index in range(len(table)):
        table.once(index, "patient", first)
        death, contact, transplant = (_date(columns[k][index]) for k in list(OUTCOMES)[1:])
        if death is None and contact is None:
            cure = "give death_date, or last_contact_date, the date last known alive"
            raise table.refuse(index, "last_contact_date", "is empty, and so is death_date", cure)
        if death and contact and contact > death:
            raise table.refuse(index, "last_contact_date", f"is after the death on {death}", "correct one of the two")
        end = death or contact
        if transplant and end and transplant > end:
            cure = "correct one of the two (a transplant counts as a contact)"
            raise table.refuse(index, "transplant_date", f"is after the last known date, {end}", cure)
    return table


def _date(value: object) -> date | None:
    return value if isinstance(value, date) else None


def ends(outcomes: csv_tables.CsvTable, transplant: Transplant) -> pd.DataFrame:
    """Return the end of each patient's observation.

    Returns:
        Index patient; `end` (datetime64), `event` (bool), `known_until` (datetime64: the death or last contact, which
        `end` is too but for a transplant), `transplanted` (datetime64 or NaT: when follow-up ended by a transplant; NaT
        throughout where transplants are ignored), `row` (position in the table).
    """
    dates = pd.DataFrame({k: pd.to_datetime(outcomes.columns[k]) for k in list(OUTCOMES)[1:]})
    known_until = dates["death_date"].fillna(dates["last_contact_date"])
    frame = pd.DataFrame(
        {
            "end": known_until,
            "known_until": known_until,
            "event": dates["death_date"].notna(),
            "transplanted": dates["transplant_date"],
            "row": range(len(outcomes)),
        }
    )
    if transplant == "ignore":
        frame["transplanted"] = pd.NaT
    else:
        ended = frame["transplanted"].notna()
        frame.loc[ended, "end"] = frame["transplanted"]
        frame.loc[ended, "event"] = transplant == "event"
    return frame.set_index(pd.Index(outcomes.columns["patient"], name="patient"))


def read_covariates(path: Path, read: Reader = csv_tables.read, free: Sequence[Covariate] = ()) -> pd.DataFrame:
    """`covariates.csv`: one measurement a row; `read` as in `read_outcomes`.

    Args:
        path: the file.
        read: reads it.
        free: what the registry or the run's settings declare beside lung function.

    Returns:
        patient, date, column (the cohort's, such as `fvc_percent_predicted`), value (a number, or a category's word).

    Raises:
        UsageError: a name or a unit is unknown, a value is implausible in its unit, a measurement of one day stands
            twice.
    """
    table = read(path, COVARIATES)
    columns: dict[str, list[object]] = {k: list(table.columns[k]) for k in ("patient", "date")}
    columns["column"], columns["value"] = [], []
    by_name = {one.name: one for one in free}
    seen: dict[tuple[object, ...], int] = {}
    for index in range(len(table)):
        column, value = _measurement(table, index, by_name)
        key = (columns["patient"][index], columns["date"][index], column)
        if key in seen:
            where = f"was already measured on the same day in row {seen[key] + csv_tables.FIRST_ROW}"
            raise table.refuse(index, "name", where, "keep the better of the two")
        seen[key] = index
        columns["column"].append(column)
        columns["value"].append(value)
    frame = pd.DataFrame(columns)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame if free else frame.astype({"value": "float64"})


def _measurement(table: csv_tables.CsvTable, index: int, free: Mapping[str, Covariate]) -> tuple[str, object]:
    """Return the covariate that a row measures, and its value in the covariate's own unit."""
    name, unit, text = (str(table.columns[k][index]) for k in ("name", "unit", "value"))
    if name in free:
        return name, _free_value(table, index, free[name])
    units = {u: one for (n, u), one in LUNG_FUNCTION.items() if n == name}
    if not units:
        known = ", ".join(map(repr, [*dict.fromkeys(n for n, _ in LUNG_FUNCTION), *free]))
        raise table.refuse(index, "name", "is not allowed", f"use {known}, or declare it ([covariate_types.NAME])")
    if unit not in units:
        raise table.refuse(index, "unit", f"is not a unit of {name}", f"use {', '.join(units)}")
    value, one = _number(table, index, text), units[unit]
    if not one.low <= value <= one.high:
        other = [u for u, its in units.items() if u != unit and its.low <= value <= its.high]
        cure = "correct the value or state its unit" + (f" (is it {' or '.join(other)}?)" if other else "")
        raise table.refuse(index, "value", f"is not between {one.low:g} and {one.high:g} {unit}", cure)
    return one.column, value * one.factor


def _free_value(table: csv_tables.CsvTable, index: int, one: Covariate) -> object:
    unit, text = str(table.columns["unit"][index]), str(table.columns["value"][index])
    if unit and unit != one.unit:
        cure = f"write {one.unit}, or nothing" if one.unit else "leave it empty"
        raise table.refuse(index, "unit", f"is not the declared unit of {one.name}", cure)
    value = text if one.type == "category" else _number(table, index, text)
    if not one.accepts(value):
        cure = "correct the value, or its declaration"
        raise table.refuse(index, "value", f"is not {one.name} as declared ({one.described})", cure)
    return value


def _number(table: csv_tables.CsvTable, index: int, text: str) -> float:
    try:
        return csv_tables.number(-math.inf, math.inf)(text)
    except ValueError as error:
        wrong, _, cure = str(error).partition(": ")
        raise table.refuse(index, "value", wrong, cure) from None
