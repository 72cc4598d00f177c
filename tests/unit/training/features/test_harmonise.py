"""What is done to features before a model sees them: from training rows alone, in plain numbers."""

import inspect

import numpy as np
import pandas as pd
import pytest

from dicomnode.errors import UsageError
from training.features import harmonise
from training.features.harmonise import combat, fit, intraclass_correlation, repetitions_of, uncorrelated


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def frame(scans: int = 60) -> pd.DataFrame:
    values = rng().normal(size=(scans, 3)) * [1, 5, 100] + [0, 20, -700]
    return pd.DataFrame(values, columns=["quantities.a", "radiomics.b", "radiomics.c"])


def names(scans: int, each: int = 1) -> list[str]:
    return [f"P{i // each}" for i in range(scans)]


def test_nothing_here_can_see_an_outcome() -> None:
    seen = {p for f in (fit, combat, uncorrelated, intraclass_correlation) for p in inspect.signature(f).parameters}
    assert not {p for p in seen if any(word in p for word in ("outcome", "event", "years", "target"))}


def test_values_are_centred_scaled_completed_and_clipped() -> None:
    table = frame(1000)
    table.iloc[::7, 0] = np.nan
    harmoniser = fit(table, [""] * 1000, names(1000)).harmoniser
    done = harmoniser.apply(table.to_numpy(), [""] * 1000)
    np.testing.assert_allclose(done.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(done.std(axis=0), 1, atol=1e-12)
    far = harmoniser.apply(np.array([[1e9, -1e9, np.nan]]), [""])[0]
    assert far[0] == done[:, 0].max() and far[1] == done[:, 1].min()
    assert far[2] == (np.median(table["radiomics.c"]) - harmoniser.mean[2]) / harmoniser.sd[2]


def test_mostly_missing_and_constant_features_are_left_out_but_changes_may_miss() -> None:
    table = frame()
    table["radiomics.gone"] = np.where(np.arange(60) < 35, np.nan, rng().normal(size=60))
    table["change.seldom"] = np.where(np.arange(60) < 50, np.nan, rng().normal(size=60))
    table["radiomics.same"] = 4.0
    choice = fit(table, [""] * 60, names(60))
    assert choice.left_out == {"radiomics.gone": "missing", "radiomics.same": "constant"}
    assert "change.seldom" in choice.harmoniser.features
    with pytest.raises(UsageError, match="every feature is missing or constant over the training scans"):
        fit(table[["radiomics.same"]], [""] * 60, names(60))


def test_of_two_features_that_say_the_same_one_stays() -> None:
    table = frame()
    table["radiomics.copy"] = -3 * table["radiomics.b"] + 1
    table["radiomics.near"] = table["radiomics.c"] + rng().normal(size=60)
    choice = fit(table, [""] * 60, names(60), correlation=0.95)
    assert set(choice.left_out.values()) == {"correlated"} and len(choice.harmoniser.features) == 3
    assert len(fit(table, [""] * 60, names(60), correlation=1.0).harmoniser.features) == 5


def test_the_feature_nearest_to_all_others_goes() -> None:
    a, b = rng().normal(size=(2, 500))
    values = np.column_stack([a, b, (a + b) / np.sqrt(2)])
    assert uncorrelated(values, 0.6).tolist() == [True, True, False]


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1.0), (1.0, 0.5), (3.0, 0.1)])
def test_the_intraclass_correlation_is_the_share_of_the_patients(noise: float, expected: float) -> None:
    patients = names(6000, 3)
    values = np.repeat(rng().normal(size=(2000, 1)), 3, axis=0) + noise * np.random.default_rng(6).normal(
        size=(6000, 1)
    )
    # One of a patient's scans is missing here and there; patients with one scan say nothing.
    kept = np.arange(6000) % 10 != 0
    found = intraclass_correlation(values[kept], [p for p, k in zip(patients, kept, strict=True) if k])
    assert found[0] == pytest.approx(expected, abs=0.03)


def test_features_that_do_not_repeat_are_left_out_where_that_can_be_judged() -> None:
    patients = names(80, 2)
    steady = np.repeat(rng().normal(size=40), 2) + 0.1 * np.random.default_rng(6).normal(size=80)
    noisy = np.random.default_rng(7).normal(size=80)
    table = pd.DataFrame({"radiomics.steady": steady, "radiomics.noisy": noisy, "change.noisy": noisy})
    choice = fit(table, [""] * 80, patients, stability=0.5)
    assert choice.left_out == {"radiomics.noisy": "unstable"} and "change.noisy" in choice.harmoniser.features
    assert not fit(table, [""] * 80, names(80), stability=0.5).left_out
    assert not fit(table[:20], [""] * 20, patients[:20], stability=0.5).left_out
    with pytest.raises(UsageError, match="lower radiomics.stability"):
        fit(table[["radiomics.noisy"]], [""] * 80, patients, stability=0.5)


def test_scans_far_apart_do_not_repeat_one_another() -> None:
    """A feature that follows the disease is stable where the disease has had no time to go on."""
    days = ["2015-01-01", "2015-03-01", "2015-05-01", "2016-01-01", "2016-01-20"]
    assert repetitions_of(["A"] * 5, days, 90) == ["A 0", "A 0", "A 1", "A 2", "A 2"]
    assert repetitions_of(["A", "B"], days[:2], 90) == ["A 0", "B 0"]
    assert repetitions_of(["A"] * 5, days, 0) == ["A"] * 5
    rng = np.random.default_rng(8)
    patients = [f"P{i // 3}" for i in range(90)]
    dates = [("2015-01-01", "2015-01-20", "2018-01-01")[i % 3] for i in range(90)]
    severity = np.repeat(rng.normal(size=30), 3) + np.tile([0, 0, 4.0], 30) * np.repeat(rng.normal(size=30), 3)
    table = pd.DataFrame(
        {"radiomics.disease": severity + rng.normal(0, 0.2, 90), "radiomics.noise": rng.normal(size=90)}
    )
    near = fit(table, [""] * 90, repetitions_of(patients, dates, 90), stability=0.6)
    assert near.left_out == {"radiomics.noise": "unstable"} and near.repeated == 30
    assert fit(table[["radiomics.disease"]], [""] * 90, patients, stability=0.0).repeated == 0
    with pytest.raises(UsageError, match="no feature is repeatable"):
        fit(table, [""] * 90, patients, stability=0.6)
    soon = fit(table, [""] * 90, repetitions_of(patients, dates, 10), stability=0.6)
    assert soon.repeated == 0 and not soon.left_out, "nobody came back so soon: nothing is judged"


def scanners(each: int = 200) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """Two scanners that shift and stretch 40 features, over a true value."""
    truth = rng().normal(size=(2 * each, 40)) * np.linspace(1, 20, 40) + np.linspace(-50, 50, 40)
    batch = np.repeat([0, 1], each)
    measured = truth.copy()
    measured[batch == 1] = 1.5 * measured[batch == 1] + 0.6 * np.linspace(1, 20, 40)
    table = pd.DataFrame(measured, columns=[f"radiomics.f{i}" for i in range(40)])
    return table, ["one" if b == 0 else "two" for b in batch], truth


def test_combat_makes_scanners_alike() -> None:
    table, batches, _ = scanners()
    first = np.array(batches) == "one"
    harmoniser = fit(table, batches, names(400), combat_by=["model"]).harmoniser
    raw, done = table.to_numpy(), harmoniser.apply(table.to_numpy(), batches)
    before = np.abs(raw[first].mean(axis=0) - raw[~first].mean(axis=0)) / raw.std(axis=0)
    after = np.abs(done[first].mean(axis=0) - done[~first].mean(axis=0))
    spread = done[~first].std(axis=0) / done[first].std(axis=0)
    assert np.median(before) > 0.3 and after.max() < 0.05 and np.all(np.abs(spread - 1) < 0.15)
    # Within a scanner the order of scans stays as it was measured.
    correlation = [np.corrcoef(raw[first][:, i], done[first][:, i])[0, 1] for i in range(40)]
    assert min(correlation) > 0.98  # clipping alone bends it


def test_a_scanner_that_training_has_not_seen_passes_through() -> None:
    table, batches, _ = scanners()
    harmoniser = fit(table, batches, names(400), combat_by=["model"]).harmoniser
    row = table.to_numpy()[:1]
    expected = (np.clip(row, harmoniser.low, harmoniser.high) - harmoniser.mean) / harmoniser.sd
    np.testing.assert_array_equal(harmoniser.apply(row, ["three"]), expected)
    assert not np.array_equal(harmoniser.apply(row, ["one"]), expected)


def test_combat_leaves_small_scanners_unknown_ones_and_single_ones_alone() -> None:
    table, batches, _ = scanners(each=9)
    every = np.ones(40, bool)
    assert combat(table.to_numpy(), batches, every) == {}
    table, batches, _ = scanners()
    assert combat(table.to_numpy(), ["", *["one"] * 399], every) == {}
    some = combat(table.to_numpy(), ["rare", *batches[1:]], np.arange(40) < 10)
    assert set(some) == {"one", "two"}
    assert np.all(some["two"][0][10:] == 1) and np.all(some["two"][1][10:] == 0) and np.all(some["two"][0][:10] != 1)


def test_combat_shrinks_what_one_feature_says_towards_what_all_say() -> None:
    """The fixed point of Johnson et al. 2007: posterior means of location and scale, of one batch."""
    z = rng().normal(0.5, 1.2, size=(12, 30)) + 0.3 * np.random.default_rng(8).normal(size=30)
    gamma, delta = harmonise._shrunk(z)
    gamma_hat, delta_hat = z.mean(axis=0), z.var(axis=0, ddof=1)
    tau2, bar, m, s2 = gamma_hat.var(ddof=1), gamma_hat.mean(), delta_hat.mean(), delta_hat.var(ddof=1)
    shape, rate = m**2 / s2 + 2, m * (m**2 / s2 + 1)  # of the inverse gamma with mean m and variance s2
    np.testing.assert_allclose(gamma, (12 * tau2 * gamma_hat + delta**2 * bar) / (12 * tau2 + delta**2), atol=1e-8)
    np.testing.assert_allclose(delta**2, (rate + ((z - gamma) ** 2).sum(axis=0) / 2) / (6 + shape - 1), atol=1e-8)
    assert np.all(np.abs(gamma - bar) <= np.abs(gamma_hat - bar) + 1e-12)


def test_combat_passes_over_gaps() -> None:
    table, batches, _ = scanners()
    holed = table.to_numpy().copy()
    holed[::5] = np.nan
    whole, gaps = (combat(v, batches, np.ones(40, bool)) for v in (table.to_numpy(), holed))
    for name in whole:
        np.testing.assert_allclose(gaps[name][0], whole[name][0], rtol=0.15)
    holed[:, 3] = np.where(np.array(batches) == "two", np.nan, holed[:, 3])
    assert combat(holed, batches, np.ones(40, bool))["one"][0][3] == 1
