"""What was found of each other by scans, outcomes and covariates, and what cannot be: told before anything is fitted.

Nothing is decided here. A row that matches nothing is passed over by what follows; this says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dicomnode.analysis.risk.covariates import Covariate
from training.data import csv_tables
from training.data.covariate_types import BUILT_IN, ML_PER_MMOL
from training.data.outcomes import DAYS_PER_YEAR
from training.data.registry_folder import Registry

#: Medians of a whole registry beyond which a column of DLCO is most likely in the other unit, mmol/min/kPa.
_DLCO_LIKELY = (2.2, 11.0)
_LONG_FOLLOW_UP_YEARS = 25


@dataclass(frozen=True)
class CovariateFound:
    """A covariate as the registry's patients have it: what it is, how many scans' patients have a value, and which."""

    name: str
    declared: str
    patients: int
    values: str


@dataclass(frozen=True)
class Matching:
    """Who stands on which side.

    Attributes:
        patients, scans: in the registry.
        outcomes: patients in the outcomes.
        matched: patients in both; `deaths` of them died.
        without_outcome: patients of the registry that the outcomes lack.
        without_scan: patients of the outcomes that the registry lacks.
        covariates: those found.
        unmatched_covariates: rows whose patient the registry lacks.
        warnings: what matched nothing, and values that cannot be, or hardly.
    """

    patients: int
    scans: int
    outcomes: int
    matched: int
    deaths: int
    without_outcome: int
    without_scan: int
    covariates: tuple[CovariateFound, ...]
    unmatched_covariates: int
    warnings: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The report as text, a line a fact."""
        found = [
            f"{self.patients} patients with {self.scans} scans in the registry; {self.outcomes} in the outcomes",
            f"{self.matched} patients on both sides, {self.deaths} of whom died",
            f"{self.without_outcome} patients of the registry have no outcome; {self.without_scan} of the outcomes "
            "have no scan",
        ]
        found += [f"covariate {c.name} ({c.declared}): {c.patients} patients; {c.values}" for c in self.covariates]
        if self.unmatched_covariates:
            found.append(f"{self.unmatched_covariates} rows of the covariates match no scan's patient")
        return tuple(found)


def matching(
    registry: Registry,
    outcomes: csv_tables.CsvTable,
    covariates: pd.DataFrame | None = None,
    declared: Sequence[Covariate] = (),
) -> Matching:
    """Hold scans, outcomes (`follow_up.read_outcomes`) and covariates (`follow_up.read_covariates`) against each other.

    Args:
        registry: with the scans.
        outcomes: of the patients.
        covariates: None for none.
        declared: the free covariates.
    """
    scans = registry.scans
    have, known = set(scans["patient"]), [str(who) for who in outcomes.columns["patient"]]
    both = have & set(known)
    deaths = sum(
        who in both and day is not None for who, day in zip(known, outcomes.columns["death_date"], strict=True)
    )
    found = tuple(_covariates(scans, covariates, declared))
    unmatched = 0 if covariates is None else int((~covariates["patient"].isin(have)).sum())
    made = Matching(
        patients=len(have),
        scans=len(scans),
        outcomes=len(known),
        matched=len(both),
        deaths=deaths,
        without_outcome=len(have - set(known)),
        without_scan=len(set(known) - have),
        covariates=found,
        unmatched_covariates=unmatched,
        warnings=(),
    )
    warnings = (*_unmatched(made, covariates), *_impossible(registry, outcomes, covariates))
    return Matching(**{**vars(made), "warnings": warnings})


def _covariates(
    scans: pd.DataFrame, covariates: pd.DataFrame | None, declared: Sequence[Covariate]
) -> Iterator[CovariateFound]:
    first = scans.sort_values("date").drop_duplicates("patient")
    if (ages := first["age_years"].dropna()).size:
        yield CovariateFound("age_years", BUILT_IN["age_years"].described, len(ages), _spread(ages))
    if (sex := first["sex"][first["sex"] != ""]).size:
        yield CovariateFound("sex", "F, M or O", len(sex), _counts(sex))
    if covariates is None:
        return
    described = {**{n: one.described for n, one in BUILT_IN.items()}, **{one.name: one.described for one in declared}}
    mine = covariates[covariates["patient"].isin(set(scans["patient"]))]
    for column, rows in mine.groupby("column"):
        values = rows.sort_values("date").drop_duplicates("patient")["value"]
        words = values.map(lambda v: isinstance(v, str)).any()
        shown = _counts(values) if words else _spread(values.astype("float64"))
        yield CovariateFound(str(column), described.get(str(column), ""), int(rows["patient"].nunique()), shown)


def _spread(values: "pd.Series[float]") -> str:
    return f"median {values.median():.4g} ({values.min():.4g} to {values.max():.4g})"


def _counts(values: "pd.Series[str]") -> str:
    return ", ".join(f"{name} {count}" for name, count in values.value_counts().items())


def _unmatched(made: Matching, covariates: pd.DataFrame | None) -> Iterator[str]:
    if made.without_outcome:
        yield f"{made.without_outcome} of {made.patients} patients of the registry have no outcome: excluded"
    if made.without_scan:
        yield f"{made.without_scan} of {made.outcomes} patients of the outcomes have no scan: passed over"
    if covariates is not None and made.unmatched_covariates:
        yield (
            f"{made.unmatched_covariates} of {len(covariates)} rows of the covariates are of patients without a scan: "
            "passed over"
        )
    if made.matched and not made.deaths:
        yield "nobody died: nothing can be learnt; are the deaths in death_date, or event 1?"
    if made.matched and made.deaths == made.matched:
        yield "everybody died: is 1 the death, and not the censoring?"


def _impossible(registry: Registry, outcomes: csv_tables.CsvTable, covariates: pd.DataFrame | None) -> Iterator[str]:
    scans = registry.scans
    ages = scans["age_years"].to_numpy(np.float64)
    if young := int((ages < 1).sum()):
        yield f"{young} scans have an age of less than a year: does 0 stand for «not known»?"
    if (unknown := int(np.isnan(ages).sum())) and unknown < len(ages):
        yield f"{unknown} of {len(ages)} scans have no age"
    ends = pd.DataFrame({k: pd.to_datetime(outcomes.columns[k]) for k in ("death_date", "last_contact_date")})
    last = pd.Series(ends["death_date"].fillna(ends["last_contact_date"]).to_numpy(), outcomes.columns["patient"])
    first = scans.groupby("patient")["date"].min()
    years = (last[~last.index.duplicated()].reindex(first.index) - first).dt.days.dropna() / DAYS_PER_YEAR
    if len(years) and (middle := float(years.median())) > _LONG_FOLLOW_UP_YEARS:
        yield f"the median follow-up is {middle:.0f} years: are the times in the unit that was stated?"
    if covariates is None:
        return
    for column, rows in covariates.groupby("column"):
        values = rows["value"]
        if len(values) > 1 and values.nunique() == 1:
            yield f"{column} has the same value in all {len(values)} rows"
        if column == "dlco_mmol_min_kpa":
            middle = float(values.astype("float64").median())
            low, high = _DLCO_LIKELY
            if not low <= middle <= high:
                other = f"{ML_PER_MMOL * middle:.1f} ml/min/mmHg"
                yield f"the median DLCO is {middle:.1f} mmol/min/kPa ({other}): is the unit right?"
