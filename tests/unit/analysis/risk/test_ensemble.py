"""The ensemble of the node: the numbers that training found, on one scan and on many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dicomnode.analysis.risk.ensemble import Ensemble, hazard_logits
from dicomnode.analysis.risk.tabular import risk_of_logits
from training.models.stacking import Stack

probability = st.floats(0, 1)


@settings(deadline=None)
@given(
    st.lists(st.lists(probability, min_size=5, max_size=5), min_size=2, max_size=2),
    st.floats(0.01, 0.99),
    st.floats(0.05, 3),
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
def test_node_and_training_combine_alike(
    rows: list[list[float]], share: float, slope: float, intercepts: list[float]
) -> None:
    risks = np.sort(np.array(rows), axis=1)[:, None, :]
    stack = Stack(("a", "b"), (share, 1 - share), slope, tuple(intercepts))
    node = Ensemble(weights={"b": 1 - share, "a": share}, slope=slope, intercepts=tuple(intercepts))
    found = node.combine({"a": risks[0], "b": risks[1]})
    np.testing.assert_allclose(found, stack.risk(risks), atol=1e-12)
    assert (np.diff(found, axis=-1) >= 0).all() and found.min() >= 0 and found.max() <= 1


def test_one_arm_with_neutral_numbers_is_that_arm() -> None:
    risks = np.array([[0.1, 0.2, 0.2, 0.5, 0.9]])
    node = Ensemble(weights={"a": 1.0}, slope=1.0, intercepts=(0.0,) * 5)
    np.testing.assert_allclose(node.combine({"a": risks}), risks, atol=1e-5)


def test_hazards_and_risk_are_inverse() -> None:
    logits = np.array([[-3.0, 0.5, -1.0]])
    np.testing.assert_allclose(hazard_logits(risk_of_logits(logits)), logits, atol=1e-9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": {"a": -0.1, "b": 1.1}}, "must not be negative"),
        ({"weights": {"a": 0.0}}, "not all 0"),
        ({"weights": {}}, "weights"),
        ({"slope": 0.0}, "slope"),
        ({"intercepts": (float("nan"),)}, "intercepts"),
    ],
)
def test_numbers_that_make_no_ensemble_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Ensemble.model_validate({"weights": {"a": 1.0}, "slope": 1.0, "intercepts": (0.0,), **changed})
