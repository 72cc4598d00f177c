"""Lung transplants as event, censored and competing: against lifelines and scikit-survival, and by hand."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from pandas.errors import Pandas4Warning
from sksurv.nonparametric import cumulative_incidence_competing_risks

from training.data import cohort, follow_up
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.calibration_curve import observed_to_expected
from training.evaluation.censoring import cumulative_incidence
from training.evaluation.transplants import Courses, sensitivity, taken

COUNT = 400


@pytest.fixture(scope="module")
def world() -> tuple[Courses, np.ndarray]:
    """Courses of scans and their risks by the end of years 1 to 3; the sicker die and are transplanted sooner."""
    rng = np.random.default_rng(7)
    severity = rng.normal(size=COUNT)
    death, transplant = (rng.exponential(mean * np.exp(-severity)) for mean in (6, 15))
    lost = rng.uniform(0.3, 8, COUNT)
    first = np.minimum(np.minimum(death, transplant), lost)
    risks = -np.expm1(-np.exp(severity)[:, None] * np.arange(1, 4) / 6)
    return Courses(first, first == death, first == transplant), risks


def test_the_cumulative_incidence_is_that_of_scikit_survival_and_lifelines(world) -> None:
    courses, _ = world
    kind = courses.died + 2 * courses.transplanted
    times, found = cumulative_incidence_competing_risks(kind, courses.years)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Pandas4Warning)  # lifelines' own copies
        lifelines = AalenJohansenFitter(calculate_variance=False).fit(courses.years, kind, event_of_interest=1)
    either = Outcomes(courses.years, kind > 0)
    for horizon in (0.5, 1.0, 3.0):
        own = cumulative_incidence(either, courses.died, horizon)
        assert own == pytest.approx(found[1][times <= horizon][-1], abs=1e-12)
        assert own == pytest.approx(float(lifelines.cumulative_density_.loc[:horizon].iloc[-1, 0]), abs=1e-12)
    counts = np.random.default_rng(1).integers(0, 3, (2, COUNT)).astype(float)
    for drawn, own in zip(counts, cumulative_incidence(either, courses.died, 3.0, counts), strict=True):
        rows = np.repeat(np.arange(COUNT), drawn.astype(int))
        times, found = cumulative_incidence_competing_risks(kind[rows], courses.years[rows])
        assert own == pytest.approx(found[1][times <= 3.0][-1], abs=1e-12)
    assert np.isnan(cumulative_incidence(either, courses.died, 9.0)), "nobody was followed so long"


def test_a_competing_transplant_is_a_control_that_weighs_by_the_censoring_up_to_it(world) -> None:
    """The AUC by all pairs, weights by lifelines' curve of censoring."""
    courses, risks = world
    at, observed = taken("compete", courses, 3)
    either = courses.died | courses.transplanted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Pandas4Warning)
        lost = KaplanMeierFitter().fit(courses.years, ~either)
        g = lost.survival_function_at_times(np.minimum(courses.years, 3)).to_numpy()
    within = courses.years <= 3
    weight = np.where(either & within | ~within, 1 / g, 0)
    case, control = courses.died & within, ~(courses.died & within)
    risk = risks[:, 2]
    pairs = weight[case][:, None] * weight[control]
    higher = risk[case][:, None] > risk[control]
    assert float(metrics.auc(at, risk)) == pytest.approx((pairs * higher).sum() / pairs.sum(), abs=1e-9)
    assert 0 < observed < taken("censor", courses, 3)[1] < taken("event", courses, 3)[1]


def test_event_and_censor_are_what_a_run_with_that_setting_finds(tmp_path: Path) -> None:
    """From the tables: the same scans, whichever treatment the run itself has chosen."""
    rng = np.random.default_rng(3)
    day = np.datetime64("2012-01-01")
    count = 150
    scans = pd.DataFrame({"patient": [f"P{i}" for i in range(count)], "scan": [f"s{i}" for i in range(count)]})
    end = day + rng.integers(200, 2500, count)
    transplanted = rng.random(count) < 0.3
    died = rng.random(count) < 0.5
    moved = day + (rng.random(count) * (end - day).astype(int)).astype(int)
    lines = [
        f"{p},{e if d else ''},{e},{m if t else ''}"
        for p, e, d, m, t in zip(scans["patient"], end, died, moved, transplanted, strict=True)
    ]
    header = "patient,death_date,last_contact_date,transplant_date"
    (tmp_path / "outcomes.csv").write_text("\n".join([header, *lines]) + "\n")
    outcomes = follow_up.read_outcomes(tmp_path / "outcomes.csv")
    frame = scans.assign(date=str(day))
    courses = cohort.courses(frame, outcomes)
    risks = np.cumsum(rng.uniform(0.01, 0.2, (count, 3)), axis=1)
    found = sensitivity(frame, risks, courses, 20, (1, 3))
    assert [at.transplanted for at in found] == [
        int((transplanted & ((moved - day).astype(int) / 365.25 <= years)).sum()) for years in (1, 3)
    ]
    for treatment in ("event", "censor"):
        ends = follow_up.ends(outcomes, treatment)
        years = (ends["end"] - pd.Timestamp(day)).dt.days.to_numpy() / 365.25
        of = Outcomes(years, ends["event"].to_numpy(bool))
        for at in found:
            told = next(t for t in at.treatments if t.treatment == treatment)
            whole, risk = metrics.at_horizon(of, at.years), risks[:, at.years - 1]
            assert told.auc.value == pytest.approx(float(metrics.auc(whole, risk)), abs=1e-12)
            assert told.calibration_slope.value == pytest.approx(float(metrics.calibration_slope(whole, risk)))
            assert told.observed_to_expected.value == pytest.approx(float(observed_to_expected(whole, risk)))
            assert told.auc.lower is not None and told.auc.lower < told.auc.value < (told.auc.upper or 0)
    none = courses.assign(transplanted=False)
    assert sensitivity(frame, risks, none, 20, (1, 3)) == ()
    later = courses.assign(years=np.where(courses["transplanted"], -1.0, courses["years"]))
    assert sensitivity(frame, risks, later, 0, (1, 3)) == (), "scans from after a transplant are not judged by it"
