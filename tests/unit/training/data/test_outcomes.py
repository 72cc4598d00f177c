"""Censoring: what is known of a scan counts, and nothing else."""

import numpy as np
import pytest
import torch

from training.data.outcomes import Outcomes, interval_targets, negative_log_likelihood, status_at


def outcomes(*pairs: tuple[float, int]) -> Outcomes:
    return Outcomes(np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], bool))


@pytest.mark.parametrize(
    ("years", "event", "dead", "known"),
    [(2, 1, True, True), (3, 1, True, True), (4, 1, False, True), (4, 0, False, True), (2, 0, False, False)],
    ids=["died before", "died on the day", "died later", "seen alive later", "lost before"],
)
def test_a_scan_censored_before_the_horizon_is_neither_dead_nor_alive(
    years: float, event: int, dead: bool, known: bool
) -> None:
    found = status_at(outcomes((years, event)), 3)
    assert (bool(found[0][0]), bool(found[1][0])) == (dead, known)


@pytest.mark.parametrize(
    ("years", "event", "targets", "weights"),
    [
        (2.5, 1, [0, 0, 1, 0, 0], [1, 1, 1, 0, 0]),
        (2.5, 0, [0, 0, 0, 0, 0], [1, 1, 0.5, 0, 0]),
        (0.0, 1, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]),
        (0.0, 0, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
        (1.0, 1, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]),
        (9.0, 1, [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        (9.0, 0, [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
    ],
)
def test_targets_and_weights_by_interval(years: float, event: int, targets: list[int], weights: list[float]) -> None:
    found = interval_targets(outcomes((years, event)))
    np.testing.assert_array_equal(found[0], [targets])
    np.testing.assert_allclose(found[1], [weights])


def test_what_comes_after_censoring_does_not_touch_the_likelihood() -> None:
    targets, weights = (torch.from_numpy(a) for a in interval_targets(outcomes((2.0, 0))))
    low, high = torch.tensor([[-2.0, -2.0, -9.0, -9.0, -9.0]]), torch.tensor([[-2.0, -2.0, 9.0, 9.0, 9.0]])
    assert negative_log_likelihood(low, targets, weights) == negative_log_likelihood(high, targets, weights)


def test_the_likelihood_is_that_of_the_discrete_time_model() -> None:
    """Died in the third interval: minus the log of (1 - h1)(1 - h2) h3."""
    targets, weights = (torch.from_numpy(a) for a in interval_targets(outcomes((2.5, 1))))
    hazards = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    expected = -np.log(0.9 * 0.8 * 0.3)
    assert float(negative_log_likelihood(torch.logit(hazards), targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_the_likelihood_finds_the_true_hazard_under_censoring() -> None:
    rng = np.random.default_rng(0)
    death, lost = rng.exponential(1 / 0.2, 20000), rng.uniform(0, 8, 20000)
    known = Outcomes(np.minimum(death, lost), death <= lost)
    targets, weights = interval_targets(known)
    hazard = targets.sum(0) / weights.sum(0)  # where the likelihood's gradient is zero
    np.testing.assert_allclose(hazard, 1 - np.exp(-0.2), atol=0.012)


@pytest.mark.parametrize("years", [-1.0, float("nan"), float("inf")])
def test_impossible_times_are_refused(years: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        outcomes((years, 1))


def test_unequal_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        Outcomes(np.zeros(3), np.zeros(2, bool))
