"""From out-of-fold predictions to an `Evaluation`: each arm at each horizon, with intervals by bootstrap over patients.

All draws of the bootstrap are computed at once, as counts of scans (see `metrics`), and every arm, and the
oracle, is judged on the same draws: their differences are paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.outcomes import HORIZONS_YEARS, Outcomes, middle_of
from training.evaluation import calibration_curve, metrics
from training.evaluation.censoring import Floats, kaplan_meier, kaplan_meier_risk
from training.evaluation.differences import Drawn, differences, estimate, not_better
from training.evaluation.inputs import censoring_covariates, checked_risks, oracle_risks, parts_of
from training.evaluation.metrics import AtHorizon, at_horizon
from training.evaluation.misjudged import worst
from training.evaluation.records import (
    FORMAT,
    ArmResult,
    AtYears,
    Estimate,
    Evaluation,
    HorizonResult,
    NetBenefit,
    Oracle,
    RiskGroup,
    Subgroup,
)
from training.evaluation.thresholds import by_horizon
from training.evaluation.transplants import sensitivity
from training.evaluation.warnings import warnings_of

PRIMARY = "ensemble"
#: An AUC of a subgroup needs so many patients who died, and who survived: a patient's scans are no deaths of their own.
FEWEST_IN_SUBGROUP = 10
_THRESHOLDS = np.round(np.arange(0.02, 0.605, 0.02), 2)
_ROC_POINTS = 150
#: Metrics whose differences between arms are told.
_PAIRED: Mapping[str, Callable[[AtHorizon, Floats], Floats]] = {
    "auc": metrics.auc,
    "brier": metrics.brier,
    "ici": calibration_curve.integrated_calibration_index,
}


class EvaluationOptions(Protocol):
    """The settings of an evaluation: draws of the bootstrap, and the risk from which a scan counts as high."""

    @property
    def bootstrap(self) -> int:
        """How many draws."""
        ...

    @property
    def threshold(self) -> float | Sequence[float] | Mapping[int, float]:
        """From which risk on, 0 to 1, a scan counts as high: one for all horizons, one for each, or by year."""
        ...


@dataclass(frozen=True)
class _Scans:
    """Scans at one horizon: once as they are, and the bootstrap's draws in parts."""

    rows: NDArray[np.intp]
    whole: AtHorizon
    drawn: tuple[AtHorizon, ...]

    def estimate(self, metric: Callable[[AtHorizon, Floats], Floats], risk: Floats) -> Estimate:
        """Return a metric of the risks, (scans of the cohort,), with its interval."""
        return self.drawn_of(metric, risk).estimate

    def drawn_of(self, metric: Callable[[AtHorizon, Floats], Floats], risk: Floats) -> Drawn:
        """Return a metric of the risks, (scans of the cohort,), and in each draw of the bootstrap."""
        found = [
            np.where(known, metric(part, risk[self.rows]), np.nan)
            for known, part in zip(self.known, (self.whole, *self.drawn), strict=True)
        ]
        return Drawn(float(found[0]), np.concatenate(found[1:] or [np.empty(0)]))

    @cached_property
    def known(self) -> tuple[NDArray[np.bool_], ...]:
        """Whether anybody was followed up to the horizon (or all had died): once of all, and by part of each draw.

        Without, there are the dead alone, and every figure of them would mislead.
        """
        return tuple(np.isfinite(_observed(part, self.whole.weights)) for part in (self.whole, *self.drawn))


def evaluate(
    cohort: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: EvaluationOptions,
    truth: pd.DataFrame | None = None,
    horizons_years: Sequence[int] = HORIZONS_YEARS,
    baselines: Sequence[str] = (),
    *,
    external: bool = False,
    courses: pd.DataFrame | None = None,
) -> Evaluation:
    """Judge predictions of models that have not seen the patients: out of fold, or of another site.

    Args:
        cohort: scan, patient, time_years, event, age_years, sex, manufacturer, kernel_family, date.
        predictions: arm, scan, patient, fold, risk_1, risk_2, … up to the last horizon; each arm predicts every scan of
            the cohort once.
        settings: bootstrap and thresholds.
        truth: of a synthetic registry, for the oracle: scan, risk_1y, risk_3y, risk_5y.
        horizons_years: at which risks are judged; no oracle where the truth lacks one of them.
        baselines: which of the arms are only there to be compared with.
        external: whether the arms are finished bundles on another site's patients: what is warned of is another.
        courses: `training.data.cohort.courses` of the scans, for what hangs on lung transplants; None: not judged.

    Raises:
        UsageError: predictions are missing, doubled, no probabilities, fall with the year, or put a patient in two
            folds; the thresholds are not of these horizons.
    """
    thresholds = by_horizon(settings.threshold, horizons_years)
    cohort = cohort.reset_index(drop=True)
    arms = checked_risks(cohort, predictions, horizons_years)
    outcomes = Outcomes(cohort["time_years"].to_numpy(np.float64), cohort["event"].to_numpy(np.bool_))
    counts = metrics.bootstrap_counts(cohort["patient"].tolist(), settings.bootstrap, metrics.SEED)
    baselines = tuple(name for name in arms if name in baselines)
    primary = PRIMARY if PRIMARY in arms else next(iter(arms))
    folds = {
        name: of.set_index("scan").loc[cohort["scan"], "fold"].to_numpy() for name, of in predictions.groupby("arm")
    }
    adjusting = censoring_covariates(cohort, arms[primary], horizons_years)
    oracle_risk = None if truth is None else oracle_risks(cohort, truth, horizons_years)
    everyone = np.arange(len(cohort))
    first_scans = np.flatnonzero(~cohort.sort_values(["date", "scan"])["patient"].duplicated().sort_index())
    patients = pd.factorize(cohort["patient"])[0]
    middle = middle_of(horizons_years)
    horizons, oracles, groups = [], [], parts_of(cohort)
    by_arm: dict[str, list[HorizonResult]] = {name: [] for name in arms}
    drawn: dict[str, dict[str, list[Drawn]]] = {metric: {name: [] for name in arms} for metric in _PAIRED}
    subgroups: dict[str, list[Subgroup]] = {name: [] for name in arms}
    for index, years in enumerate(horizons_years):
        all_scans = _scans(outcomes, everyone, years, counts)
        one_scan = _scans(outcomes, first_scans, years, counts)
        adjusted = _adjusted(outcomes, everyone, years, counts, adjusting)
        parts = [(by, value, _scans(outcomes, rows, years, counts)) for by, value, rows in groups]
        horizons.append(_at_years(all_scans, patients, thresholds[years]))
        oracle = None if oracle_risk is None else oracle_risk[:, index]
        if oracle is not None:
            judged = (metrics.auc, metrics.calibration_slope, metrics.calibration_intercept)
            oracles.append(Oracle(years, *(all_scans.estimate(metric, oracle) for metric in judged)))
        for name, risks in arms.items():
            risk = risks[:, years - 1]
            result = _result(all_scans, one_scan, adjusted, risk, oracle, counts, thresholds[years])
            within = all_scans.estimate(partial(metrics.auc_within, groups=folds[name]), risk)
            paired_here = {metric: all_scans.drawn_of(compute, risk) for metric, compute in _PAIRED.items()}
            for metric, found in paired_here.items():
                drawn[metric][name].append(found)
            by_arm[name].append(replace(result, auc_within=within, ici=paired_here["ici"].estimate))
            subgroups[name] += [_subgroup(by, value, part, risk, patients) for by, value, part in parts]
    last = horizons_years[-1]
    concordance = {name: _uno_c(outcomes, risks[:, -1], counts, last) for name, risks in arms.items()}
    paired = differences(drawn["auc"], concordance, primary, baselines, drawn["brier"], drawn["ici"])
    results = tuple(
        ArmResult(
            arm=name,
            uno_c=concordance[name].estimate,
            horizons=tuple(by_arm[name]),
            subgroups=tuple(subgroups[name]),
            risk_groups=_risk_groups(outcomes, risks[:, middle - 1], last),
        )
        for name, risks in arms.items()
    )
    return Evaluation(
        format=FORMAT,
        bootstrap=settings.bootstrap,
        threshold=thresholds[middle],
        patients=int(cohort["patient"].nunique()),
        scans=len(cohort),
        deaths=int(cohort.groupby("patient")["event"].any().sum()),
        median_follow_up_years=_median_follow_up(outcomes),
        primary=primary,
        horizons=tuple(horizons),
        oracle=tuple(oracles),
        arms=results,
        misjudged=worst(cohort, outcomes, arms[primary][:, middle - 1], middle),
        warnings=(
            *not_better(paired, baselines),
            *warnings_of(
                outcomes, horizons, oracles, [r for r in results if r.arm not in baselines], external=external
            ),
        ),
        baselines=baselines,
        differences=paired,
        transplants=()
        if courses is None
        else sensitivity(cohort, arms[primary], courses, settings.bootstrap, horizons_years),
    )


def _scans(
    outcomes: Outcomes, rows: NDArray[np.intp], years: int, counts: Floats, covariates: Floats | None = None
) -> _Scans:
    """Return the scans at a horizon with the bootstrap's draws; a draw that takes none of them is left out."""
    chosen, drawn = outcomes[rows], counts[:, rows]
    drawn = drawn[drawn.any(axis=1)]
    given = None if covariates is None else covariates[rows]
    return _Scans(
        rows,
        at_horizon(chosen, years, covariates=given),
        tuple(at_horizon(chosen, years, piece, covariates=given) for piece in metrics.in_parts(drawn)),
    )


def _adjusted(
    outcomes: Outcomes, rows: NDArray[np.intp], years: int, counts: Floats, covariates: Floats
) -> _Scans | None:
    """Return as `_scans`; None where Cox's model of censoring finds no solution, as of a handful of patients."""
    try:
        return _scans(outcomes, rows, years, counts, covariates)
    except ValueError:
        return None


def _observed(at: AtHorizon, _: Floats) -> Floats:
    return kaplan_meier_risk(at.outcomes, at.horizon, at.counts)


def _distinct(patients: NDArray[np.intp], scans: _Scans, which: NDArray[np.bool_]) -> int:
    """How many patients stand behind some of the scans; `patients` is of all scans."""
    return len(np.unique(patients[scans.rows][which]))


def _at_years(scans: _Scans, patients: NDArray[np.intp], threshold: float) -> AtYears:
    at = scans.whole
    censored = ~at.dead & (at.outcomes.years <= at.horizon)
    nothing = np.zeros(len(at.dead))
    return AtYears(
        years=int(at.horizon),
        deaths=int(at.dead.sum()),
        patients_died=_distinct(patients, scans, at.dead),
        censored=int(censored.sum()),
        observed_risk=scans.estimate(_observed, nothing),
        threshold=threshold,
    )


def _result(
    scans: _Scans,
    one_scan: _Scans,
    adjusted: _Scans | None,
    risk: Floats,
    oracle: Floats | None,
    counts: Floats,
    threshold: float,
) -> HorizonResult:
    at, known = scans.whole, bool(scans.known[0])
    auc = scans.drawn_of(metrics.auc, risk)
    ratio = difference = None
    if oracle is not None:
        best = scans.drawn_of(metrics.auc, oracle)
        ratio, difference = estimate(auc.value / best.value, auc.draws / best.draws), auc.less(best)
    return HorizonResult(
        years=int(at.horizon),
        auc=auc.estimate,
        auc_adjusted=Estimate(None, None, None) if adjusted is None else adjusted.estimate(metrics.auc, risk),
        auc_one_scan=one_scan.estimate(metrics.auc, risk),
        of_oracle=ratio,
        minus_oracle=difference,
        brier=scans.estimate(metrics.brier, risk),
        scaled_brier=scans.estimate(metrics.scaled_brier, risk),
        calibration_slope=scans.estimate(metrics.calibration_slope, risk),
        calibration_intercept=scans.estimate(metrics.calibration_intercept, risk),
        sensitivity=scans.estimate(lambda a, r: metrics.sensitivity(a, r, threshold), risk),
        specificity=scans.estimate(lambda a, r: metrics.specificity(a, r, threshold), risk),
        net_benefit=scans.estimate(lambda a, r: metrics.net_benefit(a, r, threshold), risk),
        mean_risk=float(risk.mean()),
        calibration=metrics.calibration_groups(at.outcomes, risk, at.horizon, counts) if known else (),
        observed_to_expected=scans.estimate(calibration_curve.observed_to_expected, risk),
        smooth=calibration_curve.smooth_curve(at, scans.drawn, risk[scans.rows]),
        roc=_thinned(*metrics.roc(at, risk)),
        decision=tuple(_decision(at, risk, float(t)) for t in _THRESHOLDS) if known else (),
    )


def _thinned(false: Floats, true: Floats) -> tuple[tuple[float, float], ...]:
    if not np.isfinite([*false, *true]).all():
        return ()
    kept = np.unique(np.linspace(0, len(false) - 1, _ROC_POINTS).round().astype(int))
    return tuple((round(float(false[i]), 5), round(float(true[i]), 5)) for i in kept)


def _decision(at: AtHorizon, risk: Floats, threshold: float) -> NetBenefit:
    values = metrics.net_benefit(at, risk, threshold), metrics.net_benefit(at, np.ones_like(risk), threshold)
    model, everyone = (float(v) if np.isfinite(v) else None for v in values)
    return NetBenefit(threshold, model, everyone)


def _uno_c(outcomes: Outcomes, risk: Floats, counts: Floats, last: int) -> Drawn:
    tau = float(last)
    return Drawn(float(metrics.uno_c(outcomes, risk, tau)), metrics.uno_c(outcomes, risk, tau, counts))


def _subgroup(by: str, value: str, scans: _Scans, risk: Floats, patients: NDArray[np.intp]) -> Subgroup:
    at = scans.whole
    died = _distinct(patients, scans, at.dead)
    enough = min(died, _distinct(patients, scans, at.outcomes.years > at.horizon)) >= FEWEST_IN_SUBGROUP
    return Subgroup(
        by=by,
        value=value,
        years=int(at.horizon),
        scans=len(scans.rows),
        deaths=int(at.dead.sum()),
        patients_died=died,
        auc=scans.estimate(metrics.auc, risk) if enough else Estimate(None, None, None),
        mean_risk=float(risk[scans.rows].mean()),
        observed_risk=scans.estimate(_observed, risk),
    )


def _risk_groups(outcomes: Outcomes, risk: Floats, last: int) -> tuple[RiskGroup, ...]:
    """Thirds by predicted risk, lowest first; fewer where risks are tied. Curves end with the last horizon."""
    months = np.round(np.arange(12 * last + 1) / 12, 4)
    of = np.searchsorted(np.quantile(risk, [1 / 3, 2 / 3]), risk, side="left")
    found = []
    for number, name in enumerate(("lowest third", "middle third", "highest third")):
        rows = np.flatnonzero(of == number)
        if not rows.size:
            continue
        chosen = outcomes[rows]
        curve = kaplan_meier(chosen)
        points = [curve.at(float(y)) for y in months]
        # Beyond the last scan, and where nobody is left, Greenwood's interval is not known: it is drawn as the curve.
        survival, lower, upper = (tuple(float(p[k] if np.isfinite(p[k]) else p[0]) for p in points) for k in range(3))
        at_risk = tuple(int((chosen.years >= y).sum()) for y in months)
        ends = float(risk[rows].min()), float(risk[rows].max())
        found.append(RiskGroup(name, len(rows), *ends, tuple(months.tolist()), survival, lower, upper, at_risk))
    return tuple(found)


def _median_follow_up(outcomes: Outcomes) -> float:
    """Median time to last contact by the reverse Kaplan-Meier estimate (Schemper and Smith 1996), years."""
    curve = kaplan_meier(Outcomes(outcomes.years, ~outcomes.event))
    below = np.flatnonzero(curve.survival <= 0.5)
    return float(curve.times[below[0]] if below.size else curve.times[-1])
