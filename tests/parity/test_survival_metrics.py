"""Our metrics beside scikit-survival's and lifelines' on two real survival tables, to 1e-6.

`pbc2`: 312 patients with 1,945 visits; `support2`: 9,105 patients, with many deaths and censorings on the same day.
The risks compared come from simple formulas of the tables' own columns: that they are good is not the point.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from training.data.outcomes import Outcomes
from training.evaluation import censoring, metrics

CLOSE = {"rtol": 1e-6, "atol": 1e-9}


@dataclass(frozen=True)
class Table:
    outcomes: Outcomes
    risk: NDArray[np.float64]
    covariates: NDArray[np.float64]
    horizons: tuple[float, ...]

    @property
    def surv(self) -> NDArray[np.void]:
        return Surv.from_arrays(self.outcomes.event, self.outcomes.years)


def _logistic(z: pd.Series) -> NDArray[np.float64]:
    return (1 / (1 + np.exp(-(z - z.mean()) / z.std() + 1))).to_numpy(np.float64)


def pbc2(folder: Path, *, visits: bool) -> Table:
    table = pd.read_csv(folder / "pbc2.csv")
    years = table["years"] - table["year"] if visits else table["years"]
    table = table.assign(left=years).dropna(subset=["albumin", "serBilir"])
    table = table[table["left"] > 0] if visits else table.groupby("id").head(1)
    z = np.log(table["serBilir"]) - table["albumin"] + 0.04 * table["age"]
    covariates = table[["age", "albumin"]].assign(female=table["sex"] == "female").to_numpy(np.float64)
    outcomes = Outcomes(table["left"].to_numpy(np.float64), (table["status2"] == 1).to_numpy())
    return Table(outcomes, _logistic(z), covariates, (1.0, 3.0, 5.0))


def support2(folder: Path) -> Table:
    table = pd.read_csv(folder / "support2.csv", skipinitialspace=True)
    z = 0.03 * table["age"] + 0.05 * table["aps"] + (table["ca"] == "metastatic")
    # Rounded risks: many ties, which must count half.
    risk = np.round(_logistic(z.fillna(z.mean())), 2)
    covariates = table[["age", "aps"]].fillna(table["aps"].mean()).to_numpy(np.float64)
    outcomes = Outcomes(table["d.time"].to_numpy(np.float64) / 365.25, (table["death"] == 1).to_numpy())
    return Table(outcomes, risk, covariates, (0.5, 1.0, 3.0))


@pytest.fixture(params=["pbc2 patients", "pbc2 visits", "support2"])
def table(request: pytest.FixtureRequest, data: Path) -> Table:
    folder = data / "survival"
    made: dict[str, Callable[[], Table]] = {
        "pbc2 patients": lambda: pbc2(folder, visits=False),
        "pbc2 visits": lambda: pbc2(folder, visits=True),
        "support2": lambda: support2(folder),
    }
    return made[request.param]()


def test_the_tables_are_what_they_should_be(table: Table) -> None:
    assert table.outcomes.event.sum() > 100 and (~table.outcomes.event).sum() > 100
    assert len(np.unique(table.risk)) > 50


def test_auc(table: Table) -> None:
    expected, _ = cumulative_dynamic_auc(table.surv, table.surv, table.risk, table.horizons)
    ours = [metrics.auc(metrics.at_horizon(table.outcomes, h), table.risk) for h in table.horizons]
    np.testing.assert_allclose(ours, expected, **CLOSE)


def test_brier(table: Table) -> None:
    alive = np.repeat(1 - table.risk[:, None], len(table.horizons), axis=1)
    _, expected = brier_score(table.surv, table.surv, alive, table.horizons)
    ours = [metrics.brier(metrics.at_horizon(table.outcomes, h), table.risk) for h in table.horizons]
    np.testing.assert_allclose(ours, expected, **CLOSE)


def test_uno_c(table: Table) -> None:
    for tau in table.horizons:
        expected = concordance_index_ipcw(table.surv, table.surv, table.risk, tau=tau)[0]
        np.testing.assert_allclose(metrics.uno_c(table.outcomes, table.risk, tau), expected, **CLOSE)


def test_the_censoring_distribution(table: Table) -> None:
    at = np.linspace(0, table.horizons[-1], 50)
    expected = CensoringDistributionEstimator().fit(table.surv).predict_proba(at)
    np.testing.assert_allclose(censoring.censoring_survival(table.outcomes, at), expected, **CLOSE)


def test_kaplan_meier_and_its_interval(table: Table) -> None:
    with warnings.catch_warnings():
        # lifelines 0.30 asks pandas 3 for what pandas 4 will call otherwise: nothing that we could change.
        warnings.simplefilter("ignore")
        from lifelines import KaplanMeierFitter

        fitted = KaplanMeierFitter().fit(table.outcomes.years, table.outcomes.event)
        theirs = fitted.survival_function_["KM_estimate"], fitted.confidence_interval_survival_function_
    curve = censoring.kaplan_meier(table.outcomes)
    for horizon in table.horizons:
        survival, lower, upper = curve.at(horizon)
        row = np.searchsorted(theirs[0].index, horizon, side="right") - 1
        np.testing.assert_allclose(survival, theirs[0].iloc[row], **CLOSE)
        np.testing.assert_allclose([lower, upper], theirs[1].iloc[row], **CLOSE)
        assert censoring.kaplan_meier_risk(table.outcomes, horizon) == pytest.approx(1 - survival, abs=1e-12)


def test_coxs_model_of_censoring(table: Table) -> None:
    x = (table.covariates - table.covariates.mean(axis=0)) / table.covariates.std(axis=0)
    lost = ~table.outcomes.event
    fitted = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(x, Surv.from_arrays(lost, table.outcomes.years))
    np.testing.assert_allclose(censoring.cox(table.outcomes.years, lost, x), fitted.coef_, **CLOSE)
    horizon = table.horizons[1]
    expected = [f(horizon) for f in fitted.predict_survival_function(x[:200])]
    weights = censoring.censoring_weights(table.outcomes, horizon, covariates=table.covariates)[:200]
    beyond = table.outcomes.years[:200] > horizon
    np.testing.assert_allclose(1 / weights[beyond], np.array(expected)[beyond], **CLOSE)
