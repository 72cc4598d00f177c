"""Kaplan and Meier's curves and the censoring weights, by hand and on drawn data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.outcomes import Outcomes
from training.evaluation.censoring import censoring_survival, censoring_weights, cox, kaplan_meier, kaplan_meier_risk

FOUR = Outcomes(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True]))

drawn = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=2, max_size=30).map(
    lambda rows: Outcomes(np.array([float(t) for t, _ in rows]), np.array([e for _, e in rows]))
)


def test_the_censoring_distribution_by_hand() -> None:
    # One of the three scans still followed is lost at 2 years.
    np.testing.assert_allclose(censoring_survival(FOUR, np.array([0.5, 1.9, 2.0, 9.0])), [1, 1, 2 / 3, 2 / 3])


def test_a_death_and_a_loss_at_one_time_the_death_comes_first() -> None:
    tied = Outcomes(np.array([1.0, 1.0, 2.0]), np.array([True, False, True]))
    assert censoring_survival(tied, np.array([1.0]))[0] == pytest.approx(1 / 2)
    assert kaplan_meier_risk(tied, 1) == pytest.approx(1 / 3)


def test_the_curve_ends_where_nobody_is_followed_any_more() -> None:
    lost = Outcomes(np.array([1.0, 2.0, 3.0]), np.array([True, True, False]))
    assert kaplan_meier_risk(lost, 3.0) == pytest.approx(2 / 3)
    assert np.isnan(kaplan_meier_risk(lost, 3.1))
    assert kaplan_meier_risk(Outcomes(lost.years, np.ones(3, bool)), 9.0) == 1
    drawn = np.array([[1.0, 1, 1], [1, 1, 0], [0, 0, 2]])
    np.testing.assert_allclose(kaplan_meier_risk(lost, 3.0, drawn), [2 / 3, 1, 0])
    np.testing.assert_array_equal(np.isnan(kaplan_meier_risk(lost, 4.0, drawn)), [True, False, True])


def test_the_weights_by_hand() -> None:
    np.testing.assert_allclose(censoring_weights(FOUR, 3), [1, 0, 1.5, 1.5])
    np.testing.assert_allclose(censoring_weights(FOUR, 1.5), [1, 1, 1, 1])


def test_each_stratum_has_its_own_distribution() -> None:
    twice = Outcomes(np.tile(FOUR.years, 2), np.r_[FOUR.event, np.ones(4, bool)])
    weights = censoring_weights(twice, 3, strata=["a"] * 4 + ["b"] * 4)
    np.testing.assert_allclose(weights, [1, 0, 1.5, 1.5, 1, 1, 1, 1])


@given(drawn, st.integers(0, 5))
def test_counts_are_the_same_as_repeated_scans(outcomes: Outcomes, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 4, (3, len(outcomes.years))).astype(float)
    counts[:, 0] += 1
    weights = censoring_weights(outcomes, 6, counts)
    risks = kaplan_meier_risk(outcomes, 6, counts)
    for row, count in enumerate(counts):
        repeated = np.repeat(np.arange(len(count)), count.astype(int))
        expected = censoring_weights(outcomes[repeated], 6)
        assert weights[row].sum() == pytest.approx(expected.sum())
        assert risks[row] == pytest.approx(kaplan_meier_risk(outcomes[repeated], 6), nan_ok=True)


@given(drawn)
def test_a_constant_covariate_changes_little_beside_kaplan_and_meier(outcomes: Outcomes) -> None:
    # Breslow's exponential and Kaplan and Meier's product differ, but both fall from 1 and never rise.
    g = censoring_weights(outcomes, 6, covariates=np.ones((len(outcomes.years), 1)))
    product = censoring_weights(outcomes, 6)
    assert (g[product > 0] >= 1).all()
    assert (g[product == 0] >= 0).all()


def test_cox_finds_the_coefficients_that_drew_the_data() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20000, 2))
    years = rng.exponential(1 / np.exp(x @ [0.7, -0.4]))
    found = cox(np.minimum(years, 1.0), years <= 1.0, np.c_[x, np.zeros(20000)])
    np.testing.assert_allclose(found, [0.7, -0.4, 0], atol=0.03)


def test_without_losses_cox_weighs_all_alike() -> None:
    outcomes = Outcomes(np.array([1.0, 2.0, 5.0]), np.ones(3, bool))
    np.testing.assert_allclose(censoring_weights(outcomes, 3, covariates=np.array([[1.0], [2], [3]])), 1)


def test_covariates_that_separate_the_lost_are_refused() -> None:
    years = np.arange(1.0, 21)
    lost = years <= 10
    with pytest.raises(ValueError, match="does not converge"):
        cox(years, lost, -years[:, None])
    with pytest.raises(ValueError, match="not both"):
        censoring_weights(FOUR, 3, covariates=np.ones((4, 1)), strata=["a"] * 4)


def test_kaplan_meier_by_hand() -> None:
    curve = kaplan_meier(FOUR)
    np.testing.assert_allclose(curve.survival, [3 / 4, 3 / 4, 3 / 8, 0])
    np.testing.assert_allclose(curve.at_risk, [4, 3, 2, 1])
    assert curve.at(0.5) == (1, 1, 1)
    assert curve.lower[0] < 3 / 4 < curve.upper[0]
    with pytest.raises(ValueError, match="no scan"):
        kaplan_meier(Outcomes(np.empty(0), np.empty(0, bool)))
