"""The predictor on plain numbers: by hand, with gaps and unknown scanners, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.findings import Delta, Findings, Quantities, Radiomics
from dicomnode.analysis.risk import tabular
from dicomnode.analysis.risk.tabular import batch_name, features_of, from_dict, read, risk_of_logits
from dicomnode.errors import BundleError

COX = {"kind": "cox", "coefficients": [1.0, -0.5], "baseline": [0.1, 0.2]}
TREE = {
    "feature": [2, -1, 0, -1, -1],
    "threshold": [0.5, 0, 0, 0, 0],
    "left": [1, 0, 3, 0, 0],
    "right": [2, 0, 4, 0, 0],
    "value": [0, 1.0, 0, 2.0, 3.0],
}
BOOSTING = {"kind": "boosting", "baseline": -1.0, "trees": [TREE, TREE]}
NETWORK = {
    "kind": "network",
    "layers": [{"weight": [[1.0, 0.0]], "bias": [-1.0]}, {"weight": [[2.0], [0.0]], "bias": [0.0, -1.0]}],
}


def stored(predictor: dict = COX, **changes) -> dict:
    return {
        "format": 1,
        "edges_years": [0, 1, 2],
        "features": ["a", "change.b"],
        "combat": {"by": ["manufacturer"], "batches": {"ge": {"scale": [2.0, 1.0], "shift": [1.0, 0.0]}}},
        "median": [10.0, 0.0],
        "low": [0.0, -1.0],
        "high": [40.0, 1.0],
        "mean": [10.0, 0.0],
        "sd": [10.0, 0.5],
        "predictor": predictor,
        **changes,
    }


def test_cox_by_hand() -> None:
    model = from_dict(stored())
    risk, doubts = model.predict({"a": 9.5, "change.b": 0.25, "unused": 1.0}, "ge")  # a: (9.5 * 2 + 1 - 10) / 10 = 1
    np.testing.assert_allclose(risk, 1 - np.exp(-np.array([0.1, 0.2]) * np.exp(1 - 0.25)), rtol=1e-14)
    assert doubts == ()


def test_boosting_by_hand() -> None:
    model = from_dict(stored(BOOSTING))
    # The interval is the last feature: the first goes left to 1, the second by `a`, at most 0, to 2, else to 3.
    low, high = (model.predict({"a": a, "change.b": 0}, "ge")[0] for a in (4.5, 9.5))
    h = 1 / (1 + np.exp(-np.array([1.0, 3.0, 5.0])))
    np.testing.assert_allclose(low, [h[0], 1 - (1 - h[0]) * (1 - h[1])], rtol=1e-14)
    np.testing.assert_allclose(high, [h[0], 1 - (1 - h[0]) * (1 - h[2])], rtol=1e-14)


def test_network_by_hand() -> None:
    model = from_dict(stored(NETWORK))
    below, above = (model.predict({"a": a, "change.b": 0}, "ge")[0] for a in (4.5, 14.5))  # -> 0 and 2; less 1: 0 and 1
    h0, h1, last = 1 / (1 + np.exp(-np.array([0.0, 2.0, -1.0])))
    np.testing.assert_allclose(below, [h0, 1 - (1 - h0) * (1 - last)], rtol=1e-14)
    np.testing.assert_allclose(above, [h1, 1 - (1 - h1) * (1 - last)], rtol=1e-14)


def test_gaps_and_unknown_scanners_are_told() -> None:
    model = from_dict(stored())
    risk, doubts = model.predict({}, "")
    assert doubts == ("scanner-unknown", "features-missing: a")
    np.testing.assert_allclose(risk, 1 - np.exp(-np.array([0.1, 0.2])), rtol=1e-14)  # both at the median, scaled 0
    without = from_dict(stored(combat=None))
    assert without.predict({"a": 1.0}, "ge")[1] == ()
    assert from_dict(json.loads(json.dumps({**stored(), **model.harmoniser.to_dict()}))).risk(
        np.ones((1, 2)), ["ge"]
    ) == pytest.approx(model.risk(np.ones((1, 2)), ["ge"]), abs=0)


@pytest.mark.parametrize("logits", [[-800.0, 0, 800], [30, 30, 30]])
def test_risk_stays_a_probability_that_rises(logits: list[float]) -> None:
    risk = risk_of_logits(np.array(logits))
    assert np.all(np.diff(risk) >= 0) and risk[0] >= 0 and risk[-1] <= 1


def test_a_tiny_hazard_is_not_rounded_away() -> None:
    assert risk_of_logits(np.array([-40.0]))[0] == pytest.approx(np.exp(-40.0), rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"sd": [0.0, 1.0]},
        {"low": [50.0, -1.0]},
        {"mean": [1.0]},
        {"median": [float("nan"), 0.0]},
        {"features": None},
        {"combat": {"by": ["manufacturer"], "batches": {"ge": {"scale": [1.0], "shift": [1.0, 0.0]}}}},
        {"combat": "ge"},
        {"predictor": {"kind": "forest"}},
        {"predictor": {**COX, "coefficients": [1.0]}},
        {"predictor": {**COX, "baseline": [0.2, 0.1]}},
        {"predictor": {**BOOSTING, "trees": [{**TREE, "left": [0, 0, 3, 0, 0]}]}},
        {"predictor": {**BOOSTING, "trees": [{**TREE, "right": [9, 0, 4, 0, 0]}]}},
        {"predictor": {**BOOSTING, "trees": [{**TREE, "feature": [3, -1, 0, -1, -1]}]}},
        {"predictor": {**NETWORK, "layers": NETWORK["layers"][:1]}},
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, changes: dict) -> None:
    (tmp_path / "model.json").write_text(json.dumps(stored(**changes)))
    with pytest.raises(BundleError, match=r"model\.json is not a tabular model of format 1"):
        read(tmp_path / "model.json")


def test_a_file_that_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("[1")
    with pytest.raises(BundleError, match="is not a tabular model"):
        read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("[1]")
    with pytest.raises(BundleError, match="is not a tabular model"):
        read(tmp_path / "model.json")


def test_batches_are_named_without_regard_to_case_and_space() -> None:
    scan = {"manufacturer": " GE Medical", "model": "Revolution", "kernel_family": "lung"}
    assert batch_name(["manufacturer", "kernel_family"], scan) == "ge medical|lung"
    assert batch_name(["manufacturer", "kernel_family"], {"manufacturer": "", "kernel_family": "unknown"}) == ""
    assert batch_name(tabular.BATCH_PARTS, {**scan, "model": None}) == "ge medical||lung"


def test_findings_become_features_by_their_names() -> None:
    measured = Quantities(*map(float, range(11)))
    findings = Findings(
        "analysed", quantities={"lungs": measured}, radiomics=Radiomics({}, {"left": {"original_glcm_Contrast": 2.0}})
    )
    found = features_of(findings)
    assert len(found) == 12 and found["radiomics.left.original_glcm_Contrast"] == 2.0
    assert found["quantities.lungs.haa_percent"] == 9.0 and "quantities.lungs.volume_ml" not in found
    assert features_of(replace(findings, radiomics=None, quantities={})) == {}
    assert Delta(1, 2, 1, None, None).per_year is None
