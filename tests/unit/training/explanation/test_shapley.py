"""Shapley values beside their definition, the sum over all subsets of features."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest

from dicomnode.analysis.risk import tabular
from training.data.outcomes import Outcomes
from training.explanation.shapley import by_orders, explain, log_cumulative_hazard
from training.models import tabular_models
from training.models.tabular_models import Candidate

FEATURES = 4


def enumerated(value, row: np.ndarray, background: np.ndarray) -> np.ndarray:
    """By definition: a feature that is out has the value of a scan of the background, in the mean over these."""

    def worth(inside: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(inside)] = row[list(inside)]
        return float(value(mixed).mean())

    found = np.zeros(FEATURES)
    for feature in range(FEATURES):
        others = [f for f in range(FEATURES) if f != feature]
        for size in range(FEATURES):
            share = factorial(size) * factorial(FEATURES - size - 1) / factorial(FEATURES)
            for inside in combinations(others, size):
                found[feature] += share * (worth((*inside, feature)) - worth(inside))
    return found


@pytest.fixture(scope="module")
def scans() -> tuple[np.ndarray, Outcomes]:
    """Of which the first feature, and the second with the third, tell the hazard."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(240, FEATURES))
    death = rng.exponential(1 / (0.15 * np.exp(values[:, 0] + values[:, 1] * values[:, 2])))
    seen = rng.uniform(0.5, 7, len(values))
    return values, Outcomes(np.minimum(death, seen), death <= seen)


@pytest.mark.parametrize(
    "candidate",
    [Candidate("boosting", {"trees": 10, "leaves": 4}), Candidate("network", {"steps": 30, "decay": 1.0})],
    ids=["boosting", "network"],
)
def test_values_are_those_of_the_definition(candidate: Candidate, scans) -> None:
    values, outcomes = scans
    predictor = tabular._predictor(tabular_models.fit(candidate, values, outcomes, 1), FEATURES, 5)
    rows, background = values[:5], values[50:51]
    found = explain(predictor, 2, rows, background, orders=300, seed=1)
    wanted = [enumerated(lambda x: log_cumulative_hazard(predictor.risk(x)[:, 2]), row, background) for row in rows]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=0.06 * scale)
    assert scale > 0.1


def test_of_a_cox_model_they_are_its_terms(scans) -> None:
    values, outcomes = scans
    cox = tabular._predictor(tabular_models.fit(Candidate("cox", {"penalizer": 0.1}), values, outcomes, 1), FEATURES, 5)
    found = explain(cox, 2, values[:20], values[20:60], orders=0, seed=1)
    hazard = log_cumulative_hazard(cox.risk(values)[:, 2])
    np.testing.assert_allclose(found.sum(axis=1), hazard[:20] - hazard[20:60].mean(), atol=1e-9)
    one = values[20:21]
    walked = by_orders(lambda x: log_cumulative_hazard(cox.risk(x)[:, 2]), values[:20], one, 2, 1)
    np.testing.assert_allclose(walked, explain(cox, 2, values[:20], one, 0, 1), atol=1e-9)


def test_any_number_of_orders_sums_to_the_difference() -> None:
    rng = np.random.default_rng(2)
    rows, one = rng.normal(size=(5, FEATURES)), rng.normal(size=(1, FEATURES))

    def value(x: np.ndarray) -> np.ndarray:
        return np.sin(x[:, 0] * x[:, 1]) + x[:, 2] ** 3

    found = by_orders(value, rows, one, orders=1, seed=4)
    np.testing.assert_allclose(found.sum(axis=1), value(rows) - value(one), atol=1e-12)
    assert not found[:, 3].any()
