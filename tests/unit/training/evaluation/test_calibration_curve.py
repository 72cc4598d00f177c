"""The smooth calibration curve: equal to other people's logistic regression, and right where the truth is known."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from sklearn.linear_model import LogisticRegression

from training.data.outcomes import Outcomes
from training.evaluation import calibration_curve, metrics

COUNT, YEARS = 900, 3


def made(seed: int = 1) -> tuple[Outcomes, np.ndarray]:
    """Outcomes, about 40 % of them censored before three years, and the true risk at three years."""
    rng = np.random.default_rng(seed)
    rate = 0.12 * np.exp(0.9 * rng.standard_normal(COUNT))
    death, lost = rng.exponential(1 / rate), rng.exponential(5, COUNT)
    return Outcomes(np.minimum(death, lost), death <= lost), 1 - np.exp(-YEARS * rate)


def test_the_index_is_that_of_a_weighted_logistic_regression_on_splines() -> None:
    """Harrell's restricted cubic spline written out by hand, fitted by scikit-learn."""
    outcomes, risk = made()
    at = metrics.at_horizon(outcomes, YEARS)
    z = np.log(risk / (1 - risk))
    k = np.quantile(z, (0.05, 0.35, 0.65, 0.95))

    def cubed(values: np.ndarray) -> np.ndarray:
        return np.clip(values, 0, None) ** 3

    columns = [np.ones(COUNT), z]
    for j in (0, 1):
        spline = cubed(z - k[j]) - cubed(z - k[2]) * (k[3] - k[j]) / (k[3] - k[2])
        spline += cubed(z - k[3]) * (k[2] - k[j]) / (k[3] - k[2])
        columns.append(spline / (k[3] - k[0]) ** 2)
    x, known = np.stack(columns, axis=1), at.weights > 0
    solver = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-12, max_iter=20000, solver="newton-cholesky")
    fitted = solver.fit(x[known], at.dead[known], at.weights[known])
    expected = np.abs(fitted.predict_proba(x)[:, 1] - risk).mean()
    assert calibration_curve.integrated_calibration_index(at, risk) == pytest.approx(expected, abs=1e-6)


def test_observed_to_expected_is_kaplan_meier_s_risk_over_the_mean() -> None:
    outcomes, risk = made()
    observed = 1 - float(KaplanMeierFitter().fit(outcomes.years, outcomes.event).predict(YEARS))
    found = calibration_curve.observed_to_expected(metrics.at_horizon(outcomes, YEARS), risk)
    assert found == pytest.approx(observed / risk.mean(), abs=1e-6)


def test_it_finds_a_risk_that_is_too_high_and_the_true_one_right() -> None:
    outcomes, risk = made()
    at = metrics.at_horizon(outcomes, YEARS)
    high = 1 / (1 + np.exp(-(np.log(risk / (1 - risk)) + 1)))
    assert calibration_curve.integrated_calibration_index(at, risk) < 0.06
    assert calibration_curve.integrated_calibration_index(at, high) > 0.12
    assert calibration_curve.observed_to_expected(at, high) < 0.8
    curve = calibration_curve.smooth_curve(at, (), high)
    middle = [point for point in curve if 0.2 < point.predicted < 0.8]
    assert len(middle) > 10 and all(point.observed < point.predicted for point in middle)
    assert all(point.lower is None for point in curve)


def test_each_draw_of_a_bootstrap_is_as_it_were_alone() -> None:
    outcomes, risk = made()
    counts = metrics.bootstrap_counts([str(i // 2) for i in range(COUNT)], 4, 3)
    together = metrics.at_horizon(outcomes, YEARS, counts)
    alone = [metrics.at_horizon(outcomes, YEARS, one) for one in counts]
    for metric in (calibration_curve.integrated_calibration_index, calibration_curve.observed_to_expected):
        np.testing.assert_allclose(metric(together, risk), [metric(at, risk) for at in alone], atol=1e-9)
    (point, *_) = calibration_curve.smooth_curve(metrics.at_horizon(outcomes, YEARS), (together,), risk)
    assert point.lower is not None and point.upper is not None and point.lower <= point.upper


def test_one_risk_for_all_is_as_far_off_as_the_observed_risk() -> None:
    outcomes, _ = made()
    at = metrics.at_horizon(outcomes, YEARS)
    weighted = (at.weights * at.dead).sum() / at.weights.sum()
    found = calibration_curve.integrated_calibration_index(at, np.full(COUNT, 0.5))
    assert found == pytest.approx(abs(weighted - 0.5), abs=1e-6)


def test_where_nobody_died_there_is_nothing_to_measure() -> None:
    outcomes = Outcomes(np.full(5, 9.0), np.zeros(5, bool))
    at, risk = metrics.at_horizon(outcomes, YEARS), np.linspace(0.1, 0.5, 5)
    assert np.isnan(calibration_curve.integrated_calibration_index(at, risk))
    assert calibration_curve.smooth_curve(at, (), risk) == ()
