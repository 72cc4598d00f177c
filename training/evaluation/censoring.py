"""Censored times: Kaplan and Meier's curves, and the weights that let observed scans speak for those lost to follow-up.

Counts say how often each scan is taken: 1 each, or the draws of a bootstrap; shape (..., scans), all rows at once.
At equal times deaths come before censorings, and G(t), the probability of not being censored up to t, steps at t
itself: both as in scikit-survival, so that numbers agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.outcomes import Outcomes, status_at

Floats = NDArray[np.float64]

_Z = 1.959963984540054  # the 97.5th percentile of the standard normal distribution
_NEWTON_STEPS, _CONVERGED = 50, 1e-9
#: A hazard ratio of 5e8 for one SD. Only covariates that separate the events lead there; further on the information is
#: lost in rounding, and Newton's step may vanish by chance.
_LARGEST_COEFFICIENT = 20.0


@dataclass(frozen=True)
class Curve:
    """Kaplan and Meier's curve; one entry for each different time, rising. All shape (times,).

    Attributes:
        survival: the probability of living beyond each time.
        lower, upper: its 95 % interval by Greenwood's formula on the log(-log) scale (as lifelines). It counts scans as
            independent: of several scans a patient it is too narrow.
        at_risk: scans followed up to just before each time.
    """

    times: Floats
    survival: Floats
    lower: Floats
    upper: Floats
    at_risk: Floats

    def at(self, years: float) -> tuple[float, float, float]:
        """Survival, lower and upper at `years`; 1 before the first time."""
        index = int(np.searchsorted(self.times, years, side="right")) - 1
        if index < 0:
            return 1.0, 1.0, 1.0
        return float(self.survival[index]), float(self.lower[index]), float(self.upper[index])


@dataclass(frozen=True)
class _Steps:
    """How many are at risk, die and are lost at each different time, shape (..., times)."""

    times: Floats
    at_risk: Floats
    deaths: Floats
    lost: Floats


def _steps(outcomes: Outcomes, counts: Floats | None) -> _Steps:
    counts = np.ones(len(outcomes.years)) if counts is None else counts
    order = np.argsort(outcomes.years, kind="stable")
    times, first = np.unique(outcomes.years[order], return_index=True)
    ordered = counts[..., order]
    everyone = np.add.reduceat(ordered, first, axis=-1)
    deaths = np.add.reduceat(ordered * outcomes.event[order], first, axis=-1)
    at_risk = np.cumsum(everyone[..., ::-1], axis=-1)[..., ::-1]
    return _Steps(times, at_risk, deaths, everyone - deaths)


def _surviving(leaving: Floats, at_risk: Floats) -> Floats:
    """Return the running product of what stays, shape (..., 1 + times): it begins with 1."""
    share = np.divide(leaving, at_risk, out=np.zeros_like(leaving), where=at_risk > 0)
    product = np.cumprod(1 - share, axis=-1)
    return np.concatenate([np.ones((*product.shape[:-1], 1)), product], axis=-1)


def kaplan_meier(outcomes: Outcomes) -> Curve:
    """Return the survival of scans' patients from the scan on.

    Raises:
        ValueError: there is no scan.
    """
    if not outcomes.years.size:
        raise ValueError("there are no scans, so there is no curve")
    steps = _steps(outcomes, None)
    survival = _surviving(steps.deaths, steps.at_risk)[1:]
    alive = steps.at_risk - steps.deaths
    with np.errstate(divide="ignore", invalid="ignore"):  # nobody left: the interval is not known there
        greenwood = np.cumsum(steps.deaths / (steps.at_risk * alive))
        spread = _Z * np.sqrt(greenwood) / np.log(survival)
        lower, upper = survival ** np.exp(-spread), survival ** np.exp(spread)
    certain = survival == 1
    return Curve(steps.times, survival, np.where(certain, 1, lower), np.where(certain, 1, upper), steps.at_risk)


def kaplan_meier_risk(outcomes: Outcomes, horizon: float, counts: Floats | None = None) -> Floats:
    """Return the observed risk of death by the horizon: 1 minus Kaplan and Meier's survival, shape (...).

    NaN where nobody was followed up to the horizon and somebody was lost before it: the curve ends there.
    """
    steps = _steps(outcomes, counts)
    index = int(np.searchsorted(steps.times, horizon, side="right"))
    survival = _surviving(steps.deaths, steps.at_risk)[..., index]
    last = int(np.searchsorted(steps.times, horizon, side="left"))
    followed = steps.at_risk[..., last] > 0 if last < len(steps.times) else np.zeros(survival.shape, np.bool_)
    return np.where(followed | (survival == 0), 1 - survival, np.nan)


def cumulative_incidence(
    outcomes: Outcomes, cause: NDArray[np.bool_], horizon: float, counts: Floats | None = None
) -> Floats:
    """Return the observed risk of one cause by the horizon, others competing: Aalen and Johansen's estimate, (...).

    NaN where the curves end before the horizon, as for `kaplan_meier_risk`.

    Args:
        outcomes: of the scans, where any cause is an event.
        cause: whether the event is of this cause, (scans,).
        horizon: years.
        counts: how often each scan is taken, (..., scans).
    """
    every, one = _steps(outcomes, counts), _steps(Outcomes(outcomes.years, outcomes.event & cause), counts)
    index = int(np.searchsorted(every.times, horizon, side="right"))
    before = _surviving(every.deaths, every.at_risk)[..., :-1]
    hazard = np.divide(one.deaths, every.at_risk, out=np.zeros_like(one.deaths), where=every.at_risk > 0)
    risk = (before * hazard)[..., :index].sum(axis=-1)
    return np.where(np.isfinite(kaplan_meier_risk(outcomes, horizon, counts)), risk, np.nan)


def censoring_survival(outcomes: Outcomes, at: Floats, counts: Floats | None = None) -> Floats:
    """Return G, the share (0 to 1) not censored by the times `at` (times,), years: shape (..., times).

    It is Kaplan and Meier's estimate with censoring as the event.
    """
    steps = _steps(outcomes, counts)
    survival = _surviving(steps.lost, steps.at_risk - steps.deaths)
    return survival[..., np.searchsorted(steps.times, at, side="right")]


def censoring_weights(
    outcomes: Outcomes,
    horizon: float,
    counts: Floats | None = None,
    *,
    strata: Sequence[object] | None = None,
    covariates: Floats | None = None,
) -> Floats:
    """Inverse-probability-of-censoring weights (IPCW) at a horizon, times the counts: shape (..., scans).

    A scan whose patient died by the horizon weighs 1/G(death), one followed beyond it 1/G(horizon), one censored before
    it 0 (Graf et al. 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5; Uno et al.
    2007, doi:10.1198/016214507000000149).

    Args:
        outcomes: of the scans.
        horizon: years.
        counts: how often each scan is taken, (..., scans).
        strata: one label a scan: G is estimated in each stratum. For censoring that depends on a category.
        covariates: (scans, covariates): G comes from a Cox model of censoring on them. For censoring that depends on
            what is known of the patient. It is fitted once, not anew for each row of counts: their interval then
            takes the weights as known. Not together with `strata`.

    Raises:
        ValueError: both strata and covariates, or Cox's model finds no solution.
    """
    reached = np.minimum(outcomes.years, horizon)
    if covariates is not None:
        if strata is not None:
            raise ValueError("give strata or covariates, not both: a covariate may code the strata")
        g = _cox_censoring_survival(outcomes, reached, np.asarray(covariates, np.float64))
    else:
        g = _stratified(outcomes, reached, counts, strata)
    _, known = status_at(outcomes, horizon)
    inverse = np.divide(1.0, g, out=np.zeros_like(g), where=known & (g > 0))
    return inverse if counts is None else inverse * counts


def _stratified(outcomes: Outcomes, reached: Floats, counts: Floats | None, strata: Sequence[object] | None) -> Floats:
    if strata is None:
        return censoring_survival(outcomes, reached, counts)
    labels = np.asarray(strata)
    g = np.empty(reached.shape if counts is None else counts.shape)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        part = None if counts is None else counts[..., rows]
        g[..., rows] = censoring_survival(outcomes[rows], reached[rows], part)
    return g


def _cox_censoring_survival(outcomes: Outcomes, at: Floats, covariates: Floats) -> Floats:
    """G(at | covariates) of each scan, by Cox's model with Breslow's baseline; `at` and the result are (scans,)."""
    spread = covariates.std(axis=0)
    x = (covariates - covariates.mean(axis=0)) / np.where(spread > 0, spread, 1)
    relative = np.exp(x @ cox(outcomes.years, ~outcomes.event, x))
    times, inverse = np.unique(outcomes.years, return_inverse=True)
    lost = np.bincount(inverse, weights=~outcomes.event)
    at_risk = np.cumsum(np.bincount(inverse, weights=relative)[::-1])[::-1]
    baseline = np.concatenate([[0.0], np.cumsum(lost / at_risk)])
    return np.asarray(np.exp(-baseline[np.searchsorted(times, at, side="right")] * relative))


def cox(years: Floats, event: NDArray[np.bool_], x: Floats) -> Floats:
    """Coefficients of Cox's proportional hazards model, ties by Breslow, by Newton's method.

    Args:
        years: (scans,), observed.
        event: (scans,), whether what is modelled happened then.
        x: (scans, covariates), each centred and of SD about 1; a constant one gets the coefficient 0 (least squares).

    Raises:
        ValueError: no solution was found: the covariates separate the events, or depend on one another.
    """
    order = np.argsort(-years, kind="stable")
    years, event, x = years[order], event[order], x[order]
    # Rising backwards in time, the last scan of each time has the whole risk set behind it.
    last = np.searchsorted(-years, -years[event], side="right") - 1
    beta, spread = np.zeros(x.shape[1]), x.std(axis=0)
    for _ in range(_NEWTON_STEPS):
        risk = np.exp(x @ beta)
        s0 = np.cumsum(risk)[last]
        mean = np.cumsum(risk[:, None] * x, axis=0)[last] / s0[:, None]
        second = np.cumsum(risk[:, None, None] * x[:, :, None] * x[:, None, :], axis=0)[last] / s0[:, None, None]
        gradient = (x[event] - mean).sum(axis=0)
        information = (second - mean[:, :, None] * mean[:, None, :]).sum(axis=0)
        step = np.linalg.lstsq(information, gradient, rcond=None)[0]
        beta = beta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(beta * spread).max() > _LARGEST_COEFFICIENT:
            break
        if np.abs(step).max() < _CONVERGED:
            return np.asarray(beta, np.float64)
    raise ValueError("the Cox model of censoring does not converge: use fewer covariates")
