"""The cohort: which scans are used, the time from each to death or last contact, and why others are excluded.

A scan knows only what was known on its day: its own features, a prior scan, covariates measured before.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from training.data import csv_tables, former_names
from training.data.follow_up import Transplant, ends
from training.data.outcomes import DAYS_PER_YEAR, HORIZONS_YEARS, Outcomes, edges_of
from training.data.registry_folder import Registry

#: A measurement of lung function counts for scans up to this long after it.
COVARIATE_DAYS = 365
#: Columns that every cohort has, in this order; covariates follow.
COLUMNS = (
    *("scan", "patient", "date", "time_years", "event", "age_years", "sex", "manufacturer", "model"),
    *("kernel_family", "slice_thickness_mm", "volume", "prior_scan", "years_since_prior"),
)


@dataclass(frozen=True)
class FlowStep:
    """A box of the flow chart. step: "registry", "excluded" or "cohort"; an excluded patient has no scan left."""

    step: str
    patients: int
    scans: int
    reason: str


@dataclass(frozen=True)
class Cohort:
    """The frame (see `COLUMNS`; index 0, 1, 2, …; by patient and date) and how it came about."""

    frame: pd.DataFrame
    flow: tuple[FlowStep, ...]

    @property
    def outcomes(self) -> Outcomes:
        """Time and event of each row."""
        return outcomes_of(self.frame)


def outcomes_of(frame: pd.DataFrame, horizons: Sequence[int] = HORIZONS_YEARS) -> Outcomes:
    """Time and event of each row of a cohort's frame, in intervals up to the last of the horizons (years)."""
    years, event = frame["time_years"].to_numpy(np.float64), frame["event"].to_numpy(np.bool_)
    return Outcomes(years, event, edges_of(horizons))


def build(
    registry: Registry,
    outcomes: csv_tables.CsvTable,
    covariates: pd.DataFrame | None = None,
    transplant: Transplant = "censor",
) -> Cohort:
    """Join scans with outcomes (`follow_up.read_outcomes`) and covariates (`follow_up.read_covariates`).

    Raises:
        UsageError: a patient died or was last seen before a scan, or no scan is left.
    """
    scans, flow = registry.scans, []
    flow.append(FlowStep("registry", scans["patient"].nunique(), len(scans), ""))
    frame = scans.join(ends(outcomes, transplant), on="patient")

    def exclude(which: "pd.Series[bool]", reason: str) -> None:
        nonlocal frame
        kept = frame[~which]
        lost = frame["patient"].nunique() - kept["patient"].nunique()
        if which.any():
            flow.append(FlowStep("excluded", lost, int(which.sum()), reason))
        frame = kept

    exclude(frame["end"].isna(), "the patient has no row in the outcomes")
    _check_order(frame, outcomes)  # of all scans: one after a death is a mistake, also where a transplant excludes it
    exclude(frame["date"] >= frame["transplanted"], "the scan was acquired on or after the day of a lung transplant")
    exclude(~frame["event"].astype(bool) & (frame["date"] == frame["end"]), "no follow-up after the day of the scan")
    measured = registry.features.notna().any(axis=1).to_numpy()[frame.index.to_numpy()]
    exclude((frame["volume"] == "") & ~measured, "the registry has neither features nor a volume for the scan")
    if frame.empty:
        raise UsageError(
            f"{outcomes.path} and {registry.folder}: no scan remains: " + "; ".join(f.reason for f in flow[1:])
        )
    flow.append(FlowStep("cohort", frame["patient"].nunique(), len(frame), ""))

    frame = frame.sort_values(["patient", "date", "scan"]).reset_index(drop=True)
    frame["time_years"] = (frame["end"] - frame["date"]).dt.days / DAYS_PER_YEAR
    frame["event"] = frame["event"].astype(bool)
    frame["prior_scan"], frame["years_since_prior"] = _prior(frame)
    frame["kernel_family"] = frame["kernel_family"].replace("", "unknown")
    measured_before = _covariates(frame, covariates)
    frame["date"] = frame["date"].dt.strftime("%Y-%m-%d")
    return Cohort(pd.concat([frame[list(COLUMNS)], measured_before], axis=1), tuple(flow))


def _check_order(frame: pd.DataFrame, outcomes: csv_tables.CsvTable) -> None:
    wrong = frame[frame["known_until"] < frame["date"]]
    if wrong.empty:
        return
    first = wrong.iloc[0]
    row = int(first["row"])
    column = "death_date" if outcomes.columns["death_date"][row] is not None else "last_contact_date"
    text = f"is before the scan {first['scan']} of {first['date']:%Y-%m-%d}"
    cure = "correct the date or the scan's patient (a scan counts as a contact); do both have the same date shift?"
    raise outcomes.refuse(row, column, text, cure)


def _prior(frame: pd.DataFrame) -> tuple[list[str], list[float]]:
    """Return the same patient's latest scan of an earlier day ("" if none) and the years since; frame is sorted."""
    names: list[str] = []
    years: list[float] = []
    for _, group in frame.groupby("patient", sort=False):
        days = group["date"].to_numpy()
        for position, before in enumerate(np.searchsorted(days, days, side="left")):
            gap = (days[position] - days[before - 1]) / np.timedelta64(1, "D") if before else np.nan
            names.append(str(group["scan"].iloc[before - 1]) if before else "")
            years.append(float(gap) / DAYS_PER_YEAR)
    return names, years


def _covariates(frame: pd.DataFrame, covariates: pd.DataFrame | None) -> pd.DataFrame:
    """Return the latest value of each covariate in the year up to the day of the scan; NaN or "" if there is none."""
    found = pd.DataFrame(index=frame.index)
    if covariates is None:
        return found
    order = frame[["patient", "date"]].reset_index().sort_values("date", kind="stable")
    for column, values in covariates.groupby("column"):
        latest = pd.merge_asof(
            order,
            values[["patient", "date", "value"]].sort_values("date"),
            on="date",
            by="patient",
            tolerance=pd.Timedelta(days=COVARIATE_DAYS),
        )
        value = latest.set_index("index")["value"].reindex(frame.index)
        words = values["value"].map(lambda v: isinstance(v, str)).any()
        found[str(column)] = value.fillna("").astype(str) if words else value.astype("float64")
    return found


def courses(frame: pd.DataFrame, outcomes: csv_tables.CsvTable) -> pd.DataFrame:
    """Return what became of each scan's patient, with a transplant as an outcome of its own.

    Args:
        frame: of a cohort.
        outcomes: `follow_up.read_outcomes`.

    Returns:
        Index scan; `years` to the first of transplant, death and last contact (0 or less: the scan came after a
        transplant), `died` untransplanted, `transplanted`.
    """
    counted, apart = ends(outcomes, "ignore"), ends(outcomes, "censor")
    of = pd.DataFrame({"end": apart["end"], "died": counted["event"], "transplanted": apart["transplanted"].notna()})
    joined = frame[["scan", "patient", "date"]].join(of, on="patient").set_index("scan")
    years = (joined["end"] - pd.to_datetime(joined["date"])).dt.days / DAYS_PER_YEAR
    transplanted = joined["transplanted"].astype(bool)
    return pd.DataFrame(
        {"years": years, "died": joined["died"].astype(bool) & ~transplanted, "transplanted": transplanted}
    )


def save(cohort: Cohort, path: Path) -> None:
    """Write `path` (Parquet) and `flow.json` beside it."""
    write_whole(path.with_name("flow.json"), json.dumps([asdict(s) for s in cohort.flow], indent=1) + "\n")
    write_whole(path, cohort.frame.to_parquet(index=False))


def load(path: Path) -> pd.DataFrame:
    """Return the frame that `save` wrote.

    Raises:
        UsageError: the file is missing or no cohort.
    """
    try:
        frame = pd.read_parquet(path).rename(columns=former_names.COLUMNS)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): make it with `training cohort`") from None
    if missing := [c for c in COLUMNS if c not in frame]:
        raise UsageError(f"{path} has no column {', '.join(missing)}: make it with `training cohort`")
    return frame


def flow_lines(flow: Sequence[FlowStep]) -> list[str]:
    """Return the flow chart as text, a line a box."""
    words = {"registry": "in the registry", "excluded": "excluded", "cohort": "in the cohort"}
    return [
        f"{s.patients:6d} patients {s.scans:6d} scans {words[s.step]}" + (f": {s.reason}" if s.reason else "")
        for s in flow
    ]
