"""The ends of follow-up of an imported table: dates, or times and events, in it or in a table of outcomes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from dicomnode.errors import UsageError
from training.data import csv_tables
from training.data.import_columns import Asked, Columns
from training.data.import_values import DAY_0, WideTable, check_rows, duration, event, scan_day

_ENDS = ("death_date", "last_contact_date", "transplant_date")
_PATIENT = re.compile("[^a-z0-9]")


@dataclass(frozen=True)
class End:
    """What became of a patient; `where` names file and row."""

    death: date | None
    contact: date | None
    transplant: date | None
    where: str


def ends(table: WideTable, outcomes: Path | None, asked: Asked) -> dict[str, End]:
    """Return the end of each patient's follow-up, by Patient ID.

    Args:
        table: the features.
        outcomes: a table of its own: `patient` and dates (`follow_up.OUTCOMES`), or times and events; None: they stand
            among the features.
        asked: what the person said of the columns.

    Raises:
        UsageError: there are none, they stand twice, or they contradict themselves or the scans.
    """
    own = [role for role in ("time", "event", *_ENDS) if table.has(role)]
    if outcomes is None:
        if not own:
            raise UsageError(
                f"{table.path} has no outcomes: name its columns (--time, --time-unit, --event), or a table of "
                "them (--outcomes)"
            )
        found = _timed(table, table) if table.has("time") or table.has("event") else _dated(table, table)
    else:
        if own:
            raise UsageError(
                f"{table.path} has outcomes itself (as {', '.join(own)}), and --outcomes names others: use one of them"
            )
        found = _of_file(outcomes, table, asked)
        _check_spelling(table, found, outcomes)
    _check_order(table, found)
    return found


def _of_file(path: Path, table: WideTable, asked: Asked) -> dict[str, End]:
    csv_tables.check_file(path, "give a CSV file with patient, and death_date and last_contact_date or time and event")
    header, rows = csv_tables.cells_of(path)
    check_rows(path, header, rows)
    names = [name.strip() for name in header]
    roles, unit = _roles(path, names, asked)
    read = WideTable(path, tuple(names), tuple(map(tuple, rows)), Columns(roles, unit, {}, {}, {}, ()))
    patients = _patients(read)
    first: dict[str, int] = {}
    for index, who in enumerate(patients):
        if who in first:
            where = f"stands in row {first[who] + csv_tables.FIRST_ROW} already"
            raise read.refuse(index, roles["patient"], where, "each patient has one row, remove one of the two")
        first[who] = index
    return _timed(read, table) if "time" in roles or "event" in roles else _dated(read, table)


def _roles(path: Path, names: Sequence[str], asked: Asked) -> tuple[dict[str, int], str]:
    """Return the columns of a table of outcomes by role, and the unit of its times."""
    known = {"patient": "patient", "event": "event", **{name: name for name in _ENDS}}
    known |= {f"time_{unit}": "time" for unit in ("days", "weeks", "months", "years")}
    given = {column: role for role, column in asked.roles.items() if role in ("patient", "time", "event")}
    roles: dict[str, int] = {}
    unit = asked.time_unit
    for at, name in enumerate(names):
        plain = _PATIENT.sub("", name.casefold())
        role = given.get(name) or known.get(name, "") or ("patient" if plain in ("patientid", "subjectid") else "")
        if not role:
            if re.fullmatch("(Unnamed: 0)?", name) or name in asked.ignore:
                continue
            raise UsageError(
                f"{path}, row 1: unknown column {name!r}: known are patient, {', '.join(_ENDS)}, time_days (weeks, "
                "months, years), event; name it with --patient, --time or --event, or `ignore` it (--columns)"
            )
        if role in roles:
            raise UsageError(
                f"{path}, row 1: two columns look like {role}: name one with --{role}, and remove the other"
            )
        roles[role] = at
        if role == "time" and name not in given:
            unit = name.removeprefix("time_")
    if "patient" not in roles:
        raise UsageError(f"{path}, row 1: no column of patients: call it patient, or name it with --patient")
    return roles, unit


def _patients(table: WideTable) -> list[str]:
    return [str(one) for one in table.parsed("patient", csv_tables.words, needed=True)]


def _timed(read: WideTable, scans: WideTable) -> dict[str, End]:
    """Read times, which count from the scan's day, and events."""
    if not (read.has("time") and read.has("event")):
        lacking = "event" if read.has("time") else "time"
        raise UsageError(f"{read.path}, row 1: a column of {lacking} is missing: name it with --{lacking}")
    if not read.columns.time_unit:
        raise UsageError(
            f"{read.path}, column {read.header[read.columns.roles['time']]}: in which unit? Give --time-unit"
        )
    times = read.parsed("time", duration(read.columns.time_unit), needed=True)
    events = read.parsed("event", event, needed=True)
    starts: dict[str, list[date]] = {}
    days_of_scans = scan_days(scans)
    for who, day in zip(_patients(scans), days_of_scans, strict=True):
        starts.setdefault(who, []).append(day)
    found: dict[str, End] = {}
    for index, (who, time, died) in enumerate(zip(_patients(read), times, events, strict=True)):
        assert time is not None and died is not None, "needed"
        if read is scans:
            start = days_of_scans[index]
        elif len(days := starts.get(who, [DAY_0])) == 1:
            start = days[0]
        else:
            cure = "give dates, or put time and event into each scan's row"
            raise read.refuse(index, read.columns.roles["time"], f"counts from which of {len(days)} scans?", cure)
        last = start + time
        if last > date.today():
            raise read.refuse(
                index, read.columns.roles["time"], "ends in the future", "correct it, or check --time-unit"
            )
        end = End(last if died else None, last, None, f"{read.path}, row {index + csv_tables.FIRST_ROW}")
        known = found.setdefault(who, end)
        assert known.contact is not None, "of times"
        if (known.death is None) != (end.death is None) or abs(known.contact - last) > timedelta(days=3):
            wrong = f"does not end on the day on which {known.where} does, nor alike"
            raise read.refuse(index, read.columns.roles["time"], wrong, "one patient has one end: correct one of them")
    return found


def _dated(read: WideTable, scans: WideTable) -> dict[str, End]:
    """Dates as in outcomes.csv; among the features they may stand in several rows of a patient."""
    if not scans.has("date"):
        raise UsageError(
            f"{read.path} gives dates, but {scans.path} has none of the scans: name their column with --date"
        )
    columns = [read.parsed(name, scan_day) for name in _ENDS]
    if not read.has("death_date") and not read.has("last_contact_date"):
        raise UsageError(f"{read.path}, row 1: neither death_date nor last_contact_date: give them")
    found: dict[str, End] = {}
    for index, who in enumerate(_patients(read)):
        death, contact, transplant = (column[index] for column in columns)
        at = read.columns.roles.get("last_contact_date", read.columns.roles.get("death_date", 0))
        if death is None and contact is None:
            cure = "give death_date, or last_contact_date, the date last known alive"
            raise read.refuse(index, at, "is empty, and no other end is there", cure)
        if death and contact and contact > death:
            raise read.refuse(index, at, f"is after the death on {death}", "correct one of the two")
        if transplant and transplant > (death or contact or transplant):
            raise read.refuse(
                index, read.columns.roles["transplant_date"], "is after the last known date", "correct one of the two"
            )
        end = End(death, contact, transplant, f"{read.path}, row {index + csv_tables.FIRST_ROW}")
        known = found.setdefault(who, end)
        if (known.death, known.contact, known.transplant) != (death, contact, transplant):
            raise read.refuse(index, at, f"is another end than {known.where} gives", "correct one of the two")
    return found


def scan_days(table: WideTable) -> list[date]:
    """Return each scan's day; `DAY_0` where the table has no dates."""
    days = table.parsed("date", scan_day, needed=True)
    return [DAY_0 if day is None else day for day in days]


def _check_order(table: WideTable, found: dict[str, End]) -> None:
    days, roles = scan_days(table), table.columns.roles
    for index, (who, day) in enumerate(zip(_patients(table), days, strict=True)):
        end = found.get(who)
        last = None if end is None else end.death or end.contact
        if end is None or last is None:
            continue
        if last < day:
            cure = "correct one of the two: a scan counts as a contact"
            raise table.refuse(index, roles["date"], f"is after the end in {end.where}", cure)


def _check_spelling(table: WideTable, found: dict[str, End], outcomes: Path) -> None:
    """Refuse IDs that both tables have, but not in the same letters: they would be passed over."""
    plain = {_plain(who): end.where for who, end in found.items()}
    patients = _patients(table)
    without = [index for index, who in enumerate(patients) if who not in found]
    for index in without:
        if (where := plain.get(_plain(patients[index]))) is not None:
            wrong = f"is the patient of {where}, but written otherwise (case, spaces, leading zeros or .0)"
            raise table.refuse(index, table.columns.roles["patient"], wrong, "write both alike")
    if len(without) == len(table):
        raise UsageError(
            f"{table.path} and {outcomes} have no patient in common: do both hold the same IDs (--patient)?"
        )


def _plain(who: str) -> str:
    parts = re.findall("[a-z]+|[0-9]+", re.sub(r"\.0$", "", who.casefold()))
    return "-".join(part.lstrip("0") or "0" for part in parts)
