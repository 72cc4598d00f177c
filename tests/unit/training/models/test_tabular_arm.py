"""The arm on measured numbers: the inner folds choose, the folder remembers, the node's predictor repeats it."""

import json
from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.risk import tabular
from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import data as data_of
from tests.helpers.tabular_worlds import world
from training.data.splits import LeakageError, nested
from training.models import tabular_models
from training.models.arm import Data, Rows
from training.models.registry import make_arm
from training.models.tabular_arm import FittedRadiomics, RadiomicsArm, make
from training.models.tabular_models import CANDIDATES, FitError

Folds = tuple[Rows, Rows, list[tuple[Rows, Rows]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_of(world(patients=120), tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def folds(data: Data) -> Folds:
    split = nested(data.patients, data.outcomes.event, 1, 2, 2)
    return (*split.fold(0, data.patients), split.inner_folds(0, data.patients))


def fit(arm: RadiomicsArm, data: Data, folds: Folds, folder: Path, seed: int = 1) -> FittedRadiomics:
    train, _, inner = folds
    return arm.fit(data.hidden_outside(train), train, inner, folder, seed, lambda *_: None)


@pytest.mark.parametrize("kind", ["cox", "boosting", "network"])
def test_each_kind_learns_what_is_there(kind: str, data: Data, folds: Folds, tmp_path: Path) -> None:
    fitted = fit(make({"models": [kind]}), data, folds, tmp_path)
    test = folds[1]
    risks = fitted.predict(test)
    died = data.outcomes.event[test] & (data.outcomes.years[test] <= 5)
    assert risks.shape == (len(test), 5) and risks[died, 4].mean() > risks[~died, 4].mean() + 0.1
    kept = json.loads((tmp_path / "fit.json").read_text())
    assert kept["chosen"].startswith(kind) and set(kept["inner_loss"]) == {c.name for c in CANDIDATES if c.kind == kind}
    assert np.mean(kept["inner_loss"][kept["chosen"]]) == min(np.mean(v) for v in kept["inner_loss"].values())


def test_the_stored_numbers_give_the_arms_predictions(data: Data, folds: Folds, tmp_path: Path) -> None:
    risks = fit(make({}), data, folds, tmp_path).predict(folds[1])
    model = tabular.read(tmp_path / "model.json")
    for row, risk in zip(folds[1][:20], risks, strict=False):
        values = data.features.iloc[row].dropna().to_dict()
        served, doubts = model.predict(values, "")
        np.testing.assert_allclose(served, risk, rtol=0, atol=1e-12)
        assert doubts == ()


def test_a_finished_folder_is_loaded_and_another_calls_is_not(
    data: Data, folds: Folds, tmp_path: Path, monkeypatch
) -> None:
    arm = make({"models": ["cox"]})
    first = fit(arm, data, folds, tmp_path).predict(folds[1])
    calls: list[str] = []
    monkeypatch.setattr(tabular_models, "fit", lambda candidate, *_: calls.append(candidate.name) or 1 / 0)
    np.testing.assert_array_equal(fit(arm, data, folds, tmp_path).predict(folds[1]), first)
    assert not calls
    with pytest.raises(ZeroDivisionError):
        fit(arm, data, folds, tmp_path, seed=2)
    with pytest.raises(ZeroDivisionError):
        fit(make({"models": ["cox"], "correlation": 0.5}), data, folds, tmp_path)


def test_a_broken_off_choice_goes_on_with_the_candidates_that_are_left(
    data: Data, folds: Folds, tmp_path: Path, monkeypatch
) -> None:
    arm, real, tried = make({"models": ["cox"]}), tabular_models.fit, []

    def stops(candidate, *rest):
        tried.append(candidate.name)
        if len(tried) == 4:  # two inner folds each: in the middle of the second candidate
            raise KeyboardInterrupt
        return real(candidate, *rest)

    monkeypatch.setattr(tabular_models, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(arm, data, folds, tmp_path)
    first, tried = tried[0], []
    monkeypatch.setattr(tabular_models, "fit", lambda c, *rest: tried.append(c.name) or real(c, *rest))
    resumed = fit(arm, data, folds, tmp_path).predict(folds[1])
    assert tried.count(first) <= 1 and len(tried) == 7  # three candidates on two folds, and the chosen one
    monkeypatch.setattr(tabular_models, "fit", real)
    np.testing.assert_array_equal(fit(arm, data, folds, tmp_path / "whole").predict(folds[1]), resumed)


def test_a_candidate_that_cannot_be_fitted_is_passed_over(
    data: Data, folds: Folds, tmp_path: Path, monkeypatch
) -> None:
    real, names = tabular_models.fit, [c.name for c in tabular_models.CANDIDATES if c.kind == "cox"]

    def fails_for(some: list[str], sizes: set[int]):
        def fitting(candidate, values, *rest):
            if candidate.name in some and len(values) in sizes:
                raise FitError("it does not converge")
            return real(candidate, values, *rest)

        monkeypatch.setattr(tabular_models, "fit", fitting)

    arm, whole, parts = make({"models": ["cox"]}), {len(folds[0])}, {len(f) for f, _ in folds[2]}
    fails_for(names[:1], parts)
    fit(arm, data, folds, tmp_path / "inner")
    kept = json.loads((tmp_path / "inner" / "fit.json").read_text())
    assert kept["inner_loss"][names[0]] == [] and kept["chosen"] in names[1:]
    fails_for([kept["chosen"]], whole)
    fit(arm, data, folds, tmp_path / "last")
    assert json.loads((tmp_path / "last" / "fit.json").read_text())["chosen"] != kept["chosen"]
    fails_for(names, whole)
    with pytest.raises(FitError, match="no model could be fitted"):
        fit(arm, data, folds, tmp_path / "none")


def test_outcomes_outside_the_training_part_change_nothing(data: Data, folds: Folds, tmp_path: Path) -> None:
    train, test, inner = folds
    arm = make({"models": ["cox"]})
    hidden = arm.fit(data.hidden_outside(train), train, inner, tmp_path / "a", 1, lambda *_: None).predict(test)
    shown = arm.fit(data, train, inner, tmp_path / "b", 1, lambda *_: None).predict(test)
    np.testing.assert_array_equal(hidden, shown)


def test_inner_folds_that_share_a_patient_are_refused(data: Data, folds: Folds, tmp_path: Path) -> None:
    train, _, inner = folds
    same = next(p for p in data.patients if data.patients.count(p) > 1)
    rows = np.flatnonzero(np.array(data.patients) == same)
    with pytest.raises(LeakageError, match="is on both sides"):
        make({}).fit(data, train, [(rows[:1], rows[1:])], tmp_path, 1, lambda *_: None)
    assert inner


def test_combat_is_learnt_in_the_fold_and_stored(data: Data, folds: Folds, tmp_path: Path) -> None:
    fitted = fit(make({"models": ["cox"], "combat": ["manufacturer"]}), data, folds, tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text())
    assert set(stored["combat"]["batches"]) == {"ge", "siemens"} and stored["combat"]["by"] == ["manufacturer"]
    values = data.features.iloc[folds[1][0]].dropna().to_dict()
    known, other = (fitted.model.predict(values, batch) for batch in ("ge", "canon"))
    assert known[1] == () and other[1] == ("scanner-unknown",) and not np.array_equal(known[0], other[0])


def test_only_the_families_that_are_asked_for_are_used(data: Data, folds: Folds, tmp_path: Path) -> None:
    fit(make({"models": ["cox"], "families": ["covariates"]}), data, folds, tmp_path)
    assert set(json.loads((tmp_path / "model.json").read_text())["features"]) <= {
        "covariates.age_years", "covariates.sex_male"
    }  # fmt: skip
    bare = Data(data.registry, data.cohort, data.features[["quantities.lungs.mean_hu"]], data.outcomes)
    with pytest.raises(UsageError, match="there are no features of the families change"):
        fit(make({"families": ["change"]}), bare, folds, tmp_path / "none")


@pytest.mark.parametrize(
    ("table", "message"),
    [({"modells": []}, "radiomics.modells: Extra inputs"), ({"correlation": 2}, "radiomics.correlation: Input should")],
)
def test_wrong_settings_are_refused(table: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_arm("radiomics", {"radiomics": table})
