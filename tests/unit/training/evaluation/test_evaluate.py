"""The evaluation: good, useless and dishonest predictions of a drawn registry, and what it says of each."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from dicomnode.errors import UsageError
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.evaluate import PRIMARY, evaluate
from training.evaluation.inputs import RISKS, parts_of
from training.evaluation.misjudged import worst
from training.evaluation.records import Evaluation
from training.synthetic.patients import draw, true_risk


@dataclass(frozen=True)
class Settings:
    bootstrap: int = 60
    threshold: float | tuple[float, ...] | dict[int, float] = 0.2


def drawn_cohort(patients: int = 400, seed: int = 20260101) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(cohort, truth, predictions of the arm "truth": the generator's own risk)."""
    scans = [s for s in draw(patients, seed)[1] if s.patient.end > s.years]
    cohort = pd.DataFrame(
        {
            "scan": [s.scan for s in scans],
            "patient": [s.patient.patient for s in scans],
            "date": [f"{2010 + int(s.years)}-{1 + int(12 * (s.years % 1)):02d}-01" for s in scans],
            "time_years": [s.patient.end - s.years for s in scans],
            "event": [s.patient.death <= s.patient.contact for s in scans],
            "age_years": [s.patient.age + s.years for s in scans],
            "sex": [s.patient.sex for s in scans],
            "manufacturer": [s.scanner.manufacturer for s in scans],
            "kernel_family": [s.kernel_family for s in scans],
        }
    )
    truth = pd.DataFrame([s.risks for s in scans], columns=["risk_1y", "risk_3y", "risk_5y"])
    truth.insert(0, "scan", cohort["scan"])
    risks = np.array([[true_risk(s.patient, s.years, h) for h in range(1, 6)] for s in scans])
    return cohort, truth, arm("truth", cohort, risks)


def arm(name: str, cohort: pd.DataFrame, risks: np.ndarray) -> pd.DataFrame:
    frame = cohort[["scan", "patient"]].assign(arm=name, fold=[int(p[1:]) % 5 for p in cohort["patient"]])
    return pd.concat([frame, pd.DataFrame(risks, columns=list(RISKS))], axis=1)


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return drawn_cohort()


@pytest.fixture(scope="module")
def found(drawn) -> Evaluation:
    cohort, truth, perfect = drawn
    rng = np.random.default_rng(1)
    risks = perfect[list(RISKS)].to_numpy()
    logit = np.log(np.clip(risks, 1e-6, 1 - 1e-6) / (1 - np.clip(risks, 1e-6, 1 - 1e-6)))
    noisy = 1 / (1 + np.exp(-(0.8 * logit + rng.standard_normal((len(risks), 1)))))
    blind = np.sort(rng.uniform(0.05, 0.5, risks.shape), axis=1)
    tables = [perfect, arm(PRIMARY, cohort, noisy), arm("blind", cohort, blind)]
    # Shuffled: an evaluation must not hang on the order of the predictions.
    return evaluate(cohort, pd.concat(tables).sample(frac=1, random_state=1), Settings(), truth)


def test_it_counts_what_it_judges(drawn, found: Evaluation) -> None:
    cohort = drawn[0]
    assert (found.scans, found.patients) == (len(cohort), cohort["patient"].nunique())
    assert found.deaths == cohort.groupby("patient")["event"].any().sum()
    assert [h.years for h in found.horizons] == [1, 3, 5]
    first = found.horizons[0]
    assert first.deaths == (cohort["event"] & (cohort["time_years"] <= 1)).sum()
    assert first.patients_died == cohort[cohort["event"] & (cohort["time_years"] <= 1)]["patient"].nunique()
    assert first.censored == (~cohort["event"] & (cohort["time_years"] <= 1)).sum()
    assert 2 < found.median_follow_up_years < 6
    assert found.primary == PRIMARY and {a.arm for a in found.arms} == {"truth", PRIMARY, "blind"}


@pytest.mark.parametrize("years", [1, 3, 5])
def test_the_truth_is_the_oracle_and_noise_is_worse(found: Evaluation, years: int) -> None:
    perfect, noisy, blind = (found.arm(name).at(years) for name in ("truth", PRIMARY, "blind"))
    oracle = next(o for o in found.oracle if o.years == years)
    assert perfect.auc.value == pytest.approx(oracle.auc.value, abs=1e-4)
    # Right but for the chance of the sample, and the interval knows of that.
    assert oracle.calibration_slope.lower < 1 < oracle.calibration_slope.upper
    assert oracle.calibration_intercept.lower < 0 < oracle.calibration_intercept.upper
    assert perfect.of_oracle.value == pytest.approx(1, abs=1e-4)
    assert perfect.minus_oracle.value == pytest.approx(0, abs=1e-4)
    assert perfect.auc.value > noisy.auc.value > blind.auc.value
    assert noisy.minus_oracle.upper < 0.02 and noisy.of_oracle.lower < 1
    assert blind.auc.value == pytest.approx(0.5, abs=0.1)
    assert perfect.brier.value < blind.brier.value
    assert perfect.scaled_brier.value > 0 > blind.scaled_brier.value


def test_every_interval_holds_its_estimate(found: Evaluation) -> None:
    for result in found.arms:
        for h in result.horizons:
            for e in (
                h.auc,
                h.auc_adjusted,
                h.auc_one_scan,
                h.brier,
                h.calibration_slope,
                h.sensitivity,
                h.net_benefit,
            ):
                assert e.lower <= e.value <= e.upper
        assert result.uno_c.lower < result.uno_c.value < result.uno_c.upper


def test_the_truth_is_calibrated(found: Evaluation) -> None:
    for h in found.arm("truth").horizons:
        assert h.calibration_slope.lower < 1 < h.calibration_slope.upper
        assert sum(g.scans for g in h.calibration) == found.scans
    assert any(w.startswith("blind: calibration slope") for w in found.warnings)
    assert [w.split(":")[0] for w in found.warnings if "may have learnt nothing" in w] == ["blind"]


def test_curves_rise_and_groups_part(found: Evaluation) -> None:
    result = found.arm("truth")
    false, true = np.array(result.at(3).roc).T
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all() and false[-1] == true[-1] == 1
    low, middle, high = result.risk_groups
    assert low.survival[36] > middle.survival[36] > high.survival[36]
    assert low.highest_risk <= middle.lowest_risk <= middle.highest_risk <= high.lowest_risk
    assert low.at_risk[0] + middle.at_risk[0] + high.at_risk[0] == found.scans
    assert result.at(3).decision[0].model > 0


def test_subgroups_are_parts_of_the_cohort(drawn, found: Evaluation) -> None:
    at_three = [s for s in found.arm(PRIMARY).subgroups if s.years == 3]
    for by in ("age", "manufacturer", "kernel"):
        assert sum(s.scans for s in at_three if s.by == by) == found.scans
    women = next(s for s in at_three if (s.by, s.value) == ("sex", "F"))
    assert women.scans == (drawn[0]["sex"] == "F").sum()
    assert women.auc.value is not None and women.observed_risk.value > 0


def test_a_vendor_that_changed_its_name_is_one_subgroup(drawn) -> None:
    names = ("SIEMENS", "Siemens Healthineers", "TOSHIBA", "Canon Medical Systems", "GE MEDICAL SYSTEMS", "Other", None)
    frame = drawn[0].iloc[: 2 * len(names)].assign(manufacturer=names * 2)
    found = {value: list(rows) for by, value, rows in parts_of(frame) if by == "manufacturer"}
    assert found == {"Canon/Toshiba": [2, 3, 9, 10], "GE": [4, 11], "Other": [5, 12], "Siemens": [0, 1, 7, 8]}


def test_few_deaths_give_no_auc_of_a_subgroup() -> None:
    cohort, _, perfect = drawn_cohort(40, seed=4)
    found = evaluate(cohort, perfect, Settings(20))
    assert found.primary == "truth" and found.oracle == ()
    small = [s for s in found.arms[0].subgroups if s.patients_died < 10]
    assert small and all(s.auc.value is None for s in small)
    assert any("estimates are unstable" in w for w in found.warnings)


@pytest.mark.parametrize(("patients", "measured"), [(9, False), (10, True)])
def test_many_scans_of_few_patients_are_few_deaths(patients: int, measured: bool) -> None:
    """12 scans each: 108 or 120 deaths by scan, and what carries an AUC, or steady figures, are the patients."""
    count = 12 * 2 * patients
    cohort = pd.DataFrame(
        {
            "scan": [f"S{i}" for i in range(count)],
            "patient": [f"P{i % (2 * patients)}" for i in range(count)],
            "date": "2015-01-01",
            "time_years": [0.5 if i % 2 else 6.0 for i in range(count)],
            "event": [bool(i % 2) for i in range(count)],
            "age_years": 60.0,
            "sex": "F",
            "manufacturer": "Maker",
            "kernel_family": "lung",
        }
    )
    risks = np.sort(np.random.default_rng(3).uniform(0.05, 0.5, (count, 5)), axis=1)
    found = evaluate(cohort, arm("one", cohort, risks), Settings(0))
    at = found.horizons[0]
    assert (at.deaths, at.patients_died) == (12 * patients, patients)
    words = f"1 y: only {patients} patients died ({12 * patients} scans); with fewer than 100 deaths"
    assert any(w.startswith(words) for w in found.warnings)
    for part in found.arms[0].subgroups:
        assert (part.deaths, part.patients_died) == (12 * patients, patients)
        assert (part.auc.value is not None) == measured


def test_what_is_too_good_is_called_so(drawn) -> None:
    cohort, truth, _ = drawn
    end = cohort["time_years"].to_numpy()[:, None]
    seen = np.where(cohort["event"].to_numpy()[:, None] & (end <= np.arange(1, 6)), 0.9, 0.1)
    found = evaluate(cohort, arm("seer", cohort, seen), Settings(20), truth)
    assert any("seer, 1 y: AUC 1.000 is implausibly high" in w for w in found.warnings)
    assert any("exceeds the oracle's" in w for w in found.warnings)


def test_the_worst_misses_are_named_each_patient_once() -> None:
    def cohort_of(rows: list[tuple[str, float, bool]]) -> pd.DataFrame:
        frame = pd.DataFrame(rows, columns=["patient", "time_years", "event"])
        return frame.assign(scan=[f"{p}-{i}" for i, p in enumerate(frame["patient"])])

    frame = cohort_of(
        [
            ("A", 1.0, True),  # died, low risk: the worst miss
            ("A", 2.0, True),  # the same patient, a little less so
            ("B", 3.0, True),  # on the day of the horizon: dead
            ("C", 2.9, False),  # censored before: neither
            ("D", 3.5, True),  # died after the horizon: survived it
            ("E", 6.0, False),
            *((f"F{i}", 4.0, False) for i in range(12)),
        ]
    )
    risk = np.array([0.01, 0.02, 0.3, 0.99, 0.6, 0.7, *(0.1 + 0.01 * i for i in range(12))])
    found = worst(frame, Outcomes(frame["time_years"].to_numpy(), frame["event"].to_numpy()), risk)
    assert [m.scan for m in found if m.died] == ["A-0", "B-2"]
    survivors = [m for m in found if not m.died]
    assert [m.scan for m in survivors[:3]] == ["E-5", "D-4", "F11-17"] and len(survivors) == 10
    assert (survivors[0].risk, survivors[0].time_years) == (0.7, 6.0)


def test_the_worst_misses_are_the_primary_arms(drawn, found: Evaluation) -> None:
    cohort = drawn[0].set_index("scan")
    dead = [m for m in found.misjudged if m.died]
    assert len(dead) == 10 and [m.risk for m in dead] == sorted(m.risk for m in dead)
    assert all(cohort.loc[m.scan, "event"] and cohort.loc[m.scan, "time_years"] <= 3 for m in dead)
    assert cohort.loc[[m.scan for m in dead], "patient"].is_unique


def test_one_patient_one_scan(drawn) -> None:
    cohort, _, perfect = drawn
    first = cohort.sort_values("date").groupby("patient").head(1)
    alone = evaluate(first, perfect[perfect["scan"].isin(first["scan"])], Settings(20))
    whole = evaluate(cohort, perfect, Settings(20))
    for years in (1, 3, 5):
        assert whole.arms[0].at(years).auc_one_scan.value == pytest.approx(alone.arms[0].at(years).auc.value)


def test_json_goes_out_and_in(found: Evaluation) -> None:
    text = found.to_json()
    assert Evaluation.from_json(text) == found
    assert "NaN" not in text
    with pytest.raises(UsageError, match="cannot be read"):
        Evaluation.from_json(text.replace('"scans"', '"scanz"', 1))


def test_without_deaths_or_draws_there_are_no_figures_and_no_error() -> None:
    cohort, _, perfect = drawn_cohort(30)
    quiet = evaluate(cohort.assign(event=False, sex="", manufacturer=None, age_years=np.nan), perfect, Settings(0))
    for h in quiet.arms[0].horizons:
        assert h.auc.value is None and h.calibration_slope.value is None and h.roc == ()
    assert Evaluation.from_json(quiet.to_json()) == quiet
    undrawn = evaluate(cohort, perfect, Settings(0)).arms[0].at(5)
    assert undrawn.auc.value is not None and undrawn.auc.lower is None
    assert undrawn.calibration[-1].lower is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "there must be exactly one per scan"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "there must be exactly one per scan"),
        (lambda t: t.assign(fold=range(len(t))), "patients are in more than one fold"),
        (lambda t: t.assign(risk_5=0.0), "do not decrease from year to year"),
        (lambda t: t.assign(risk_5=1.5), "must be probabilities"),
        (lambda t: t.assign(risk_5=np.nan), "must be probabilities"),
        (lambda t: t.drop(columns="fold"), "no column fold"),
        (lambda t: t.assign(patient=t["patient"].iloc[::-1].to_numpy(), fold=0), "different patient"),
        (lambda t: t.iloc[:0], "no predictions"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(drawn, change, message: str) -> None:
    cohort, _, perfect = drawn
    with pytest.raises(UsageError, match=message):
        evaluate(cohort, change(perfect), Settings(5))


def test_a_truth_of_another_registry_is_refused(drawn) -> None:
    cohort, truth, perfect = drawn
    with pytest.raises(UsageError, match="belongs to another registry"):
        evaluate(cohort, perfect, Settings(5), truth.iloc[3:])


def test_each_horizon_has_its_own_threshold(drawn, found: Evaluation) -> None:
    cohort, _, perfect = drawn
    given = evaluate(cohort, perfect, Settings(0, {1: 0.05, 3: 0.2, 5: 0.35}))
    assert given.thresholds == "0.05 at 1 y, 0.2 at 3 y, 0.35 at 5 y" and given.threshold == 0.2
    assert found.thresholds == "0.2" and [h.threshold for h in given.horizons] == [0.05, 0.2, 0.35]
    outcomes = Outcomes(cohort["time_years"].to_numpy(np.float64), cohort["event"].to_numpy(np.bool_))
    for at in given.horizons:
        risk = perfect[f"risk_{at.years}"].to_numpy(np.float64)
        known = metrics.at_horizon(outcomes, at.years)
        result = given.arm("truth").at(at.years)
        for name in ("sensitivity", "specificity", "net_benefit"):
            assert getattr(result, name).value == float(getattr(metrics, name)(known, risk, at.threshold))
    with pytest.raises(UsageError, match="2 numbers for 3 horizons"):
        evaluate(cohort, perfect, Settings(0, (0.1, 0.2)))
