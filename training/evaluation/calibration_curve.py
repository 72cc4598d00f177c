"""Calibration without groups: a smooth curve of the observed against the predicted risk, and how far it lies from it.

The curve is a logistic model of death by the horizon on restricted cubic splines of the logit of the risk, weighted by
IPCW as the calibration slope is (`metrics.calibration_slope`, which is its straight line). From it come the integrated
calibration index and its relatives (Austin and Steyerberg 2019, doi:10.1002/sim.8281); the ratio of observed to
expected is Kaplan and Meier's risk over the mean predicted one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.censoring import Floats, kaplan_meier_risk
from training.evaluation.metrics import AtHorizon

#: Quantiles of the predictions at which the splines' knots lie (Harrell 2015, Regression Modeling Strategies, 2.4.6).
_KNOTS = (0.05, 0.35, 0.65, 0.95)
_NEWTON_STEPS, _CONVERGED, _STEEPEST = 60, 1e-9, 1e4
#: Against rounding alone: it moves a coefficient by less than what is shown.
_RIDGE = 1e-10
_POINTS = 50
#: A band is drawn, not read off: so many parts of the bootstrap's draws suffice for it.
_PARTS = 2


@dataclass(frozen=True)
class SmoothPoint:
    """A point of the smooth curve; `lower` and `upper` are its 95 % interval, None without a bootstrap."""

    predicted: float
    observed: float
    lower: float | None
    upper: float | None


def observed_to_expected(at: AtHorizon, risk: Floats) -> Floats:
    """Compute the observed risk (Kaplan and Meier) over the mean predicted one: 1 is right, above 1 too few foreseen.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    expected = (at.counts * risk).sum(axis=-1) / at.counts.sum(axis=-1)
    observed = kaplan_meier_risk(at.outcomes, at.horizon, at.counts)
    return np.divide(observed, expected, out=np.full(np.shape(expected), np.nan), where=np.asarray(expected) > 0)


def integrated_calibration_index(at: AtHorizon, risk: Floats) -> Floats:
    """Compute the ICI: the mean absolute distance of the predicted risks from the smooth curve. 0 is right.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis. NaN also where the curve
    cannot be fitted.
    """
    distance = np.abs(_observed(at, risk, risk) - risk)
    return np.asarray((at.counts * distance).sum(axis=-1) / at.counts.sum(axis=-1))


def smooth_curve(whole: AtHorizon, drawn: "tuple[AtHorizon, ...]", risk: Floats) -> tuple[SmoothPoint, ...]:
    """Return points of the smooth curve from the 1st to the 99th percentile of the risks; none where it has no fit.

    Args:
        whole: the scans, each once.
        drawn: the bootstrap's draws, in parts; the first of them make the band.
        risk: predicted, (scans,).
    """
    lowest, highest = (float(np.quantile(risk, share)) for share in (0.01, 0.99))
    where = np.unique(np.linspace(lowest, highest, _POINTS))
    curve = _observed(whole, risk, where)
    if not np.isfinite(curve).all():
        return ()
    draws = np.concatenate([_observed(part, risk, where) for part in drawn[:_PARTS]] or [np.empty((0, len(where)))])
    ends = [metrics.interval(draws[:, i]) for i in range(len(where))]
    return tuple(
        SmoothPoint(float(x), float(y), *(float(end) if np.isfinite(end) else None for end in pair))
        for x, y, pair in zip(where, curve, ends, strict=True)
    )


def _observed(at: AtHorizon, risk: Floats, where: Floats) -> Floats:
    """Return the curve's value at the risks `where`, (..., where); NaN where there is no fit.

    Where all risks are the same it is one number, the observed risk.
    """
    knots = np.unique(np.quantile(metrics.logit(risk), _KNOTS)) if np.ptp(risk) > 0 else np.empty(0)
    rows = np.flatnonzero(at.dead | (at.outcomes.years > at.horizon))
    x = _splines(metrics.logit(risk[rows]), knots)
    found = _fit(x, at.dead[rows].astype(np.float64), at.weights[..., rows])
    return metrics.expit(found @ _splines(metrics.logit(where), knots).T)


def _splines(z: Floats, knots: Floats) -> Floats:
    """Return 1, z and restricted cubic splines of z as columns; with fewer than three knots 1 and z, with none 1."""
    columns = [np.ones_like(z), z][: 1 + min(1, len(knots))]
    if len(knots) >= 3:
        last, before = knots[-1], knots[-2]
        scale = (last - knots[0]) ** 2
        for knot in knots[:-2]:
            beyond = _cubed(z - knot) - _cubed(z - before) * (last - knot) / (last - before)
            columns.append((beyond + _cubed(z - last) * (before - knot) / (last - before)) / scale)
    return np.stack(columns, axis=1)


def _cubed(values: Floats) -> Floats:
    return np.asarray(np.maximum(values, 0) ** 3)


def _fit(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Coefficients of weighted logistic models, one for each row of weights: (..., columns of x); NaN without a fit."""
    columns = x.shape[1]
    beta = np.zeros((*weights.shape[:-1], columns))
    beta[..., 1:2] = 1.0  # the straight line of perfect calibration
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), columns**2)
    moving: NDArray[np.bool_] = np.ones(weights.shape[:-1], np.bool_)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_NEWTON_STEPS):
            p = metrics.expit(beta @ x.T)
            gradient = (weights * (y - p)) @ x
            bend = ((weights * p * (1 - p)) @ products).reshape(*weights.shape[:-1], columns, columns)
            level = np.trace(bend, axis1=-2, axis2=-1)[..., None, None] * _RIDGE + 1e-300
            step = np.linalg.solve(bend + level * np.eye(columns), gradient[..., None])[..., 0]
            longest = np.abs(step).max(axis=-1, keepdims=True)
            beta = beta + step * np.minimum(1.0, 2.0 / np.maximum(longest, 1e-12))
            moving = np.asarray(~(longest[..., 0] <= _CONVERGED))
            if not moving.any() or not np.isfinite(beta).any():
                break
    dead = (weights * y).sum(axis=-1)
    one_sided = ~((dead > 0) & (weights.sum(axis=-1) > dead))
    lost = moving | one_sided | ~(np.abs(beta).max(axis=-1) < _STEEPEST)
    return np.where(lost[..., None], np.nan, beta)
