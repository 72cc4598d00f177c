"""Time from each scan to death or last contact; who is left out and why; nothing later than the scan is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import FIRST_DAY, world, write
from training.data import cohort, follow_up
from training.data.follow_up import Transplant
from training.data.registry_folder import SCANS, read

OUTCOMES = "patient,death_date,last_contact_date,transplant_date\n"
COVARIATES = "patient,date,name,value,unit\n"
#: (patient, scan, date)
THREE = [("A", "A1", "2010-01-01"), ("A", "A2", "2011-01-01"), ("B", "B1", "2012-06-01")]


def build(
    folder: Path,
    outcomes: str,
    scans: list[tuple[str, str, str]] = THREE,
    covariates: str = "",
    transplant: Transplant = "censor",
) -> cohort.Cohort:
    table = pd.DataFrame([dict.fromkeys(SCANS, "") | dict(zip(SCANS, s, strict=False)) for s in scans])
    measured = pd.DataFrame({"scan": [s[1] for s in scans], "quantities.lungs.mean_hu": np.arange(len(scans)) * 1.0})
    folder.mkdir(exist_ok=True)
    (folder / "registry.toml").write_text('format = 1\nmade_by = "node"\n')
    table.to_csv(folder / "scans.csv", index=False)
    measured.to_parquet(folder / "features.parquet", index=False)
    (folder / "outcomes.csv").write_text(OUTCOMES + outcomes)
    values = None
    if covariates:
        (folder / "covariates.csv").write_text(COVARIATES + covariates)
        values = follow_up.read_covariates(folder / "covariates.csv")
    return cohort.build(read(folder), follow_up.read_outcomes(folder / "outcomes.csv"), values, transplant)


def test_time_counts_from_each_scan(tmp_path: Path) -> None:
    frame = build(tmp_path, "A,2012-01-01,2011-12-30,\nB,,2014-06-01,\n").frame
    assert frame["scan"].to_list() == ["A1", "A2", "B1"]
    np.testing.assert_allclose(frame["time_years"], [730 / 365.25, 365 / 365.25, 730 / 365.25])
    assert frame["event"].to_list() == [True, True, False]
    assert frame["prior_scan"].to_list() == ["", "A1", ""]
    np.testing.assert_allclose(frame["years_since_prior"], [np.nan, 365 / 365.25, np.nan])


@pytest.mark.parametrize(
    ("transplant", "scans", "years", "event"),
    [("event", ["A1"], 181, True), ("censor", ["A1"], 181, False), ("ignore", ["A1", "A2"], 730, True)],
)
def test_a_transplant_is_what_the_setting_says(tmp_path, transplant, scans, years, event) -> None:
    made = build(tmp_path, "A,2012-01-01,,2010-07-01\n", transplant=transplant)
    assert made.frame["scan"].to_list() == scans
    assert made.frame["time_years"][0] == years / 365.25 and made.frame["event"][0] == event


def test_the_flow_chart_names_every_exclusion_and_adds_up(tmp_path: Path) -> None:
    scans = [*THREE, ("C", "C1", "2010-01-01"), ("C", "C2", "2010-05-05"), ("D", "D1", "2010-01-01")]
    made = build(tmp_path, "A,2012-01-01,,2010-07-01\nC,,2010-05-05,\nD,2010-01-01,,\n", scans)
    assert [(s.step, s.patients, s.scans) for s in made.flow] == [
        ("registry", 4, 6), ("excluded", 1, 1), ("excluded", 0, 1), ("excluded", 0, 1), ("cohort", 3, 3)
    ]  # fmt: skip
    assert [s.reason for s in made.flow[1:4]] == [
        "the patient has no row in the outcomes",
        "the scan was acquired on or after the day of a lung transplant",
        "no follow-up after the day of the scan",
    ]
    # A death on the day of the scan is known; it stays.
    assert made.frame.set_index("scan").loc["D1", ["time_years", "event"]].to_list() == [0.0, True]
    cohort.save(made, tmp_path / "run" / "cohort.parquet")
    pd.testing.assert_frame_equal(cohort.load(tmp_path / "run" / "cohort.parquet"), made.frame)
    assert json.loads((tmp_path / "run" / "flow.json").read_text())[0]["scans"] == 6
    assert cohort.flow_lines(made.flow)[-1].split() == ["3", "patients", "3", "scans", "in", "the", "cohort"]


def test_a_cohort_with_the_former_names_of_its_columns_is_read(tmp_path: Path) -> None:
    made = build(tmp_path, "A,2012-01-01,,\n", THREE)
    former = {"prior_scan": "earlier_scan", "years_since_prior": "years_since_earlier"}
    made.frame.rename(columns=former).to_parquet(tmp_path / "cohort.parquet", index=False)
    pd.testing.assert_frame_equal(cohort.load(tmp_path / "cohort.parquet"), made.frame)


def test_a_scan_without_features_or_volume_is_left_out(tmp_path: Path) -> None:
    made = world(patients=3)
    folder = write(made, tmp_path)
    made.features.iloc[1:].to_parquet(folder / "features.parquet", index=False)
    found = cohort.build(read(folder), follow_up.read_outcomes(folder / "outcomes.csv"))
    assert made.scans["scan"][0] not in found.frame["scan"].to_list()
    assert "neither features nor a volume" in found.flow[1].reason


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ("A,2010-06-01,,\n", "row 2, column death_date: '2010-06-01' is before the scan A2 of 2011-01-01: correct"),
        ("B,2013-01-01,,\nA,,2010-06-01,\n", "row 3, column last_contact_date: '2010-06-01' is before the scan A2"),
        ("A,2010-06-01,,2010-03-01\n", "row 2, column death_date: '2010-06-01' is before the scan A2 of 2011-01-01"),
        ("A,,2010-06-01,2010-03-01\n", "column last_contact_date: '2010-06-01' is before the scan A2 of 2011-01-01"),
        ("A,,,\n", "row 2, column last_contact_date: '' is empty, and so is death_date: give death_date"),
        ("A,yes,,\n", "row 2, column death_date: 'yes' is a death without a date: find the date"),
        ("A,2012-13-01,,\n", "row 2, column death_date: '2012-13-01' is not a valid date"),
        ("A,2012-01-01,,\nA,,2013-01-01,\n", "row 3, column patient: 'A' already occurs in row 2"),
        ("A,2012-01-01,2012-02-01,\n", "column last_contact_date: '2012-02-01' is after the death on 2012-01-01"),
        ("A,,2012-01-01,2013-01-01\n", "column transplant_date: '2013-01-01' is after the last known date, 2012"),
        ("X,2012-01-01,,\n", "no scan remains: the patient has no row in the outcomes"),
    ],
)
def test_bad_outcomes_are_refused(tmp_path: Path, outcomes: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(tmp_path, outcomes)
    assert message in str(refused.value) and "outcomes.csv" in str(refused.value)


def test_covariates_are_the_latest_before_the_scan(tmp_path: Path) -> None:
    rows = (
        "A,2009-06-01,fvc,80,percent_predicted\nA,2010-01-01,fvc,70,percent_predicted\n"
        "A,2010-01-02,fvc,60,percent_predicted\nA,2009-12-01,dlco,4.5,mmol/min/kPa\nB,2012-07-01,fvc,2.5,l\n"
    )
    frame = build(tmp_path, "A,2014-01-01,,\nB,,2014-06-01,\n", covariates=rows).frame.set_index("scan")
    assert frame["fvc_percent_predicted"].fillna(-1).to_list() == [70, 60, -1]
    # A year and a month old at A2; measured after B1.
    assert frame["dlco_mmol_min_kpa"].fillna(-1).to_list() == [4.5, -1, -1]
    assert frame["fvc_l"].isna().all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,2010-01-01,fvc,2.5,litre", "column unit: 'litre' is not a unit of fvc: use percent_predicted, l"),
        ("A,2010-01-01,dlco,2.5,l", "column unit: 'l' is not a unit of dlco: use percent_predicted, mmol/min/kPa"),
        (
            "A,2010-01-01,fvc,75,l",
            "column value: '75' is not between 0.2 and 9.9 l: correct the value or state its unit",
        ),
        ("A,2010-01-01,kco,75,l", "column name: 'kco' is not allowed"),
        (
            "A,2010-01-01,fvc,2,l\nA,2010-01-01,fvc,3,l",
            "row 3, column name: 'fvc' was already measured on the same day in row 2",
        ),
    ],
)
def test_bad_covariates_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(tmp_path, "A,2014-01-01,,\n", covariates=row + "\n")
    assert message in str(refused.value) and "covariates.csv, row" in str(refused.value)


@settings(max_examples=30, deadline=None)
@given(days=st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_only_prior_scans_are_looked_back_at(days: list[int]) -> None:
    dates = pd.to_datetime(sorted(FIRST_DAY.toordinal() + d for d in days), origin="1970-01-01", unit="D")
    frame = pd.DataFrame({"patient": "A", "date": dates, "scan": [f"s{i}" for i in range(len(days))]})
    names, years = cohort._prior(frame)
    day_of = dict(zip(frame["scan"], frame["date"], strict=True))
    for name, gap, day in zip(names, years, frame["date"], strict=True):
        before = [d for d in day_of.values() if d < day]
        assert (name != "") == bool(before) == np.isfinite(gap)
        if name:
            assert day_of[name] == max(before) and gap > 0
