"""The synthetic patients: their truth is the probability of what is drawn, and their rates are the study's."""

import dataclasses

import numpy as np
import pytest

from training.synthetic.patients import SCANNERS, Patient, SyntheticScan, cumulative_hazard, draw, true_risk

PATIENT = Patient("S1", person=1, age=60, sex="F", severity=0.4, progression=0.05, fibrosis=1, first_day=0)
SEEDS = (20260101, 1, 2, 4)


@pytest.fixture(scope="module")
def drawn() -> dict[int, tuple[list[Patient], list[SyntheticScan]]]:
    return {seed: draw(600, seed) for seed in SEEDS}


def observed(scans: list[SyntheticScan], horizon: float) -> tuple[float, float]:
    """Per cent of scans that are followed by an observed death within the horizon, and that are censored before it."""
    years = np.array([s.patient.end - s.years for s in scans])
    died = np.array([s.patient.death <= s.patient.contact for s in scans])
    return 100 * float(np.mean(died & (years <= horizon))), 100 * float(np.mean(~died & (years < horizon)))


def test_hazards_add_up_over_time() -> None:
    survival = np.prod([1 - true_risk(PATIENT, years, 1) for years in (0, 1, 2)])
    assert 1 - true_risk(PATIENT, 0, 3) == pytest.approx(survival, rel=1e-9)
    assert cumulative_hazard(PATIENT, 0.0) == 0


@pytest.mark.parametrize(("field", "value"), [("severity", 0.6), ("progression", 0.1), ("age", 75.0), ("sex", "M")])
def test_risk_rises_with(field: str, value: float | str) -> None:
    worse = dataclasses.replace(PATIENT, **{field: value})
    assert true_risk(worse, 0, 3) > true_risk(PATIENT, 0, 3)


def test_progression_counts_beyond_the_severity_that_it_leads_to() -> None:
    slow = dataclasses.replace(PATIENT, severity=0.5, progression=0.0)
    fast = dataclasses.replace(PATIENT, severity=0.5, progression=0.05)
    assert true_risk(fast, 0, 1 / 24) > 1.2 * true_risk(slow, 0, 1 / 24)


@pytest.mark.parametrize(("horizon", "percent"), [(1, 8.5), (3, 15.3), (5, 20.1)])
def test_deaths_follow_as_often_as_in_the_study(drawn, horizon: float, percent: float) -> None:
    of_one, _ = observed(drawn[SEEDS[0]][1], horizon)
    assert of_one == pytest.approx(percent, abs=2.0)
    assert np.mean([observed(scans, horizon)[0] for _, scans in drawn.values()]) == pytest.approx(percent, abs=1.5)


def test_there_are_as_many_scans_as_in_the_study(drawn) -> None:
    assert all(len(scans) >= 2000 for _, scans in drawn.values())
    assert {s.scanner for s in drawn[SEEDS[0]][1]} == set(SCANNERS)
    assert {s.kernel_family for s in drawn[SEEDS[0]][1]} == {"soft", "medium", "lung"}


def test_the_true_risk_is_the_share_of_deaths_that_are_drawn(drawn) -> None:
    first = [s for _, scans in drawn.values() for s in scans if s.years == 0]
    risk = np.array([s.risks[1] for s in first])
    died = np.array([s.patient.death <= 3 for s in first])
    assert died.mean() == pytest.approx(risk.mean(), abs=3 * np.sqrt((risk * (1 - risk)).mean() / len(risk)))
    high = risk > np.quantile(risk, 0.8)
    assert died[high].mean() > 3 * died[~high].mean()
    assert (np.diff([s.risks for s in first], axis=1) >= 0).all()


def test_scans_lie_before_death_and_last_contact_on_days_of_their_own(drawn) -> None:
    patients, scans = drawn[SEEDS[0]]
    assert {s.patient.patient for s in scans} == {p.patient for p in patients}, "the first scan is always there"
    assert all(s.years < s.patient.end or s.years == 0 for s in scans)
    days = [(s.patient.patient, round(s.years * 365.25)) for s in scans]
    assert len(set(days)) == len(days)


def test_loss_to_follow_up_depends_on_severity(drawn) -> None:
    patients = [p for people, _ in drawn.values() for p in people]
    # Among those whom death does not take in three years, the sicker half must be lost more often.
    alive = [p for p in patients if p.death > 3]
    median = np.median([p.severity for p in alive])
    lost = {half: np.mean([p.contact < 3 for p in alive if (p.severity > median) == half]) for half in (False, True)}
    assert lost[True] > lost[False]
    assert any(p.transplanted for p in patients)


def test_more_patients_leave_the_first_as_they_were(drawn) -> None:
    patients, scans = draw(5, SEEDS[0])
    assert patients == drawn[SEEDS[0]][0][:5]
    assert scans == drawn[SEEDS[0]][1][: len(scans)]
