"""What an evaluation starts from: predictions that fit the cohort, the oracle's risks, and parts of the cohort."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.series import kernels
from dicomnode.errors import UsageError
from training.data.outcomes import HORIZONS_YEARS, middle_of
from training.evaluation.censoring import Floats

RISKS = tuple(f"risk_{year}" for year in range(1, HORIZONS_YEARS[-1] + 1))
_AGES = (50.0, 65.0)


def checked_risks(
    cohort: pd.DataFrame, predictions: pd.DataFrame, horizons: Sequence[int] = HORIZONS_YEARS
) -> dict[str, Floats]:
    """Each arm's risks by the end of each year up to the last horizon (scans, years), in the order of the cohort.

    Raises:
        UsageError: predictions are missing, doubled, no probabilities, fall with the year, or put a patient in two
            folds.
    """
    columns = [f"risk_{year}" for year in range(1, max(horizons) + 1)]
    if missing := {"arm", "scan", "patient", "fold", *columns} - set(predictions):
        raise UsageError(f"the predictions have no column {', '.join(sorted(missing))}")
    found = {}
    for arm, rows in predictions.groupby("arm", sort=False):
        if rows["scan"].duplicated().any() or set(rows["scan"]) != set(cohort["scan"]):
            raise UsageError(
                f"{arm}: {len(rows)} predictions for {len(cohort)} scans: there must be exactly one per scan"
            )
        twice = rows.groupby("patient")["fold"].nunique() > 1
        if twice.any():
            raise UsageError(
                f"{arm}: {int(twice.sum())} patients are in more than one fold: the evaluation would measure memory"
            )
        ordered = rows.set_index("scan").loc[cohort["scan"]]
        if not (ordered["patient"].to_numpy() == cohort["patient"].to_numpy()).all():
            raise UsageError(f"{arm}: a scan has a different patient in the predictions and in the cohort")
        risks = ordered[columns].to_numpy(np.float64)
        if not np.isfinite(risks).all() or risks.min() < 0 or risks.max() > 1 or (np.diff(risks) < -1e-9).any():
            raise UsageError(f"{arm}: risks must be probabilities that do not decrease from year to year")
        found[str(arm)] = risks
    if not found:
        raise UsageError("there are no predictions")
    return found


def oracle_risks(cohort: pd.DataFrame, truth: pd.DataFrame, horizons: Sequence[int] = HORIZONS_YEARS) -> Floats | None:
    """Return the generator's own risks (scans, horizons), in the order of the cohort; None where it keeps no such ones.

    Raises:
        UsageError: the truth belongs to another registry.
    """
    if missing := set(cohort["scan"]) - set(truth["scan"]):
        raise UsageError(f"truth.csv does not cover {len(missing)} scans of the cohort: it belongs to another registry")
    columns = [f"risk_{h}y" for h in horizons]
    if not set(columns) <= set(truth):
        return None
    ordered = truth.set_index("scan").loc[cohort["scan"]]
    return np.asarray(ordered[columns], np.float64)


def censoring_covariates(cohort: pd.DataFrame, risks: Floats, horizons: Sequence[int] = HORIZONS_YEARS) -> Floats:
    """Return what loss to follow-up may depend on: age, sex, the predicted risk at the middle horizon (scans, 3)."""
    age = cohort["age_years"].to_numpy(np.float64)
    age = np.where(np.isfinite(age), age, np.nanmean(age)) if np.isfinite(age).any() else np.zeros(len(age))
    risk = np.clip(risks[:, middle_of(horizons) - 1], 1e-3, 1 - 1e-3)
    return np.stack([age, (cohort["sex"] == "M").to_numpy(np.float64), np.log(risk / (1 - risk))], axis=1)


def vendors(cohort: pd.DataFrame) -> "pd.Series[str]":
    """Of each scan, by one name a vendor, "" where it is not known: for the report alone.

    ComBat keeps to the scanners' own words: an old and a new machine of one vendor may well measure differently.
    """
    return cohort["manufacturer"].fillna("").astype(str).map(kernels.vendor)


def parts_of(cohort: pd.DataFrame) -> list[tuple[str, str, NDArray[np.intp]]]:
    """Return (by, value, indices of the rows) for sex, age, scanner, kernel and site; unknown values are left out."""
    ages = [f"under {_AGES[0]:g}", f"{_AGES[0]:g} to {_AGES[1]:g}", f"{_AGES[1]:g} and over"]
    age = cohort["age_years"].to_numpy(np.float64)
    by = {
        "sex": cohort["sex"].to_numpy(),
        "age": np.where(np.isfinite(age), np.array(ages)[np.searchsorted(_AGES, age, side="right") % 3], ""),
        "manufacturer": vendors(cohort).to_numpy(),
        "kernel": cohort["kernel_family"].to_numpy(),
    }
    if "site" in cohort:
        by["site"] = cohort["site"].to_numpy()
    found = []
    for name, values in by.items():
        present = ages if name == "age" else sorted({str(v) for v in values} - {"", "unknown", "None", "nan"})
        rows = ((value, np.flatnonzero(values == value)) for value in present)
        found += [(name, value, r) for value, r in rows if r.size]
    return found
