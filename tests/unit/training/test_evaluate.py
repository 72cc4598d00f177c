"""Metrics under censoring: by hand on four scans, and against the truth before censoring on many."""

import numpy as np
import pytest

from training.evaluate import auc, brier, censoring_survival, kaplan_meier_risk, with_interval
from training.outcome import Outcomes

FOUR = Outcomes(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True]))
RISK = np.array([0.9, 0.5, 0.2, 0.4])


def test_the_censoring_distribution_by_hand() -> None:
    # One of the three scans still followed is lost at 2 years; what counts is just before each time.
    np.testing.assert_allclose(censoring_survival(FOUR, np.array([0.0, 2.0, 2.1, 4.0])), [1, 1, 2 / 3, 2 / 3])


def test_a_death_at_the_time_of_a_censoring_comes_first() -> None:
    tied = Outcomes(np.array([2.0, 2.0, 3.0]), np.array([True, False, False]))
    np.testing.assert_allclose(censoring_survival(tied, np.array([3.0])), [1 / 2])


def test_auc_by_hand() -> None:
    # Cases at 3.5 years: the 1st (weight 1, above the control) and the 3rd (weight 3/2, below it).
    assert auc(FOUR, RISK, 3.5) == pytest.approx(1 / 2.5)


def test_brier_by_hand() -> None:
    expected = (0.1**2 + 1.5 * 0.8**2 + 1.5 * 0.4**2) / 4
    assert brier(FOUR, RISK, 3.5) == pytest.approx(expected)


def test_kaplan_meier_by_hand() -> None:
    assert kaplan_meier_risk(FOUR, 3.5) == pytest.approx(1 - 3 / 4 * 1 / 2)
    assert kaplan_meier_risk(FOUR, 0.5) == 0


@pytest.mark.parametrize(
    ("risk", "expected"), [([0.9, 0.1, 0.8, 0.2], 1.0), ([0.1, 0.1, 0.1, 0.9], 0.0), ([0.5, 0.5, 0.5, 0.5], 0.5)]
)
def test_auc_of_perfect_reversed_and_constant_risk(risk: list[float], expected: float) -> None:
    assert auc(FOUR, np.array(risk), 3.5) == expected


def test_auc_without_cases_is_not_a_number() -> None:
    assert np.isnan(auc(FOUR, RISK, 0.5))


@pytest.fixture(scope="module")
def simulated() -> tuple[Outcomes, Outcomes, np.ndarray]:
    """(what was observed, what happened, true risk at 3 years) of 6,000 people, half of them lost within 4 years."""
    rng = np.random.default_rng(4)
    hazard = 0.12 * np.exp(rng.normal(0, 1, 6000))
    death, lost = rng.exponential(1 / hazard), rng.exponential(5.8, 6000)
    observed = Outcomes(np.minimum(death, lost), death <= lost)
    return observed, Outcomes(death, np.ones(6000, bool)), 1 - np.exp(-3 * hazard)


@pytest.mark.parametrize("metric", [auc, brier])
def test_ipcw_gives_what_no_censoring_would_have_given(metric, simulated) -> None:
    observed, happened, risk = simulated
    assert (~observed.event).mean() > 0.4
    assert metric(observed, risk, 3.0) == pytest.approx(metric(happened, risk, 3.0), abs=0.012)


def test_kaplan_meier_gives_the_uncensored_risk(simulated) -> None:
    observed, happened, _ = simulated
    assert kaplan_meier_risk(observed, 3.0) == pytest.approx(float((happened.years <= 3).mean()), abs=0.012)
    assert float((observed.event & (observed.years <= 3)).mean()) < kaplan_meier_risk(observed, 3.0) - 0.05


def test_the_interval_counts_patients_not_scans() -> None:
    rng = np.random.default_rng(2)
    years, risk = rng.exponential(4, 60), rng.random(60)
    once = Outcomes(years, np.ones(60, bool))
    many = Outcomes(np.repeat(years, 5), np.ones(300, bool))
    alone = with_interval(auc, once, risk, 3.0, [str(i) for i in range(60)])
    copies = with_interval(auc, many, np.repeat(risk, 5), 3.0, [str(i) for i in np.repeat(np.arange(60), 5)])
    assert alone.lower < alone.value < alone.upper
    assert copies.value == pytest.approx(alone.value)
    assert copies.upper - copies.lower == pytest.approx(alone.upper - alone.lower, rel=0.2)
