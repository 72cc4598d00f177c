"""Models as plain numbers: numpy repeats what lifelines, scikit-learn and torch predict."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.errors import Pandas4Warning
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from dicomnode.analysis.risk import tabular
from training.data.outcomes import EDGES_YEARS, Outcomes
from training.models import tabular_models
from training.models.tabular_models import CANDIDATES

SCANS, WIDTH = 300, 5


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SCANS, WIDTH)) + 0.3


@pytest.fixture(scope="module")
def outcomes(values: np.ndarray) -> Outcomes:
    rng = np.random.default_rng(2)
    death, contact = rng.exponential(8 * np.exp(-values[:, 0])), rng.uniform(0.2, 9, SCANS)
    return Outcomes(np.minimum(death, contact), death <= contact)


def served(predictor: dict[str, object], values: np.ndarray) -> np.ndarray:
    """What the node predicts from the predictor's JSON."""
    plain = {k: [0.0] * WIDTH for k in ("median", "mean")} | {"low": [-1e9] * WIDTH, "high": [1e9] * WIDTH}
    stored = {
        "format": 1,
        "edges_years": EDGES_YEARS,
        "features": [f"f{i}" for i in range(WIDTH)],
        "combat": None,
        "sd": [1.0] * WIDTH,
        **plain,
        "predictor": predictor,
    }
    return tabular.from_dict(json.loads(json.dumps(stored))).risk(values, [""] * len(values))


@pytest.mark.parametrize("penalizer", [0.01, 1.0])
def test_cox_is_that_of_lifelines(values: np.ndarray, outcomes: Outcomes, penalizer: float) -> None:
    fitter = tabular_models.fit_cox(values, outcomes, penalizer)
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(WIDTH)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Pandas4Warning)  # lifelines' own copies
        expected = 1 - fitter.predict_survival_function(frame, times=EDGES_YEARS[1:]).to_numpy().T
    np.testing.assert_allclose(served(tabular_models.plain_cox(fitter), values), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_elastic_net_cox_is_that_of_scikit_survival_and_takes_features_out(outcomes: Outcomes, l1_ratio: float) -> None:
    rng = np.random.default_rng(4)
    wide = rng.normal(size=(SCANS, 12))
    wide[:, 0] -= 0.8 * outcomes.event / np.maximum(outcomes.years, 0.5)
    wide = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    stored = tabular_models.plain_cox(tabular_models.fit_cox(wide, outcomes, 0.08, l1_ratio))
    found = np.array(stored["coefficients"])
    frame = Surv.from_arrays(outcomes.event & (outcomes.years <= 5), np.minimum(outcomes.years, 5))
    other = CoxnetSurvivalAnalysis(alphas=[0.08], l1_ratio=l1_ratio, tol=1e-10).fit(wide, frame).coef_[:, 0]
    # lifelines scales by the sample's SD, with n - 1: the penalties differ by that much.
    np.testing.assert_allclose(found, other, rtol=0, atol=1e-3)
    assert found[0] != 0 and np.count_nonzero(found) < 12
    assert set(np.flatnonzero(found)) == set(np.flatnonzero(np.abs(other) > 1e-4))
    ridge = tabular_models.plain_cox(tabular_models.fit_cox(wide, outcomes, 0.08))["coefficients"]
    assert np.count_nonzero(ridge) == 12


def test_boosting_is_that_of_scikit_learn(values: np.ndarray, outcomes: Outcomes) -> None:
    model = tabular_models.fit_boosting(values, outcomes, 60, 6, seed=3)
    hazards = np.column_stack(
        [model.predict_proba(np.column_stack([values, np.full(SCANS, float(k))]))[:, 1] for k in range(5)]
    )
    expected = 1 - np.cumprod(1 - hazards, axis=1)
    np.testing.assert_allclose(served(tabular_models.plain_boosting(model), values), expected, rtol=0, atol=1e-9)


def test_the_network_is_that_of_torch(values: np.ndarray, outcomes: Outcomes) -> None:
    net = tabular_models.fit_network(values, outcomes, 20, 0.1, seed=3)
    with torch.inference_mode():
        hazards = torch.sigmoid(net(torch.from_numpy(values))).numpy()
    expected = 1 - np.cumprod(1 - hazards, axis=1)
    np.testing.assert_allclose(served(tabular_models.plain_network(net), values), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
def test_every_candidate_learns_the_same_from_the_same(candidate, values: np.ndarray, outcomes: Outcomes) -> None:
    state = torch.get_rng_state()
    first, second = (served(tabular_models.fit(candidate, values, outcomes, seed=9), values) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not used up"
    np.testing.assert_array_equal(first, second)
    assert np.all(np.diff(first, axis=1) >= 0) and first.min() >= 0 and first.max() <= 1
    at_three = outcomes.event & (outcomes.years <= 3)
    assert first[at_three, 2].mean() > first[~at_three, 2].mean() + 0.02


def test_person_periods_count_what_was_observed() -> None:
    outcomes = Outcomes(np.array([0.5, 2.25]), np.array([True, False]))
    rows, target, weight = tabular_models.person_periods(np.array([[7.0], [8.0]]), outcomes)
    assert rows.tolist() == [[7, 0], [8, 0], [8, 1], [8, 2]]
    assert target.tolist() == [1, 0, 0, 0] and weight.tolist() == [1, 1, 1, 0.25]


def test_a_cox_model_that_does_not_converge_is_refused(values: np.ndarray, outcomes: Outcomes, monkeypatch) -> None:
    monkeypatch.setattr(tabular_models, "_NEWTON_STEPS", (1e-6,))
    with pytest.raises(tabular_models.FitError, match=r"the Cox model with penalizer 0\.1 does not converge"):
        tabular_models.fit_cox(values, outcomes, 0.1)
    monkeypatch.setattr(tabular_models, "_NEWTON_STEPS", (1e-6, 0.95))
    assert tabular_models.fit_cox(values, outcomes, 0.1).params_.abs().max() > 0.1
