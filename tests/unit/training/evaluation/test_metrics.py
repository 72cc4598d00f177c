"""Metrics of risk under censoring: by hand, by their definitions on repeated scans, and against a known truth."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.outcomes import Outcomes, status_at
from training.evaluation import metrics
from training.evaluation.metrics import AtHorizon, at_horizon

FOUR = Outcomes(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True]))
RISK = np.array([0.9, 0.5, 0.2, 0.4])

AT_HORIZON: dict[str, Callable[[metrics.AtHorizon, np.ndarray], np.ndarray]] = {
    "auc": metrics.auc,
    "brier": metrics.brier,
    "scaled_brier": metrics.scaled_brier,
    "slope": metrics.calibration_slope,
    "intercept": metrics.calibration_intercept,
    "sensitivity": lambda at, risk: metrics.sensitivity(at, risk, 0.3),
    "specificity": lambda at, risk: metrics.specificity(at, risk, 0.3),
    "net_benefit": lambda at, risk: metrics.net_benefit(at, risk, 0.3),
}


def simulated(n: int, seed: int, lost_per_x: float = 0.0) -> tuple[Outcomes, Outcomes, np.ndarray, np.ndarray]:
    """(as observed, without censoring, true three-year risk, covariate): about 40 % are lost before three years."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    rate = 0.12 * np.exp(0.9 * x)
    death = rng.exponential(1 / rate)
    lost = rng.exponential(1 / ((0.2 if lost_per_x < 0 else 0.22) * np.exp(lost_per_x * x)))
    observed = Outcomes(np.minimum(death, lost), death <= lost)
    return observed, Outcomes(death, np.ones(n, bool)), 1 - np.exp(-3 * rate), x


def test_by_hand() -> None:
    at = at_horizon(FOUR, 3)
    # Dead by 3: the first (weight 1) and the third (1.5); alive: the fourth (1.5); the second is not known.
    assert metrics.auc(at, RISK) == pytest.approx(1.0 / 2.5)
    assert metrics.brier(at, RISK) == pytest.approx((0.1**2 + 1.5 * 0.8**2 + 1.5 * 0.4**2) / 4)
    assert metrics.sensitivity(at, RISK, 0.3) == pytest.approx(1 / 2.5)
    assert metrics.specificity(at, RISK, 0.4) == pytest.approx(0.0)
    assert metrics.net_benefit(at, RISK, 0.3) == pytest.approx(1 / 4 - 1.5 / 4 * 3 / 7)


def test_tied_risks_count_half() -> None:
    at = at_horizon(FOUR, 3)
    assert metrics.auc(at, np.full(4, 0.3)) == pytest.approx(0.5)
    assert metrics.uno_c(FOUR, np.full(4, 0.3), 5) == pytest.approx(0.5)
    false, true = metrics.roc(at, np.full(4, 0.3))
    np.testing.assert_allclose([false, true], [[0, 1], [0, 1]])


def test_the_curve_encloses_the_auc() -> None:
    observed, _, risk, _ = simulated(500, 1)
    at = at_horizon(observed, 3)
    false, true = metrics.roc(at, np.round(risk, 2))
    assert np.trapezoid(true, false) == pytest.approx(metrics.auc(at, np.round(risk, 2)))
    assert (false[0], true[0], false[-1], true[-1]) == pytest.approx((0, 0, 1, 1))


@pytest.mark.parametrize("name", AT_HORIZON)
@pytest.mark.parametrize("horizon", [1.0, 3.0])
def test_bootstrap_rows_are_the_same_as_repeated_scans(name: str, horizon: float) -> None:
    observed, _, risk, _ = simulated(120, 2)
    risk = np.round(0.8 * risk + 0.05, 2)
    counts = metrics.bootstrap_counts([f"P{i // 3}" for i in range(120)], 4, seed=1)
    together = AT_HORIZON[name](at_horizon(observed, horizon, counts), risk)
    for row, count in enumerate(counts):
        again = np.repeat(np.arange(120), count.astype(int))
        alone = AT_HORIZON[name](at_horizon(observed[again], horizon), risk[again])
        assert together[row] == pytest.approx(float(alone), rel=1e-7)


def test_uno_c_of_bootstrap_rows_is_the_same_as_of_repeated_scans() -> None:
    observed, _, risk, _ = simulated(120, 3)
    counts = metrics.bootstrap_counts([f"P{i // 3}" for i in range(120)], 3, seed=1)
    together = metrics.uno_c(observed, risk, 5, counts)
    for row, count in enumerate(counts):
        again = np.repeat(np.arange(120), count.astype(int))
        assert together[row] == pytest.approx(float(metrics.uno_c(observed[again], risk[again], 5)))


def test_the_true_risk_is_calibrated_and_a_stretched_one_is_not() -> None:
    observed, _, risk, _ = simulated(20000, 4)
    at = at_horizon(observed, 3)
    assert metrics.calibration_slope(at, risk) == pytest.approx(1, abs=0.06)
    assert metrics.calibration_intercept(at, risk) == pytest.approx(0, abs=0.06)
    logit = np.log(risk / (1 - risk))
    stretched = 1 / (1 + np.exp(-2 * logit))
    assert metrics.calibration_slope(at, stretched) == pytest.approx(0.5, abs=0.03)
    assert metrics.calibration_intercept(at, 1 / (1 + np.exp(-(logit - 1)))) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("name", AT_HORIZON)
def test_weighting_nearly_meets_the_truth_where_censoring_is_independent(name: str) -> None:
    observed, complete, risk, _ = simulated(20000, 5)
    truth = float(AT_HORIZON[name](at_horizon(complete, 3), risk))
    assert float(AT_HORIZON[name](at_horizon(observed, 3), risk)) == pytest.approx(truth, abs=0.05)


def known_only(outcomes: Outcomes, horizon: float) -> AtHorizon:
    """The naive view: scans censored before the horizon are dropped, the others weigh alike."""
    dead, known = status_at(outcomes, horizon)
    return AtHorizon(outcomes, horizon, dead, known.astype(np.float64), known.astype(np.float64))


@pytest.mark.parametrize(
    ("name", "lost_per_x"),
    # Where the sicker are lost sooner, the two errors of the naive Brier score happen to cancel in this simulation.
    [(name, -0.5) for name in AT_HORIZON] + [(name, 0.8) for name in AT_HORIZON if name != "brier"],
)
def test_weights_that_know_the_covariate_lie_closer_to_the_truth_than_dropping_the_lost(
    name: str, lost_per_x: float
) -> None:
    """40 % are lost before three years, depending on a covariate: whom the naive metric keeps is no fair sample."""
    metric, errors = AT_HORIZON[name], {"dropped": [], "weighted": []}
    for seed in range(8):
        observed, complete, risk, x = simulated(3000, 10 + seed, lost_per_x)
        lost = np.mean(~observed.event & (observed.years < 3))
        assert lost == pytest.approx(0.40, abs=0.04)
        truth = metric(at_horizon(complete, 3), risk)
        errors["dropped"].append(abs(metric(known_only(observed, 3), risk) - truth))
        errors["weighted"].append(abs(metric(at_horizon(observed, 3, covariates=x[:, None]), risk) - truth))
    assert np.mean(errors["weighted"]) < 0.7 * np.mean(errors["dropped"])


def test_strata_do_it_too_and_kaplan_meier_alone_does_not() -> None:
    """Brier's score: of the marginal weights, those in strata of the covariate, and Cox's, the last two come close."""
    errors = {"marginal": [], "strata": [], "cox": []}
    for seed in range(8):
        observed, complete, risk, x = simulated(3000, 30 + seed, lost_per_x=0.8)
        truth = metrics.brier(at_horizon(complete, 3), risk)
        fifths = np.searchsorted(np.quantile(x, [0.2, 0.4, 0.6, 0.8]), x)
        ways = {"marginal": {}, "strata": {"strata": fifths.tolist()}, "cox": {"covariates": x[:, None]}}
        for way, model in ways.items():
            errors[way].append(metrics.brier(at_horizon(observed, 3, **model), risk) - truth)
    bias = {way: abs(np.mean(found)) for way, found in errors.items()}
    assert bias["strata"] < 0.5 * bias["marginal"] and bias["cox"] < 0.5 * bias["marginal"]


@pytest.mark.parametrize("event", [True, False])
def test_without_deaths_or_survivors_there_is_nothing_to_measure(event: bool) -> None:
    one_sided = Outcomes(np.array([1.0, 2.0]) if event else np.array([5.0, 6.0]), np.array([event, event]))
    at = at_horizon(one_sided, 3)
    risk = np.array([0.2, 0.4])
    assert np.isnan([metrics.auc(at, risk), metrics.calibration_slope(at, risk)]).all()
    assert np.isnan(metrics.calibration_intercept(at, risk))
    assert np.isnan(metrics.sensitivity(at, risk, 0.3)) == (not event)


def test_separated_risks_have_no_slope() -> None:
    apart = Outcomes(np.array([1.0, 1.0, 5.0, 5.0]), np.ones(4, bool))
    assert np.isnan(metrics.calibration_slope(at_horizon(apart, 3), np.array([0.9, 0.8, 0.2, 0.1])))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 9))
def test_the_bootstrap_draws_whole_patients(patients: list[str], seed: int) -> None:
    counts = metrics.bootstrap_counts(patients, 5, seed)
    for patient in set(patients):
        rows = [i for i, p in enumerate(patients) if p == patient]
        assert (counts[:, rows] == counts[:, rows[:1]]).all()
    first = [patients.index(p) for p in sorted(set(patients))]
    assert (counts[:, first].sum(axis=1) == len(first)).all()


def test_an_interval_leaves_out_what_has_no_value() -> None:
    values = np.r_[np.arange(101.0), np.nan]
    assert metrics.interval(values) == pytest.approx((2.5, 97.5))
    assert np.isnan(metrics.interval(np.full(3, np.nan))).all()


def test_calibration_groups_hold_everyone_and_the_observed_risk() -> None:
    observed, _, risk, _ = simulated(2000, 6)
    counts = metrics.bootstrap_counts([str(i) for i in range(2000)], 50, seed=1)
    groups = metrics.calibration_groups(observed, risk, 3, counts, groups=5)
    assert [g.scans for g in groups] == [400] * 5
    assert all(g.lower <= g.observed <= g.upper for g in groups)
    assert all(abs(g.observed - g.predicted) < 0.1 for g in groups)
    tied = metrics.calibration_groups(observed, np.where(risk > 0.3, 0.5, 0.1), 3, counts)
    assert [round(g.predicted, 6) for g in tied] == [0.1, 0.5]
