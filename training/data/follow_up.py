"""Outcomes and covariates as clinics keep them, a row a patient or a measurement, read and checked.

All dates are on the registry's shifted calendar: the same constant was added to every date of a patient.
"""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from training.data import csv_tables

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
    "name": csv_tables.one_of("fvc", "dlco"),
    "value": csv_tables.number(0, 1000),
    "unit": csv_tables.words,
}
#: (name, unit) -> the cohort's column and the plausible range; a value outside is most likely in another unit.
UNITS: Mapping[tuple[str, str], tuple[str, float, float]] = {
    ("fvc", "percent_predicted"): ("fvc_percent_predicted", 10, 200),
    ("fvc", "l"): ("fvc_l", 0.2, 9.9),
    ("dlco", "percent_predicted"): ("dlco_percent_predicted", 5, 200),
    ("dlco", "mmol/min/kPa"): ("dlco_mmol_min_kpa", 0.3, 20),
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
    for index, who in enumerate(columns["patient"]):
        if who in first:
            where = f"already occurs in row {first[who] + csv_tables.FIRST_ROW}"
            raise table.refuse(index, "patient", where, "each patient has one row, remove one of the two")
        first[who] = index
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


def read_covariates(path: Path, read: Reader = csv_tables.read) -> pd.DataFrame:
    """`covariates.csv`: one measurement a row; `read` as in `read_outcomes`.

    Returns:
        patient, date, column (the cohort's, such as `fvc_percent_predicted`), value.

    Raises:
        UsageError: a unit is unknown, a value is implausible in its unit, a measurement of one day stands twice.
    """
    table = read(path, COVARIATES)
    columns: dict[str, list[object]] = {k: list(table.columns[k]) for k in ("patient", "date", "value")}
    columns["column"] = []
    seen: dict[tuple[object, ...], int] = {}
    for index, (name, unit, value) in enumerate(
        zip(*(table.columns[k] for k in ("name", "unit", "value")), strict=True)
    ):
        if (str(name), str(unit)) not in UNITS:
            units = ", ".join(u for n, u in UNITS if n == name)
            raise table.refuse(index, "unit", f"is not a unit of {name}", f"use {units}")
        column, low, high = UNITS[str(name), str(unit)]
        if not low <= float(str(value)) <= high:
            range_ = f"is not between {low:g} and {high:g} {unit}"
            raise table.refuse(index, "value", range_, "correct the value or state its unit")
        key = (columns["patient"][index], columns["date"][index], column)
        if key in seen:
            where = f"was already measured on the same day in row {seen[key] + csv_tables.FIRST_ROW}"
            raise table.refuse(index, "name", where, "keep the better of the two")
        seen[key] = index
        columns["column"].append(column)
    frame = pd.DataFrame(columns)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame.astype({"value": "float64"})
