"""Covariates: what a declaration must say, how values become numbers, and when there is no risk."""

import math

import pytest
from pydantic import ValidationError

from dicomnode.analysis.risk.covariates import Covariate, check, encoded
from dicomnode.errors import RefusedError

FVC = Covariate(name="fvc_l", type="number", unit="l", range=(0.2, 9.9))
SMOKING = Covariate(name="smoking", type="category", categories=("never", "former", "current"))
ANCESTRY = Covariate(name="ancestry", type="category", categories=("a", "b"), missing="median")
EVERY = (FVC, SMOKING, ANCESTRY)
NEEDED = {name for one in EVERY for name in one.features}


def test_a_category_is_an_indicator_of_each_but_the_reference() -> None:
    assert SMOKING.features == ("covariates.smoking=former", "covariates.smoking=current")
    former = {"covariates.fvc_l": 2.5, "covariates.smoking=former": 1.0, "covariates.smoking=current": 0.0}
    assert encoded(EVERY, {"fvc_l": 2.5, "smoking": "former", "height": 180}) == former
    assert encoded(EVERY, {"smoking": "never"}) == {"covariates.smoking=former": 0.0, "covariates.smoking=current": 0.0}
    assert encoded(EVERY, {"fvc_l": math.nan, "smoking": "", "ancestry": None}) == {}


@pytest.mark.parametrize(
    "given", [{"fvc_l": 12}, {"fvc_l": "2.5"}, {"fvc_l": True}, {"smoking": "often"}, {"smoking": 1}]
)
def test_what_was_not_declared_is_refused_without_the_value(given: dict[str, object]) -> None:
    with pytest.raises(RefusedError) as refused:
        encoded(EVERY, given)
    assert refused.value.code == "covariate-out-of-range"
    assert str(next(iter(given.values()))) not in refused.value.text.replace("2.", "")
    assert EVERY[0 if "fvc_l" in given else 1].described in refused.value.text


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({}, None, ""),
        ({"covariates.fvc_l": math.nan}, "covariate-missing", "fvc_l (0.2 to 9.9 l)"),
        ({"covariates.fvc_l": 11.0}, "covariate-out-of-range", "fvc_l is outside what the model was made for"),
        ({"covariates.smoking=former": math.nan}, "covariate-missing", "smoking (one of never, former, current"),
        ({"covariates.smoking=former": 1.0, "covariates.smoking=current": 1.0}, "covariate-out-of-range", "smoking"),
        ({"covariates.smoking=former": 0.5}, "covariate-out-of-range", "smoking"),
        ({"covariates.ancestry=b": math.nan}, None, ""),
        ({"covariates.ancestry=b": 2.0}, "covariate-out-of-range", "ancestry"),
    ],
)
def test_a_scan_outside_the_declaration_gets_no_risk(changes: dict[str, float], code: str | None, says: str) -> None:
    features = encoded(EVERY, {"fvc_l": 2.5, "smoking": "never", "ancestry": "a"}) | changes
    if code is None:
        check(EVERY, features, NEEDED)
        return
    with pytest.raises(RefusedError) as refused:
        check(EVERY, features, NEEDED)
    assert refused.value.code == code and says in refused.value.text
    check(EVERY, features, {"covariates.other"})  # what no model takes is not asked for


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "FVC", "type": "number", "unit": "l", "range": (1, 2)},
        {"name": "fvc", "type": "number", "range": (1, 2)},
        {"name": "fvc", "type": "number", "unit": "l"},
        {"name": "fvc", "type": "number", "unit": "l", "range": (2, 1)},
        {"name": "fvc", "type": "number", "unit": "l", "range": (1, math.inf)},
        {"name": "s", "type": "category", "categories": ("a",)},
        {"name": "s", "type": "category", "categories": ("a", "A")},
        {"name": "s", "type": "category", "categories": ("a", " b")},
        {"name": "s", "type": "category", "categories": ("a", "b"), "unit": "l"},
        {"name": "s", "type": "text"},
    ],
)
def test_a_declaration_is_whole(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Covariate.model_validate(wrong)
