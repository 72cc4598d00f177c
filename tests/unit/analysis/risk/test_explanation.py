"""What is told of a scan's arms is what they compute: sums of contributions, and heat where the signal is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.findings import ArmExplanation
from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.analysis.risk.ensemble import Ensemble
from dicomnode.analysis.risk.explanation import contributions, explain
from dicomnode.analysis.risk.fold_models import FoldModels, Networks, Tables
from dicomnode.analysis.risk.network import HazardNet
from dicomnode.analysis.risk.preprocess import Spec
from dicomnode.analysis.risk.queries import Question
from dicomnode.analysis.risk.tabular import Boosting, Cox, Harmoniser, TabularModel, batch_name
from dicomnode.report.page import views
from tests.helpers.deep_cases import bright_is_risk, tiny_encoder

torch.set_num_threads(1)
NAMES = ("quantities.lungs.haa_percent", "covariates.age_years", "change.volume_ml", "encoder.0", "encoder.1")
EMPTY = Volume(np.zeros((2, 2, 2), np.int16), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
NO_LABELS = np.zeros((2, 2, 2), np.uint8)


def model(names: tuple[str, ...], coefficients: list[float], *, combat: bool = False) -> TabularModel:
    """Means and spreads of 1, 2, 3, …; GE's scanners measure twice as much and one more."""
    count = len(names)
    rising = np.arange(1.0, count + 1)
    batches = {"ge": (np.full(count, 2.0), np.ones(count))} if combat else {}
    by = ("manufacturer",) if combat else ()
    limits = (np.full(count, -40.0), np.full(count, 40.0))
    harmoniser = Harmoniser(names, by, batches, rising / 2, *limits, rising, rising)
    return TabularModel((0.0, 1.0, 5.0), harmoniser, Cox(np.array(coefficients), np.array([0.5, 1.0])))


VALUES = st.none() | st.floats(-60, 60)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(VALUES, min_size=5, max_size=5),
    st.lists(st.lists(st.floats(-0.05, 0.05), min_size=5, max_size=5), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["GE", "Other", ""]),
)
def test_contributions_sum_to_the_linear_predictor(
    values: list[float | None], coefficients: list[list[float]], combat: bool, maker: str
) -> None:
    """Of each fold model the log cumulative hazard at a baseline of 1, whatever is missing, clipped or harmonised."""
    models = [model(NAMES[: 5 - k % 2], row[: 5 - k % 2], combat=combat) for k, row in enumerate(coefficients)]
    features = {name: value for name, value in zip(NAMES, values, strict=True) if value is not None}
    scanner = {"manufacturer": maker}
    added = contributions(models, features, scanner)
    assert set(added) <= {*NAMES[:3], "encoder"}
    batch = batch_name(models[0].harmoniser.combat_by, scanner)
    risks = [one.predict(features, batch)[0][-1] for one in models]
    told = np.mean(np.log(-np.log1p(-np.array(risks))))
    assert sum(added.values()) == pytest.approx(told, abs=1e-9)


def asked(models: FoldModels, features: dict[str, float]) -> tuple[ArmExplanation, ...]:
    return explain(models, Question(EMPTY, NO_LABELS, features), 1, 5).arms


def fold_models(*tables: Tables, covariates: tuple[Covariate, ...] = ()) -> FoldModels:
    weights = {arm.name: float(k) for k, arm in enumerate(tables, start=1)}
    return FoldModels("ab", None, (), tables, Ensemble(weights=weights, slope=1, intercepts=(0, 0)), covariates)


def test_an_arm_s_inputs_are_told_with_unit_and_value_the_largest_first() -> None:
    names = (*(f"quantities.lungs.p{k:02}_hu" for k in range(9)), "covariates.fvc_l", "covariates.idle")
    litre = Covariate(name="fvc_l", type="number", unit="l", range=(0.5, 9.0), missing="median")
    made = model(names, [0.1 * (k + 1) for k in range(10)] + [0.0])
    (arm,) = asked(fold_models(Tables("radiomics", (made,)), covariates=(litre,)), {names[8]: -40.0, names[0]: 4.0})
    first, second = arm.contributions[:2]
    assert (first.name, first.value, first.unit) == (names[8], -40.0, "HU")
    assert first.added == pytest.approx(0.9 * (-40 - 9) / 9)
    assert (second.name, second.value, second.unit) == ("covariates.fvc_l", None, "l"), "the training median stands in"
    assert second.added == pytest.approx(1.0 * (5 - 10) / 10)
    assert len(arm.contributions) == 8 and arm.others == 2, "an input without a coefficient adds nothing"
    together = sum(one.added for one in arm.contributions) + arm.others_sum
    assert arm.linear_predictor == pytest.approx(together, abs=1e-12)


def test_what_is_not_linear_is_not_told() -> None:
    linear = model(NAMES[:2], [0.5, 0.25])
    trees = replace(linear, predictor=Boosting(0.0, (), 2))
    mixed, bare = Tables("mixed", (linear, trees, linear)), Tables("bare", (trees,))
    first, second = asked(fold_models(bare, mixed), {NAMES[0]: 3.0, NAMES[1]: 2.0})
    assert (first.arm, first.weight, first.explained) == ("mixed", pytest.approx(2 / 3, abs=1e-6), 2)
    assert first.linear_predictor == pytest.approx(1.0), "of the linear ones alone"
    assert first.not_explained == "Not explained: 1 of 3 fold models (boosted trees), not linear."
    assert (second.linear_predictor, second.contributions) == (None, ())
    assert second.not_explained == "Not explained: boosted trees, not linear."


def test_the_picture_is_where_the_signal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense lung in the left lung's back, in the second quarter of the height."""
    monkeypatch.setattr("dicomnode.analysis.risk.network.encoder", tiny_encoder)
    nets = {f"net-{k}": bright_is_risk(HazardNet("resnet18", 2).eval()) for k in range(2)}
    hu = np.full((24, 40, 48), -900, np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    labels[4:20, 8:32, 4:20], labels[4:20, 8:32, 28:44] = 1, 2
    hu[9:11, 24:31, 34:42] = 0
    volume = Volume(hu, (10.0, 6.0, 6.0), (0.0, 0.0, -50.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())
    spec = Spec(spacing_mm=8.0, canvas=(32, 32), slices=4)
    ensemble = Ensemble(weights={"tiny": 1.0}, slope=1, intercepts=(0, 0))
    models = FoldModels("ab", spec, (Networks("tiny", nets),), (), ensemble)
    told = explain(models, Question(volume, labels), 1, 5)
    heat = told.arms[0].heat
    assert heat is not None and told.arms[0].explained == 2
    assert (heat.level, heat.levels, heat.size_mm) == (2, 4, (256.0, 256.0))
    assert heat.z_mm == pytest.approx(-50 + 10 * 9.5), "the middle of the second quarter of slices 4 to 19"
    assert max(max(row) for row in heat.cells) == 1.0
    (looked,) = views.choose(volume, labels, told).looked
    cells = np.array(heat.cells)
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    left, right, top, bottom = looked.covers
    # In pixels of the view, whose first row and column are 8 - 5 and 4 - 4 of the volume's.
    down = top + (row + 0.5) * (bottom - top) / cells.shape[0] + 3
    across = left + (column + 0.5) * (right - left) / cells.shape[1]
    assert 22 <= down <= 33 and 32 <= across <= 44
