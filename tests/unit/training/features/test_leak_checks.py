"""Features made from the outcome are noticed, good ones are not, and neither is chance among few."""

import numpy as np
import pandas as pd
import pytest

from tests.helpers.tabular_worlds import world
from training.data.outcomes import Outcomes
from training.features.leak_checks import names_patients, suspicious


def outcomes(count: int = 400) -> Outcomes:
    rng = np.random.default_rng(1)
    return Outcomes(rng.uniform(0.1, 8, count), rng.random(count) < 0.4)


@pytest.mark.parametrize(
    ("copy", "told"),
    [
        (lambda o: o.event, {"death at any time"}),
        (lambda o: -1.0 * o.event, {"death at any time"}),
        (lambda o: o.event & (o.years <= 3), {"death within 3 years"}),
        (
            lambda o: np.where(o.event, o.years, 99),
            {f"death within {y} years" for y in (1, 3, 5)} | {"death at any time"},
        ),
    ],
)
def test_a_copy_of_the_outcome_is_noticed(copy, told: set[str]) -> None:
    known = outcomes()
    values = np.asarray(copy(known), float) + 1e-3 * np.random.default_rng(2).normal(size=400)
    found = suspicious(pd.DataFrame({"a": values, "b": np.random.default_rng(3).normal(size=400)}), known)
    assert {s.feature for s in found} == {"a"} and {s.outcome for s in found} >= told
    assert all(0.98 < s.auc <= 1 for s in found)


def test_a_good_feature_a_constant_one_and_gaps_are_not() -> None:
    known = outcomes()
    good = 2.0 * known.event + np.random.default_rng(2).normal(size=400)
    few = np.where(np.arange(400) < 12, known.event, np.nan)
    table = pd.DataFrame({"good": good, "same": 1.0, "none": np.nan, "few": few})
    assert suspicious(table, known) == ()


def test_a_feature_of_one_or_two_patients_alone_is_noticed() -> None:
    patients = np.repeat([f"P{i}" for i in range(20)], 2)
    one, two, three = (np.isin(patients, [f"P{i}" for i in range(5, 5 + n)]) for n in (1, 2, 3))
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {
            "one": np.where(one, 1.0, np.nan),
            "one, else 0": np.where(one, 1.0, 0.0),
            "two": np.where(two, rng.normal(size=40), np.nan),
            "two, else 0": np.where(two, rng.normal(size=40), 0.0),
            "two, else 0 or none": np.where(two, 1.0, np.where(rng.random(40) < 0.3, np.nan, 0.0)),
            "three": np.where(three, 1.0, np.nan),
            "three, else 0": np.where(three, 1.0, 0.0),
            "change.two": np.where(two, 1.0, np.nan),
            "all": rng.normal(size=40),
            "same": 1.0,
            "none": np.nan,
        }
    )
    assert names_patients(table, list(patients)) == tuple(table)[:5]
    assert names_patients(table[:18], list(patients[:18])) == ()  # of nine patients


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_features_name_nobody(seed: int) -> None:
    made = world(patients=60, seed=seed)
    assert names_patients(made.features.drop(columns="scan"), made.scans["patient"].to_list()) == ()
