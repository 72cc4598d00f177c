"""Stacking on out-of-fold predictions: weights, calibration, and nothing of a fold in its own prediction."""

import json

import numpy as np
import pandas as pd
import pytest

from dicomnode.analysis.risk.ensemble import hazard_logits, hazards
from dicomnode.analysis.risk.tabular import risk_of_logits
from dicomnode.errors import UsageError
from training.data.outcomes import Outcomes, loss_of_risk
from training.data.splits import LeakageError
from training.models import stacking
from training.models.recalibration import NARROWEST
from training.models.stacking import RISKS, Stack, choose, stack
from training.models.stacking import fit as fit_all

SCANS = 1500
PATIENTS = [f"P{i // 2}" for i in range(SCANS)]


def fit(arms: list[str], risks: np.ndarray, outcomes: Outcomes) -> Stack:
    return fit_all(arms, risks, outcomes, PATIENTS)


def truth(seed: int = 1) -> tuple[np.ndarray, np.ndarray, Outcomes]:
    """A true log hazard ratio, the risks that it makes, and outcomes with 30 % lost at random times."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=SCANS)
    rate = 0.08 * np.exp(score)
    death, contact = rng.exponential(1 / rate), rng.uniform(1, 12, SCANS)
    risks = 1 - np.exp(-rate[:, None] * np.arange(1, 6))
    return score, risks, Outcomes(np.minimum(death, contact), death <= contact)


def risks_of(score: np.ndarray, scale: float = 1.0, base: float = 0.08) -> np.ndarray:
    return 1 - np.exp(-base * np.exp(scale * score)[:, None] * np.arange(1, 6))


def frames(*risks: np.ndarray, folds: int = 5) -> dict[str, pd.DataFrame]:
    scans = pd.DataFrame(
        {
            "scan": [f"S{i}" for i in range(SCANS)],
            "patient": PATIENTS,
            "fold": [i // 2 % folds for i in range(SCANS)],
        }
    )
    return {f"arm{n}": stacking.table(f"arm{n}", scans, r) for n, r in enumerate(risks)}


def test_hazards_and_risks_are_two_forms_of_one_thing() -> None:
    risks = truth()[1]
    h = hazards(risks)
    np.testing.assert_allclose(1 - np.cumprod(1 - h, axis=1), risks, atol=1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-hazard_logits(risks))), h, rtol=1e-9)
    assert np.isfinite(hazard_logits(np.array([[0.0, 0, 1, 1, 1]]))).all()


def test_a_miscalibrated_arm_is_set_right() -> None:
    _, risks, outcomes = truth()
    steep = risk_of_logits(2 * hazard_logits(risks) + 1)
    made = fit(["one"], steep[None], outcomes)
    assert made.weights == (1.0,) and made.slope == pytest.approx(0.5, abs=0.07)
    np.testing.assert_allclose(made.intercepts[:4], -0.5, atol=0.3)  # the fifth interval has the fewest deaths
    assert loss_of_risk(made.risk(steep[None]), outcomes) < loss_of_risk(steep, outcomes) - 0.05
    assert np.abs(made.risk(steep[None]) - risks).mean() < 0.03


def test_weights_are_a_mixture_and_an_arm_that_knows_nothing_has_none() -> None:
    score, risks, outcomes = truth()
    rng = np.random.default_rng(2)
    empty, wrong = risks_of(rng.normal(size=SCANS)), risks_of(-score)
    made = fit(["good", "empty", "wrong"], np.stack([risks, empty, wrong]), outcomes)
    assert min(made.weights) >= 0 and sum(made.weights) == pytest.approx(1)
    assert made.weights[0] > 0.9 and made.weights[2] < 0.05


def test_arms_that_see_different_things_are_better_together() -> None:
    score, _, outcomes = truth()
    rng = np.random.default_rng(3)
    arms = np.stack([risks_of(score + rng.normal(size=SCANS), 0.5) for _ in range(2)])
    made = fit(["a", "b"], arms, outcomes)
    assert 0.3 < made.weights[0] < 0.7
    single = min(loss_of_risk(fit(["a"], arm[None], outcomes).risk(arm[None]), outcomes) for arm in arms)
    assert loss_of_risk(made.risk(arms), outcomes) < single - 0.005


def test_an_interval_without_deaths_keeps_a_finite_intercept() -> None:
    _, risks, outcomes = truth()
    early = Outcomes(np.minimum(outcomes.years, 2.9), outcomes.event & (outcomes.years < 2.9))
    made = fit(["a"], risks[None], early)
    assert np.isfinite(made.intercepts).all() and made.slope == pytest.approx(1, abs=0.2)
    mean = hazard_logits(risks)[:, 4].mean()
    assert made.slope * mean + made.intercepts[4] == pytest.approx(mean, abs=1e-6), "the level is left as it is"


def test_a_narrow_prior_leaves_the_arm_as_it_is() -> None:
    _, risks, outcomes = truth()
    steep = risk_of_logits(2 * hazard_logits(risks) + 1)
    few = np.arange(60)
    made = fit_all(["one"], steep[None][:, few], outcomes[few], PATIENTS[:60], NARROWEST)
    np.testing.assert_allclose(made.risk(steep[None]), steep, atol=0.03)


def test_arms_are_combined_only_where_that_ranks_better_than_the_best() -> None:
    score, risks, outcomes = truth()
    rng, folds = np.random.default_rng(4), np.array([i // 2 % 5 for i in range(SCANS)])
    halves = [risks_of(score + rng.normal(size=SCANS), 0.5) for _ in range(2)]
    together = choose(["a", "b"], np.stack(halves), outcomes, PATIENTS, folds)
    assert min(together.weights) > 0.3 and together.concordance["combined"] > together.concordance["a"]
    empty = risks_of(rng.normal(size=SCANS), 0.5)
    alone = choose(["empty", "good"], np.stack([empty, risks]), outcomes, PATIENTS, folds)
    assert alone.weights == (0.0, 1.0) and alone.concordance["good"] > alone.concordance["empty"]
    assert alone.shrinkage == NARROWEST, "the truth needs no calibration"


def test_large_data_set_a_miscalibrated_arm_right() -> None:
    _, risks, outcomes = truth()
    steep = risk_of_logits(1.5 * hazard_logits(risks) + 0.5)
    table = stack(frames(steep), outcomes)
    assert table.final.slope == pytest.approx(1 / 1.5, abs=0.08)
    assert np.abs(table.predictions[list(RISKS)].to_numpy() - risks).mean() < 0.03


def test_the_numbers_survive_json() -> None:
    _, risks, outcomes = truth()
    made = fit(["a", "b"], np.stack([risks, risks]), outcomes)
    old = {k: v for k, v in made.to_dict().items() if k not in ("concordance_inside", "shrinkage")}
    assert Stack.from_dict(old).risk(np.stack([risks, risks])).shape == risks.shape
    assert Stack.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_fold_is_predicted_without_its_own_outcomes() -> None:
    score, risks, outcomes = truth()
    tables = frames(risks, risks_of(-score))
    before = stack(tables, outcomes)
    fold = tables["arm0"]["fold"].to_numpy()
    years, event = outcomes.years.copy(), outcomes.event.copy()
    years[fold == 2], event[fold == 2] = 0.1, ~event[fold == 2]
    after = stack(tables, Outcomes(years, event))
    same = before.predictions[list(RISKS)].to_numpy() == after.predictions[list(RISKS)].to_numpy()
    assert same[fold == 2].all() and not same[fold != 2].any()
    assert before.folds[2] == after.folds[2] and before.final != after.final
    assert before.predictions["arm"].unique().tolist() == ["ensemble"]
    assert [f["fold"] for f in before.to_dict()["cross_fitted"]] == [0, 1, 2, 3, 4]


def test_predictions_that_do_not_belong_together_are_refused() -> None:
    _, risks, outcomes = truth()
    tables = frames(risks, risks)
    shuffled = {**tables, "arm1": tables["arm1"].sample(frac=1, random_state=1)}
    with pytest.raises(UsageError, match="arm1 and arm0 do not cover the same scans and folds"):
        stack(shuffled, outcomes)
    leaky = {name: t.assign(fold=np.arange(SCANS) % 5) for name, t in tables.items()}
    with pytest.raises(LeakageError, match="is on both sides"):
        stack(leaky, outcomes)
