"""Which covariates there are: age, sex and lung function always, others as registry or settings declare them.

A declaration has type, unit and range, or categories (`dicomnode.analysis.risk.covariates`); it goes into the bundle,
by which the node judges what it is given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from pydantic import ValidationError

from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.errors import UsageError

#: 1 mmol/min/kPa in ml/min/mmHg (ERS/ATS standard 2017, Graham et al., doi:10.1183/13993003.00016-2016).
ML_PER_MMOL = 2.987


@dataclass(frozen=True)
class LungFunction:
    """How a measurement of lung function in one unit becomes a covariate.

    Attributes:
        column: name of the covariate.
        low, high: what adults blow, in this unit; what lies outside is most likely in another unit.
        factor: to the covariate's own unit.
    """

    column: str
    low: float
    high: float
    factor: float = 1.0


#: (name, unit) -> what becomes of it.
LUNG_FUNCTION: Mapping[tuple[str, str], LungFunction] = {
    ("fvc", "percent_predicted"): LungFunction("fvc_percent_predicted", 10, 200),
    ("fvc", "l"): LungFunction("fvc_l", 0.2, 9.9),
    ("dlco", "percent_predicted"): LungFunction("dlco_percent_predicted", 5, 200),
    # 16 mmol/min/kPa is more than the tallest athlete has; 18 is an ordinary DLCO in ml/min/mmHg.
    ("dlco", "mmol/min/kPa"): LungFunction("dlco_mmol_min_kpa", 0.3, 16),
    ("dlco", "ml/min/mmHg"): LungFunction("dlco_mmol_min_kpa", 0.9, 47.8, 1 / ML_PER_MMOL),
}


def _number(name: str, unit: str, low: float, high: float) -> Covariate:
    return Covariate(name=name, type="number", unit=unit, range=(low, high))


#: Those that need no declaration.
BUILT_IN: Mapping[str, Covariate] = {
    "age_years": _number("age_years", "years", 1, 120),
    "sex_male": _number("sex_male", "(1 male, 0 female)", 0, 1),
    "fvc_percent_predicted": _number("fvc_percent_predicted", "% predicted", 10, 200),
    "fvc_l": _number("fvc_l", "l", 0.2, 9.9),
    "dlco_percent_predicted": _number("dlco_percent_predicted", "% predicted", 5, 200),
    "dlco_mmol_min_kpa": _number("dlco_mmol_min_kpa", "mmol/min/kPa", 0.3, 16),
}
#: Names that a cohort, or a table of lung function, uses for something else.
_TAKEN = {
    *BUILT_IN,
    *("scan", "patient", "date", "time_years", "event", "sex", "age", "manufacturer", "model", "kernel_family"),
    *("slice_thickness_mm", "volume", "prior_scan", "years_since_prior", "fvc", "dlco", "row", "end", "known_until"),
}


def declared(tables: Mapping[str, object], where: str) -> dict[str, Covariate]:
    """Return the declarations in a table of TOML by name; `where` names it in messages.

    Raises:
        UsageError: a declaration does not fit, with the covariate's name and the cure.
    """
    found = {}
    for name, table in tables.items():
        if name in _TAKEN:
            raise UsageError(f"{where}.{name}: the name {name!r} has a meaning already: choose another")
        if not isinstance(table, Mapping):
            raise UsageError(f'{where}.{name}: is {table!r}: write a table, such as {{ type = "category", … }}')
        try:
            found[name] = Covariate.model_validate({**table, "name": name})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{where}.{name}: {place + ': ' if place else ''}{first['msg']}") from None
    return found


def joined(*sources: Mapping[str, Covariate]) -> tuple[Covariate, ...]:
    """Return the declarations of a registry and of a run's settings together.

    Raises:
        UsageError: they declare the same name differently.
    """
    found: dict[str, Covariate] = {}
    for source in sources:
        for name, one in source.items():
            if found.setdefault(name, one) != one:
                raise UsageError(
                    f"the covariate {name} is declared twice and differently ({found[name].described}; "
                    f"{one.described}): leave one declaration, in the registry or in the run's settings"
                )
    return tuple(found.values())


def of_cohort(cohort: pd.DataFrame, free: Iterable[Covariate]) -> tuple[Covariate, ...]:
    """Return the declarations of the covariates that a cohort has."""
    own = [one for name, one in BUILT_IN.items() if name in cohort or name == "sex_male"]
    return (*own, *(one for one in free if one.name in cohort))


def gaps(features: pd.DataFrame, declared: Iterable[Covariate]) -> tuple[str, ...]:
    """Say of which covariates scans have no value, though the node will give no risk without one.

    Args:
        features: of the cohort's scans, by name.
        declared: those that the cohort has.
    """
    found = []
    for one in declared:
        missing = int(features[list(one.features)].isna().any(axis=1).sum())
        if missing and one.missing == "refuse":
            found.append(
                f"{missing} of {len(features)} scans have no {one.name}: judged here with the training median, "
                'they would get no risk from the node (missing = "median" in its declaration allows it)'
            )
    return tuple(found)
