"""Nested folds by patient: each patient on one side, deaths spread evenly, a file that notices when it is changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.errors import UsageError
from training.data.splits import LeakageError, Nested, assert_disjoint, nested


def scans(patients: int, died: int) -> tuple[list[str], np.ndarray]:
    """Two scans a patient; of the first `died` patients one is followed by a death."""
    names = [f"P{i:03d}" for i in range(patients) for _ in range(2)]
    event = np.array([i < died and j == 1 for i in range(patients) for j in range(2)])
    return names, event


@settings(max_examples=25, deadline=None)
@given(patients=st.integers(30, 90), seed=st.integers(0, 9), outer=st.integers(2, 4), inner=st.integers(2, 3))
def test_every_patient_is_predicted_once_and_never_seen(patients: int, seed: int, outer: int, inner: int) -> None:
    names, event = scans(patients, 13)
    split = nested(names, event, seed, outer, inner)
    split.check(names)
    tested: list[int] = []
    for number in range(outer):
        train, test = split.fold(number, names)
        tested += test.tolist()
        deaths = {names[i] for i in test if event[i]}
        assert 13 // outer <= len(deaths) <= 13 // outer + 1
        validated: list[int] = []
        for fit, validate in split.inner_folds(number, names):
            validated += validate.tolist()
            assert set(fit) | set(validate) == set(train) and event[fit].any() and event[validate].any()
        assert sorted(validated) == train.tolist()
    assert sorted(tested) == list(range(len(names)))


def test_the_seed_alone_decides_and_the_file_gives_it_back(tmp_path: Path) -> None:
    names, event = scans(40, 12)
    split = nested(names, event, 3, 3, 2)
    assert nested(names, event, 3, 3, 2) == split and nested(names, event, 4, 3, 2).sha256 != split.sha256
    split.save(tmp_path / "splits.json")
    assert Nested.load(tmp_path / "splits.json") == split


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    names, event = scans(40, 12)
    nested(names, event, 3, 3, 2).save(tmp_path / "splits.json")
    stored = json.loads((tmp_path / "splits.json").read_text())
    stored["outer"][0].append(stored["outer"][1].pop())
    (tmp_path / "splits.json").write_text(json.dumps(stored))
    with pytest.raises(LeakageError, match="has been changed since it was drawn"):
        Nested.load(tmp_path / "splits.json")
    (tmp_path / "splits.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the split of a run"):
        Nested.load(tmp_path / "splits.json")


def test_a_patient_on_both_sides_is_caught() -> None:
    with pytest.raises(LeakageError, match="the patient B is on both sides of a split"):
        assert_disjoint(["A", "B", "B"], np.array([0, 1]), np.array([2]))
    assert_disjoint(["A", "B", "B"], np.array([0]), np.array([1, 2]))
    names, event = scans(40, 12)
    good = nested(names, event, 3, 2, 2)
    twice = Nested(3, (good.outer[0], (*good.outer[1], good.outer[0][0])), good.inner)
    with pytest.raises(LeakageError, match="each patient of the cohort exactly once"):
        twice.check(names)
    with pytest.raises(LeakageError, match="is on both sides"):
        twice.inner_folds(1, names)
    inside = Nested(3, good.outer, ((*good.inner[0][:1], (*good.inner[0][1], good.outer[0][0])), good.inner[1]))
    with pytest.raises(LeakageError, match="inner folds do not contain each training patient exactly once"):
        inside.check(names)
    with pytest.raises(LeakageError, match="is on both sides"):
        inside.inner_folds(0, names)
    with pytest.raises(LeakageError, match="each patient of the cohort"):
        good.check([*names, "a patient who came later"])


def test_too_few_deaths_for_the_folds_are_refused() -> None:
    names, event = scans(40, 5)
    with pytest.raises(UsageError, match="5 patients of the cohort died, but 5 outer x 3 inner folds need at least 15"):
        nested(names, event, 1, 5, 3)
