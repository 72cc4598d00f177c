"""Paired differences between arms, and the warning where none is better than the simplest."""

import numpy as np
import pytest

from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.differences import Drawn, differences, not_better
from training.evaluation.metrics import at_horizon, auc, auc_within


def scans(count: int = 400, seed: int = 1) -> tuple[np.ndarray, Outcomes]:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=count)
    death, lost = rng.exponential(1 / (0.15 * np.exp(score))), rng.uniform(1, 9, count)
    return score, Outcomes(np.minimum(death, lost), death <= lost)


def drawn(outcomes: Outcomes, risk: np.ndarray, counts: np.ndarray) -> Drawn:
    return Drawn(float(auc(at_horizon(outcomes, 3), risk)), auc(at_horizon(outcomes, 3, counts), risk))


def test_the_interval_is_of_the_difference_not_of_each() -> None:
    """Two nearly equal arms: each AUC is uncertain, their difference is not."""
    score, outcomes = scans()
    counts = metrics.bootstrap_counts([str(i) for i in range(len(score))], 300, 1)
    risk = 1 / (1 + np.exp(-score))
    near = 1 / (1 + np.exp(-score - np.random.default_rng(2).normal(0, 0.1, len(score))))
    a, b = drawn(outcomes, risk, counts), drawn(outcomes, near, counts)
    own, paired = a.estimate, a.less(b)
    assert own.upper - own.lower > 4 * (paired.upper - paired.lower)
    assert paired.value == pytest.approx(a.value - b.value) and paired.lower < paired.value < paired.upper


def test_pairs_begin_with_the_primary_and_never_set_two_baselines_against_one_another() -> None:
    one = Drawn(0.7, np.array([0.6, 0.8]))
    names = ["net", "clinical", "volume", "ensemble"]
    found = differences({n: [one] for n in names}, dict.fromkeys(names, one), "ensemble", ["clinical", "volume"])
    pairs = [(d.arm, d.against) for d in found]
    assert pairs[:3] == [("ensemble", "net"), ("ensemble", "clinical"), ("ensemble", "volume")]
    assert pairs[3:] == [("net", "clinical"), ("net", "volume")]


@pytest.mark.parametrize(("gain", "warned"), [(0.0, True), (-0.1, True), (0.01, True), (0.1, False)])
def test_a_warning_where_no_arm_is_shown_to_be_better(gain: float, warned: bool) -> None:
    rng = np.random.default_rng(3)
    draws = 0.7 + rng.normal(0, 0.05, 500)
    base, arm = Drawn(0.7, draws), Drawn(0.7 + gain, draws + gain + rng.normal(0, 0.02, 500))
    found = differences({"net": [arm], "volume": [base]}, {"net": arm, "volume": base}, "net", ["volume"])
    warnings = not_better(found, ["volume"])
    assert bool(warnings) is warned
    if warned:
        assert "no arm is shown to discriminate better than the baseline volume alone: the best, net" in warnings[0]


def test_without_a_bootstrap_the_value_decides() -> None:
    base, arm = Drawn(0.7, np.empty(0)), Drawn(0.75, np.empty(0))
    found = differences({"net": [arm], "volume": [base]}, {"net": arm, "volume": base}, "net", ["volume"])
    assert not not_better(found, ["volume"])
    back = differences({"net": [base], "volume": [arm]}, {"net": base, "volume": arm}, "net", ["volume"])
    assert "by -0.050 in Uno's C;" in not_better(back, ["volume"])[0]


def test_the_auc_within_folds_does_not_mind_the_folds_level() -> None:
    """By hand: the share of pairs of one fold that are ordered rightly, by the weights of their scans."""
    score, outcomes = scans(120)
    folds = np.arange(120) % 3
    risk = 1 / (1 + np.exp(-score - np.array([-2.0, 0.0, 2.0])[folds]))
    at = at_horizon(outcomes, 3)
    won = pairs = 0.0
    for i in np.flatnonzero(at.dead):
        for j in np.flatnonzero(~at.dead & (folds == folds[i])):
            weight = at.weights[i] * at.weights[j]
            won, pairs = won + weight * (risk[i] > risk[j]), pairs + weight
    assert auc_within(at, risk, folds) == pytest.approx(won / pairs, abs=1e-12)
    assert auc_within(at, risk, folds) == pytest.approx(auc_within(at, 1 / (1 + np.exp(-score)), folds), abs=1e-12)
    assert auc_within(at, risk, folds) > auc(at, risk) + 0.05
    assert auc_within(at, risk, np.zeros(120)) == pytest.approx(float(auc(at, risk)))
