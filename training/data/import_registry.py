"""A registry from somebody's wide table of measurements: a row a scan, a column of patients (`training import`).

Patients and scans get pseudonyms, and dates are shifted, by the key in `<out>.key`, which is made there. Nothing in the
folder was measured by this project's code, and registry.toml says so.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.errors import UsageError
from dicomnode.registry_format import pseudonyms
from dicomnode.registry_format.description import NAME as DESCRIPTION
from dicomnode.registry_format.description import write_description
from dicomnode.registry_format.provenance import Provenance
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.registry_format.rows import OUTCOME_COLUMNS, SCAN_COLUMNS
from dicomnode.registry_format.tables import write_csv, write_features
from training.data import clinic_tables, csv_tables, import_values
from training.data.follow_up import COVARIATES
from training.data.import_columns import MEASURED, SETTINGS, Asked, classify
from training.data.import_follow_up import End, ends, scan_days
from training.data.import_values import WideTable
from training.data.split_kinds import GROUPS


@dataclass(frozen=True)
class ImportSummary:
    """What was written.

    Attributes:
        scans, patients: how many.
        features: how many columns of measurements.
        declared: the free covariates.
        passed_over: columns that were not taken.
        covariates: whether there is a covariates.csv.
        spacing_mm: the resolution of the radiomics, None where it is not known.
    """

    scans: int
    patients: int
    features: tuple[str, ...]
    declared: tuple[Covariate, ...]
    passed_over: tuple[str, ...]
    covariates: bool
    spacing_mm: float | None


def import_table(
    features: Path, outcomes: Path | None, out: Path, asked: Asked, known: Provenance, settings: Path | None
) -> ImportSummary:
    """Write the registry folder `out` from a table of features.

    Args:
        features: CSV, a row a scan.
        outcomes: CSV of its own, or None where they stand among the features.
        out: a new or empty folder.
        asked: what the columns are, as far as their names do not say.
        known: who the patients are; disease and source are needed.
        settings: PyRadiomics' parameter file (YAML or JSON), where the table does not hold them itself.

    Raises:
        UsageError: something does not fit, with file, row, column and cure.
    """
    for name in ("disease", "source"):
        if not getattr(known, name).strip():
            raise UsageError(f"state the {name} of the data with --{name}: it goes into the report and the bundle")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty: give a new folder, so that no registry is overwritten")
    table = read_wide(features, asked)
    keys = _keys(table)
    measured = import_values.measurements(table)
    follow_up = ends(table, outcomes, asked)
    names = pseudonyms.load(out.with_name(f"{out.name}.key"), f"remove it and {out}, and import the table anew")
    scans = _scans(table, keys, names)
    covariates = _covariates(table, scans)
    groups = _groups(table, scans, asked)
    stated = _radiomics_settings(table, settings)
    out.mkdir(parents=True, exist_ok=True)
    rows = {str(row["scan"]): i for i, row in enumerate(scans)}
    columns = {name: values.tolist() for name, values in measured.items()}
    write_features(out / "features.parquet", {s: _known(columns, i) for s, i in rows.items()})
    write_csv(out / "scans.csv", SCAN_COLUMNS, scans)
    write_csv(
        out / "outcomes.csv", OUTCOME_COLUMNS, (_outcome(w, e, names, table.has("date")) for w, e in follow_up.items())
    )
    if covariates:
        write_csv(out / "covariates.csv", tuple(COVARIATES), covariates)
    if groups:
        write_csv(out / GROUPS, tuple(groups[0]), groups)
    spacing = _spacing(stated)
    declared = tuple(table.columns.covariates.values())
    _describe(out, table, known, declared, stated, spacing)
    return ImportSummary(
        scans=len(scans),
        patients=len({row["patient"] for row in scans}),
        features=tuple(measured),
        declared=declared,
        passed_over=table.columns.passed_over,
        covariates=bool(covariates),
        spacing_mm=spacing,
    )


def read_wide(path: Path, asked: Asked) -> WideTable:
    """Read a wide table and tell its columns.

    Raises:
        UsageError: it is no such table.
    """
    csv_tables.check_file(path, "give a CSV file with a row a scan")
    header, rows = csv_tables.cells_of(path)
    import_values.check_rows(path, header, rows)
    columns = classify(path, header, rows, asked)
    return WideTable(path, tuple(name.strip() for name in header), tuple(map(tuple, rows)), columns)


def _keys(table: WideTable) -> list[tuple[str, str]]:
    """Return patient, and scan or else day, of each row: what tells the rows apart.

    Raises:
        UsageError: two rows are of one scan.
    """
    patients = table.parsed("patient", csv_tables.words, needed=True)
    own = table.parsed("scan", csv_tables.words, needed=True)
    first: dict[tuple[str, str], int] = {}
    for index, (who, scan, day) in enumerate(zip(patients, own, scan_days(table), strict=True)):
        key = (str(who), str(day if scan is None else scan))
        if key in first:
            where = f"has a row already, row {first[key] + csv_tables.FIRST_ROW}"
            if table.has("date") or table.has("scan"):
                cure = "each scan has one row: remove one of the two (several regions of one scan cannot be told apart)"
            else:
                cure = "name the scans' dates (--date) or their names (--scan), or keep one row a patient"
            raise table.refuse(index, table.columns.roles["patient"], where, cure)
        first[key] = index
    return list(first)


def _scans(table: WideTable, keys: Sequence[tuple[str, str]], names: Pseudonyms) -> list[dict[str, object]]:
    """Return the rows of scans.csv, in the table's order."""
    days = scan_days(table)
    more: dict[str, Sequence[object]] = {
        "age_years": table.parsed("age_years", import_values.age),
        "sex": table.parsed("sex", import_values.sex),
        "slice_thickness_mm": table.parsed("slice_thickness_mm", import_values.thickness),
        **{role: table.parsed(role, csv_tables.words) for role in ("manufacturer", "model", "kernel")},
    }
    found: list[dict[str, object]] = []
    for index, (key, day) in enumerate(zip(keys, days, strict=True)):
        patient = names.patient(clinic_tables.text_hash(key[0], ""))
        found.append(
            {
                "patient": patient,
                "scan": names.scan(json.dumps(key)),
                "date": _shifted(day, patient, names, table.has("date")),
                **{name: values[index] for name, values in more.items()},
            }
        )
    return found


def _groups(table: WideTable, scans: Sequence[Mapping[str, object]], asked: Asked) -> list[dict[str, object]]:
    """Return the rows of groups.csv: of each patient's first scan the hospital, and the true year where it is wanted.

    Raises:
        UsageError: a scan has no hospital, or the year is wanted and there are no dates.
    """
    if asked.keep_first_year and not table.has("date"):
        raise UsageError(f"{table.path}: keep_first_year = true, and no scan has a date: name their column (--date)")
    if not (asked.keep_first_year or table.has("site")):
        return []
    sites = table.parsed("site", csv_tables.words, needed=True) if table.has("site") else []
    found: dict[object, dict[str, object]] = {}
    for day, index in sorted((day, index) for index, day in enumerate(scan_days(table))):
        row: dict[str, object] = {"patient": scans[index]["patient"]}
        row |= {"site": sites[index]} if sites else {}
        found.setdefault(row["patient"], row | ({"first_scan": day.year} if asked.keep_first_year else {}))
    return list(found.values())


def _shifted(day: date, patient: str, names: Pseudonyms, dated: bool) -> str:
    return (names.shifted(day, patient) if dated else day).isoformat()


def _outcome(who: str, end: End, names: Pseudonyms, dated: bool) -> dict[str, object]:
    patient = names.patient(clinic_tables.text_hash(who, ""))
    days = {"death_date": end.death, "last_contact_date": end.contact, "transplant_date": end.transplant}
    moved = {name: None if day is None else _shifted(day, patient, names, dated) for name, day in days.items()}
    return {"patient": patient, **moved}


def _covariates(table: WideTable, scans: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the rows of covariates.csv: what the table says of a scan's day."""
    columns: list[tuple[str, str, Sequence[object]]] = []
    for column, (name, unit) in MEASURED.items():
        if table.has(column):
            columns.append((name, unit, import_values.lung_function(table, column)))
    for at, one in table.columns.covariates.items():
        columns.append((one.name, one.unit, import_values.free(table, at)))
    return [
        {"patient": scan["patient"], "date": scan["date"], "name": name, "value": values[index], "unit": unit}
        for index, scan in enumerate(scans)
        for name, unit, values in columns
        if values[index] is not None
    ]


def _known(columns: Mapping[str, Sequence[float]], index: int) -> dict[str, float]:
    return {name: values[index] for name, values in columns.items() if not np.isnan(values[index])}


def _radiomics_settings(table: WideTable, path: Path | None) -> Mapping[str, object] | None:
    """Return PyRadiomics' settings, from a parameter file or from what it wrote into each row; None: not known.

    Raises:
        UsageError: the file is none, or the rows were measured with different settings.
    """
    if path is not None:
        import yaml  # noqa: PLC0415  (PyRadiomics brings it; needed here only)

        try:
            stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, yaml.YAMLError) as error:
            raise UsageError(f"{path} is neither YAML nor JSON: {error}") from None
        if not isinstance(stated, dict) or not stated:
            raise UsageError(f"{path} holds no settings: give PyRadiomics' parameter file")
        return dict(json.loads(json.dumps(stated, default=str)))
    found: dict[str, object] = {}
    for name, key in zip(SETTINGS, ("setting", "imageType"), strict=True):
        at = table.columns.settings.get(name)
        if at is None:
            continue
        texts = [row[at].strip() for row in table.rows]
        for index, text in enumerate(texts):
            if text != texts[0]:
                wrong = "are other settings than in row 2, so that the features are not comparable"
                raise table.refuse(index, at, wrong, "measure all scans with the same settings")
        try:
            found[key] = json.loads(json.dumps(ast.literal_eval(texts[0]), default=str))
        except (ValueError, SyntaxError):
            found[key] = texts[0]
    return found or None


def _spacing(stated: Mapping[str, object] | None) -> float | None:
    setting = (stated or {}).get("setting")
    spacing = setting.get("resampledPixelSpacing") if isinstance(setting, Mapping) else None
    if isinstance(spacing, list) and len(set(map(str, spacing))) == 1 and isinstance(spacing[0], int | float):
        return float(spacing[0]) if 0.5 <= spacing[0] <= 6 else None
    return None


def _describe(
    out: Path,
    table: WideTable,
    known: Provenance,
    declared: Sequence[Covariate],
    settings: Mapping[str, object] | None,
    spacing: float | None,
) -> None:
    dated = table.has("date")
    years = sorted(day.year for day in scan_days(table))
    period = known.period or (f"{years[0]} to {years[-1]}" if dated else "")
    more: dict[str, object] = {
        "disease": known.disease,
        "source": known.source,
        "sites": list(known.sites),
        "period": period,
        "dates": "shifted by patient" if dated else f"none: each patient's scan is day 0 ({import_values.DAY_0})",
        "radiomics_settings": "" if settings is None else json.dumps(settings, sort_keys=True),
        "covariates": {
            one.name: one.model_dump(mode="json", exclude_none=True, exclude={"name"}, exclude_defaults=True)
            for one in declared
        },
    }
    if spacing is not None:
        more["radiomics_spacing_mm"] = spacing
    notes = f"imported from {table.path.name}; pseudonyms by the key beside this folder; ages above 89 are 90"
    (out / DESCRIPTION).unlink(missing_ok=True)
    write_description(out, "import", [], notes, {k: v for k, v in more.items() if v not in ("", [], {})})
