"""What each column of somebody's wide table is: by its name, by the command's options, or by a file of columns."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.errors import UsageError
from dicomnode.files import parse_toml
from training.data import covariate_types
from training.data.covariate_types import LUNG_FUNCTION

#: A feature as PyRadiomics names it: image type, class, feature.
PYRADIOMICS = re.compile(
    r"(original|wavelet2?-[HL]{2,3}|log-sigma-[0-9-]+-mm-[23]D|square|squareroot|logarithm|exponential|gradient"
    r"|lbp-2D|lbp-3D-(m[0-9]+|k))_(firstorder|shape|shape2D|glcm|glrlm|glszm|gldm|ngtdm)_[A-Za-z0-9]+"
)
_OWN = re.compile(r"(quantities|radiomics)\.[A-Za-z0-9_]+\.[A-Za-z0-9_.-]+")
_NUISANCE = re.compile(r"diagnostics_.*|Image|Mask|Label|Label_channel")
_UNNAMED = re.compile(r"(Unnamed: [0-9]+)?")
#: PyRadiomics writes its settings into each row.
SETTINGS = ("diagnostics_Configuration_Settings", "diagnostics_Configuration_EnabledImageTypes")
_PATIENT = {"patient", "patientid", "subject", "subjectid", "pid", "case", "caseid", "id"}
_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("date", "scandate", "studydate", "ctdate"), "date"),
    **dict.fromkeys(("age", "ageyears"), "age_years"),
    **dict.fromkeys(("sex", "gender"), "sex"),
    **{name: name for name in ("event", "manufacturer", "kernel", "scan")},
    "slicethicknessmm": "slice_thickness_mm",
    "scannermodel": "model",
    **{"deathdate": "death_date", "lastcontactdate": "last_contact_date", "transplantdate": "transplant_date"},
    **{f"time{unit}": f"time:{unit}" for unit in ("days", "weeks", "months", "years")},
    **{name.replace("_", ""): name for name in ("fvc_percent_predicted", "fvc_l", "dlco_percent_predicted")},
    **{"dlcommolminkpa": "dlco_mmol_min_kpa", "dlcomlminmmhg": "dlco_ml_min_mmhg"},
}
#: Columns of lung function -> name and unit in covariates.csv.
MEASURED: Mapping[str, tuple[str, str]] = {
    **{one.column: key for key, one in LUNG_FUNCTION.items() if one.factor == 1},
    "dlco_ml_min_mmhg": ("dlco", "ml/min/mmHg"),
}
UNITS = ("days", "weeks", "months", "years")
_KEYS = {"covariates", "features", "ignore", "site", "keep_first_year"}
ROLES = ("patient", "scan", "date", "time", "event")


@dataclass(frozen=True)
class Asked:
    """What the person said of the columns.

    Attributes:
        roles: role -> column.
        time_unit: of the column with the times, "" if it is not said.
        region: what the features were measured on; the node's are lungs, right and left.
        covariates: declared, by the column that holds each.
        features: further columns of measured numbers.
        ignore: columns to pass over.
        keep_first_year: whether the true year of each patient's first scan is written down, for a split in time.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = ""
    region: str = "roi"
    covariates: Mapping[str, Covariate] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep_first_year: bool = False


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are, each by its position in the row.

    Attributes:
        roles: role -> position; among them sex, age_years, time and those of `MEASURED`.
        time_unit: of `time`, "" if it is not said.
        features: name in the registry -> position.
        covariates: position -> declaration.
        settings: positions of PyRadiomics' own settings.
        passed_over: names of the others.
    """

    roles: Mapping[str, int]
    time_unit: str
    features: Mapping[str, int]
    covariates: Mapping[int, Covariate]
    settings: Mapping[str, int]
    passed_over: tuple[str, ...]


def read_asked(path: Path | None, roles: Mapping[str, str], time_unit: str, region: str) -> Asked:
    """Return what the options and a file of columns say.

    Args:
        path: TOML with [covariates.NAME] (a declaration; `column` where the name differs), `features`, `ignore`, `site`
            (the column of hospitals), `keep_first_year`; None.
        roles: role -> column, as far as they are said.
        time_unit: one of `UNITS`, or "".
        region: of the features.

    Raises:
        UsageError: something does not fit.
    """
    if time_unit and time_unit not in UNITS:
        raise UsageError(f"--time-unit {time_unit!r} is unknown: use {', '.join(UNITS)}")
    if not re.fullmatch("[a-z][a-z0-9_]*", region):
        raise UsageError(f"--region {region!r}: use lower-case letters, digits and underscores, such as roi or lungs")
    if path is None:
        return Asked(roles, time_unit, region)
    try:
        stored: dict[str, Any] = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    _check_keys(path, stored)
    if stored.get("site"):
        roles = {**roles, "site": stored["site"]}
    tables = stored.get("covariates", {})
    if not isinstance(tables, dict):
        raise UsageError(f"{path}: covariates: write a table for each, [covariates.NAME]")
    plain = {k: {n: v for n, v in t.items() if n != "column"} if isinstance(t, dict) else t for k, t in tables.items()}
    declared = covariate_types.declared(plain, f"{path}: covariates")
    by_column: dict[str, Covariate] = {}
    for name, one in declared.items():
        column = str(tables[name].get("column", name))
        if column in by_column:
            raise UsageError(f"{path}: the column {column!r} is declared twice, as {by_column[column].name} and {name}")
        by_column[column] = one
    return Asked(
        roles,
        time_unit,
        region,
        by_column,
        tuple(stored.get("features", ())),
        tuple(stored.get("ignore", ())),
        keep_first_year=bool(stored.get("keep_first_year", False)),
    )


def _check_keys(path: Path, stored: Mapping[str, Any]) -> None:
    if odd := set(stored) - _KEYS:
        raise UsageError(f"{path}: unknown key {sorted(odd)[0]!r}: known are {', '.join(sorted(_KEYS))}")
    for key, kind, what in (("site", str, "the name of a column"), ("keep_first_year", bool, "true or false")):
        if not isinstance(stored.get(key, kind()), kind):
            raise UsageError(f"{path}: {key}: {stored[key]!r}: give {what}")
    for key in ("features", "ignore"):
        if not isinstance(stored.get(key, []), list) or not all(isinstance(v, str) for v in stored.get(key, [])):
            raise UsageError(f"{path}: {key}: give a list of column names")


def classify(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], asked: Asked) -> Columns:
    """Tell what each column is.

    Args:
        path: of the table, for messages.
        header: its first row.
        rows: the others.
        asked: what the person said.

    Raises:
        UsageError: a column is unknown, doubled or missing, with the cure.
    """
    names = [name.strip() for name in header]
    if not any(map(PYRADIOMICS.fullmatch, names)) and any(
        PYRADIOMICS.fullmatch(c.strip()) for r in rows for c in r[:2]
    ):
        raise UsageError(
            f"{path}: the features stand in rows: the table is transposed: write a row a scan (pandas: frame.T)"
        )
    _check_names(path, names, rows, asked)
    found = _Sorting(path, asked)
    for at, name in enumerate(names):
        found.take(at, name, names)
    if found.unknown:
        raise UsageError(_unknown(path, found.unknown))
    if "patient" not in found.roles:
        raise UsageError(f"{path}, row 1: no column of patients: name it with --patient COLUMN")
    if not found.features:
        raise UsageError(
            f"{path}, row 1: no column is a measurement: PyRadiomics' names (original_firstorder_Mean) are known, "
            "others are listed under `features` (--columns)"
        )
    return Columns(found.roles, found.unit, found.features, found.covariates, found.settings, tuple(found.passed_over))


class _Sorting:
    """Columns as they are sorted, one after the other."""

    def __init__(self, path: Path, asked: Asked) -> None:
        self.path, self.asked, self.unit = path, asked, asked.time_unit
        self.roles: dict[str, int] = {}
        self.features: dict[str, int] = {}
        self.covariates: dict[int, Covariate] = {}
        self.settings: dict[str, int] = {}
        self.passed_over: list[str] = []
        self.unknown: list[str] = []
        self._given = {column: role for role, column in asked.roles.items()}

    def take(self, at: int, name: str, names: Sequence[str]) -> None:
        """Sort the column at a position."""
        if name in self.asked.ignore:
            self.passed_over.append(name)
        elif role := self._role(name):
            self._place(role, at, names)
        elif name in self.asked.covariates:
            self.covariates[at] = self.asked.covariates[name]
        elif feature := self._feature(name):
            if feature in self.features:
                other = names[self.features[feature]]
                raise UsageError(f"{self.path}, row 1: {other!r} and {name!r} would both be {feature}: rename one")
            self.features[feature] = at
        elif _NUISANCE.fullmatch(name) or _UNNAMED.fullmatch(name):
            self.passed_over.append(name or "the column without a name")
            if name in SETTINGS:
                self.settings[name] = at
        else:
            self.unknown.append(name)

    def _role(self, name: str) -> str:
        """Return what the person calls the column, else what its name says; "" for none."""
        if name in self._given:
            return self._given[name]
        if name in (*self.asked.covariates, *self.asked.features):
            return ""
        role, _, unit = _role(name).partition(":")
        if not role or role in self.asked.roles:
            return ""  # the person named another column for it
        self.unit = unit or self.unit
        return role

    def _place(self, role: str, at: int, names: Sequence[str]) -> None:
        if role in self.roles:
            cure = f"name one with --{role}" if role in ROLES else "rename one"
            raise UsageError(
                f"{self.path}, row 1: {names[self.roles[role]]!r} and {names[at]!r} both look like {role}: {cure}, and "
                "list the other under `ignore` (--columns)"
            )
        self.roles[role] = at

    def _feature(self, name: str) -> str:
        if name in self.asked.features:
            return f"quantities.{self.asked.region}.{re.sub('[^A-Za-z0-9]+', '_', name)}"
        if PYRADIOMICS.fullmatch(name):
            return f"radiomics.{self.asked.region}.{name}"
        return name if _OWN.fullmatch(name) else ""


def _role(name: str) -> str:
    plain = re.sub("[^a-z0-9]", "", name.casefold())
    return "patient" if plain in _PATIENT else _NAMES.get(plain, "")


def _check_names(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], asked: Asked) -> None:
    if not any(names):
        raise UsageError(f"{path}, row 1: there is no header: give the columns' names in the first row")
    for name in names:
        if names.count(name) > 1:
            shown = repr(name) if name else "without a name"
            raise UsageError(f"{path}, row 1: the column {shown} occurs twice: remove or rename one")
    wanted = [*asked.roles.values(), *asked.covariates, *asked.features, *asked.ignore]
    if missing := [name for name in wanted if name not in names]:
        raise UsageError(f"{path}, row 1: there is no column {missing[0]!r}: it has {', '.join(names[:8])} …")
    for at, name in enumerate(names):
        if not _UNNAMED.fullmatch(name) or name in wanted:
            continue
        cells = [row[at].strip() for row in rows if at < len(row)]
        counted = [[str(first + i) for i in range(len(cells))] for first in (0, 1)]
        if cells not in counted:
            raise UsageError(
                f"{path}, row 1: column {at + 1} has no name and does not count the rows, so it is not pandas' index: "
                "name it, or list it under `ignore` (--columns)"
            )


def _unknown(path: Path, names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    first = re.sub("[^a-z0-9]+", "_", names[0].casefold()).strip("_") or "name"
    again = [
        name for name in names if re.fullmatch(r".+\.[0-9]+", name) and PYRADIOMICS.fullmatch(name.rpartition(".")[0])
    ]
    hint = f". {again[0]!r} is how pandas names a column that occurs twice: remove one" if again else ""
    return (
        f"{path}, row 1: unknown column {', '.join(map(repr, names[:4]))}{more}: say in a file what it is (--columns "
        f'FILE): [covariates.{first}] column = {names[0]!r}, type = "number", unit = "…", range = [low, high] (or type '
        f'= "category", categories = [...]); or features = [{names[0]!r}] if it was measured on the image; or ignore = '
        f"[{names[0]!r}]{hint}"
    )
