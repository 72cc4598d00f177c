"""Intercept and slope of hazards at a site: equal to a logistic regression, and right where the truth is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dicomnode.analysis.risk.ensemble import hazard_logits
from dicomnode.analysis.risk.tabular import risk_of_logits
from dicomnode.errors import UsageError
from training.data.outcomes import Outcomes, interval_targets
from training.validation import calibrate

INTERVALS = 5


def drawn(count: int, intercept: float, slope: float, seed: int = 1) -> tuple[np.ndarray, Outcomes]:
    """Risks of one member (scans, 1, intervals), and outcomes from hazards that these misjudge as stated."""
    rng = np.random.default_rng(seed)
    logits = -2.2 + 0.9 * rng.standard_normal((count, 1)) + np.zeros((count, INTERVALS))
    hazards = 1 / (1 + np.exp(-(slope * logits + intercept)))
    died = rng.random((count, INTERVALS)) < hazards
    year = np.where(died.any(axis=1), died.argmax(axis=1), INTERVALS)
    lost = rng.uniform(0.5, 8, count)
    years = np.minimum(np.where(year < INTERVALS, year + 0.5, INTERVALS + 1.0), lost)
    event = (year < INTERVALS) & (year + 0.5 <= lost)
    return risk_of_logits(logits)[:, None], Outcomes(years, event)


def test_of_one_member_it_is_a_logistic_regression_of_the_years() -> None:
    members, outcomes = drawn(300, 0.8, 0.6)
    targets, weights = interval_targets(outcomes)
    logits = hazard_logits(members[:, 0])
    x = np.stack([np.ones(logits.size), logits.ravel()], axis=1)
    solver = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-12, max_iter=20000, solver="newton-cholesky")
    fitted = solver.fit(x, targets.ravel(), weights.ravel())
    found = calibrate.fit(members, outcomes)
    assert (found.intercept, found.slope) == pytest.approx(tuple(fitted.coef_[0]), abs=1e-6)


def test_it_finds_what_the_hazards_were_made_of() -> None:
    members, outcomes = drawn(4000, 0.8, 0.6)
    found = calibrate.fit(members, outcomes)
    assert found.intercept == pytest.approx(0.8, abs=0.2) and found.slope == pytest.approx(0.6, abs=0.1)
    level = calibrate.fit(*drawn(4000, 0.8, 1.0), slope=False)
    assert level.slope == 1 and level.intercept == pytest.approx(0.8, abs=0.1)


def test_the_risk_stays_monotone_and_keeps_its_order() -> None:
    members, outcomes = drawn(300, 0.8, 0.6)
    risk = calibrate.fit(members, outcomes).risk(members)
    assert (np.diff(risk, axis=1) >= 0).all()
    assert (np.argsort(risk[:, -1]) == np.argsort(members[:, 0, -1])).all()


def test_a_patient_s_own_outcome_does_not_set_the_patient_s_risk() -> None:
    members, outcomes = drawn(200, 0.8, 0.6)
    folds = np.arange(200) % 5
    before = calibrate.cross_fitted(members, outcomes, folds)
    changed = Outcomes(np.where(folds == 2, 0.5, outcomes.years), np.where(folds == 2, True, outcomes.event))
    after = calibrate.cross_fitted(members, changed, folds)
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds != 2], after[folds != 2])


def test_a_recalibration_can_be_taken_back() -> None:
    members, _ = drawn(50, 0.0, 1.0)
    found = calibrate.SiteFit(0.7, 0.6)
    moved = risk_of_logits(found.slope * hazard_logits(members) + found.intercept)
    np.testing.assert_allclose(found.undone(moved), members, atol=1e-9)
    assert not np.allclose(moved, members)


def test_risks_that_run_against_death_are_refused() -> None:
    members, outcomes = drawn(400, -4.0, -1.0)
    with pytest.raises(UsageError, match="do not go with death here"):
        calibrate.fit(members, outcomes)
