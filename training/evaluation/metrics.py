"""How good predicted risks are, under censoring: pure functions of outcomes, risks and weights.

Every metric takes `at` (what is known of the scans at one horizon, see `at_horizon`) and `risk`, shape (scans,), the
predicted probability of death by that horizon. It answers with shape (...): one number, or one for each row of the
bootstrap's counts that `at` was made with. NaN says that there was nothing to measure: no death, or nobody who lived.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.outcomes import Outcomes, status_at
from training.evaluation.censoring import Floats, censoring_survival, censoring_weights, kaplan_meier_risk

#: Risks nearer to each other than this are tied (as in scikit-survival).
TIED = 1e-8
#: Newton's error squares at each step: after one of this length it is far below what a float can tell.
_NEWTON_STEPS, _CONVERGED, _STEEPEST = 60, 1e-7, 100.0
_EVENTS_AT_ONCE = 512
#: Of the draws that one evaluation is made with.
SEED = 20260101
_DRAWS_AT_ONCE = 125


@dataclass(frozen=True)
class AtHorizon:
    """What is known of scans at a horizon.

    Attributes:
        outcomes: of the scans.
        horizon: years.
        dead: (scans,), observed to have died by the horizon.
        counts: (..., scans), how often each scan is taken.
        weights: (..., scans), inverse probability of censoring times counts; 0 if censored before the horizon.
    """

    outcomes: Outcomes
    horizon: float
    dead: NDArray[np.bool_]
    counts: Floats
    weights: Floats


def at_horizon(
    outcomes: Outcomes,
    horizon: float,
    counts: Floats | None = None,
    *,
    strata: Sequence[object] | None = None,
    covariates: Floats | None = None,
) -> AtHorizon:
    """Take the scans at a horizon, years.

    Args:
        outcomes: of the scans.
        horizon: years.
        counts: as `censoring_weights` takes them, (..., scans).
        strata: as `censoring_weights` takes them, of each scan.
        covariates: as `censoring_weights` takes them, (scans, covariates).
    """
    weights = censoring_weights(outcomes, horizon, counts, strata=strata, covariates=covariates)
    taken = np.ones(len(outcomes.years)) if counts is None else counts
    return AtHorizon(outcomes, horizon, status_at(outcomes, horizon)[0], taken, weights)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def auc(at: AtHorizon, risk: Floats) -> Floats:
    """Compute the cumulative/dynamic AUC (Uno et al. 2007; Hung and Chiang 2010, doi:10.1002/cjs.10046).

    Ties count half. `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    return _share(*_ordered_pairs(at, risk, np.arange(len(risk))))


def auc_within(at: AtHorizon, risk: Floats, groups: Sequence[object]) -> Floats:
    """Compute the stratified AUC: `auc` over the pairs of scans within one group alone, here an outer fold.

    Models of different folds need not agree on the level of risk, only on the ranking: the pooled AUC also compares
    scans across folds, and is the lower for any disagreement between the folds' calibrations. A large gap between the
    two says that it is the calibration that wanders, not the ranking (Forman and Scholz 2010,
    doi:10.1145/1882471.1882479).

    Args:
        at: the scans at a horizon.
        risk: (scans,), 0 to 1.
        groups: one label a scan.

    Returns:
        The shape of `at.weights` without its last axis.
    """
    labels = np.asarray(groups)
    parts = [_ordered_pairs(at, risk, np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return _share(np.sum([won for won, _ in parts], axis=0), np.sum([pairs for _, pairs in parts], axis=0))


def _ordered_pairs(at: AtHorizon, risk: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return the weight of the pairs of a case and a control that `risk` orders rightly, and of all pairs."""
    order = rows[np.argsort(risk[rows], kind="stable")]
    first = np.flatnonzero(np.diff(risk[order], prepend=-np.inf) > TIED)
    cases = np.add.reduceat((at.weights * at.dead)[..., order], first, axis=-1)
    controls = np.add.reduceat((at.weights * ~at.dead)[..., order], first, axis=-1)
    below = np.cumsum(controls, axis=-1) - controls / 2
    return (cases * below).sum(axis=-1), cases.sum(axis=-1) * controls.sum(axis=-1)


def roc(at: AtHorizon, risk: Floats) -> tuple[Floats, Floats]:
    """Return (false, true) positive rates from (0, 0) to (1, 1) as the threshold falls; of one row of weights."""
    order = np.argsort(-risk, kind="stable")
    last = np.append(np.flatnonzero(np.diff(-risk[order]) > TIED), len(risk) - 1)
    rates = []
    for side in (~at.dead, at.dead):
        sums = np.cumsum((at.weights * side)[order])
        rates.append(np.append(0.0, _share(sums[last], np.full(len(last), sums[-1]))))
    return rates[0], rates[1]


def uno_c(outcomes: Outcomes, risk: Floats, tau: float, counts: Floats | None = None) -> Floats:
    """Compute Uno's C up to `tau` years (Uno et al. 2011, doi:10.1002/sim.4154): ordered right among comparable pairs.

    `risk` is (scans,), 0 to 1, `counts` (..., scans); the result has the shape of `counts` without its last axis.

    A death before `tau` is compared with everybody who lived longer, or was censored at the same time.
    """
    taken = np.ones(len(risk)) if counts is None else counts
    deaths = np.flatnonzero(outcomes.event & (outcomes.years < tau))
    g = censoring_survival(outcomes, outcomes.years[deaths], counts)
    weights = np.divide(taken[..., deaths], g**2, out=np.zeros_like(g), where=g > 0)
    better, pairs = np.zeros(taken.shape[:-1]), np.zeros(taken.shape[:-1])
    for start in range(0, len(deaths), _EVENTS_AT_ONCE):  # not all pairs of a large table at once
        part = slice(start, start + _EVENTS_AT_ONCE)
        rows = deaths[part]
        later = outcomes.years > outcomes.years[rows, None]
        later |= (outcomes.years == outcomes.years[rows, None]) & ~outcomes.event
        difference = risk[rows, None] - risk
        won = later * np.where(np.abs(difference) <= TIED, 0.5, difference > 0)
        better = better + ((weights[..., part] @ won) * taken).sum(axis=-1)
        pairs = pairs + ((weights[..., part] @ later.astype(np.float64)) * taken).sum(axis=-1)
    return _share(better, pairs)


def brier(at: AtHorizon, risk: Floats) -> Floats:
    """Compute the Brier score with IPCW (Graf et al. 1999): 0 is perfect.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    return _share((at.weights * (at.dead - risk) ** 2).sum(axis=-1), at.counts.sum(axis=-1))


def scaled_brier(at: AtHorizon, risk: Floats) -> Floats:
    """Compute 1 minus the Brier score over that of telling everybody Kaplan and Meier's risk.

    1 is perfect, 0 no better. `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last
    axis.
    """
    observed = kaplan_meier_risk(at.outcomes, at.horizon, at.counts)[..., None]
    nobody_told = _share((at.weights * (at.dead - observed) ** 2).sum(axis=-1), at.counts.sum(axis=-1))
    return 1 - _share(brier(at, risk), nobody_told)


def calibration_slope(at: AtHorizon, risk: Floats) -> Floats:
    """Fit the slope of a logistic model of death on the logit of the risk, weighted by IPCW.

    1 is right, below 1 too extreme. `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its
    last axis. NaN also where risks separate the dead from the living, so that no slope is steep enough.
    """
    z, y, weights = _known(at, risk)
    a, b = np.zeros(at.weights.shape[:-1]), np.ones(at.weights.shape[:-1])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # where there is no solution: answered with NaN
        for _ in range(_NEWTON_STEPS):
            p = expit(a[..., None] + b[..., None] * z)
            left, bend = weights * (y - p), weights * p * (1 - p)
            g0, g1 = left.sum(axis=-1), (left * z).sum(axis=-1)
            h00, h01, h11 = bend.sum(axis=-1), (bend * z).sum(axis=-1), (bend * z * z).sum(axis=-1)
            determinant = h00 * h11 - h01**2
            da, db = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
            shorter = np.minimum(1.0, 2.0 / np.maximum(np.abs(da), np.abs(db)))
            a, b = a + shorter * da, b + shorter * db
            moving = np.maximum(np.abs(da), np.abs(db)) > _CONVERGED
            if not moving.any():
                break
        return np.where(moving | ~(np.abs(b) < _STEEPEST) | ~_both(at), np.nan, b)


def calibration_intercept(at: AtHorizon, risk: Floats) -> Floats:
    """Fit calibration in the large: the shift of the logits, at slope 1, that makes the mean risk right: 0 if it is.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    z, y, weights = _known(at, risk)
    a = np.zeros(at.weights.shape[:-1])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # where there is no solution: answered with NaN
        for _ in range(_NEWTON_STEPS):
            p = expit(a[..., None] + z)
            step = (weights * (y - p)).sum(axis=-1) / (weights * p * (1 - p)).sum(axis=-1)
            a = a + np.clip(step, -2, 2)
            if not (np.abs(step) > _CONVERGED).any():
                break
        return np.where(_both(at) & (np.abs(step) <= _CONVERGED), a, np.nan)


def _known(at: AtHorizon, risk: Floats) -> tuple[Floats, Floats, Floats]:
    """Logits of the risk, death (0 or 1) and weights of the scans that weigh anything."""
    rows = np.flatnonzero(at.dead | (at.outcomes.years > at.horizon))
    return logit(risk[rows]), at.dead[rows].astype(np.float64), at.weights[..., rows]


def _both(at: AtHorizon) -> NDArray[np.bool_]:
    """Whether somebody died and somebody lived."""
    dead = (at.weights * at.dead).sum(axis=-1)
    return np.asarray((dead > 0) & (at.weights.sum(axis=-1) - dead > 0))


def logit(risk: Floats) -> Floats:
    """Return the logit of risks, kept within those of a millionth (0 and 1 have none)."""
    inside = np.clip(risk, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def expit(z: Floats) -> Floats:
    """Return the risks of logits."""
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def sensitivity(at: AtHorizon, risk: Floats, threshold: float) -> Floats:
    """Compute the share of those who die by the horizon whose risk is at least `threshold`.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    cases = at.weights * at.dead
    return _share((cases * (risk >= threshold)).sum(axis=-1), cases.sum(axis=-1))


def specificity(at: AtHorizon, risk: Floats, threshold: float) -> Floats:
    """Compute the share of those who live beyond the horizon whose risk is below `threshold`.

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.
    """
    controls = at.weights * ~at.dead
    return _share((controls * (risk < threshold)).sum(axis=-1), controls.sum(axis=-1))


def net_benefit(at: AtHorizon, risk: Floats, threshold: float) -> Floats:
    """Compute true positives a scan, less false positives at the odds of the threshold (Vickers and Elkin 2006).

    `risk` is (scans,), 0 to 1; the result has the shape of `at.weights` without its last axis.

    The unit is deaths rightly foreseen per scan (doi:10.1177/0272989X06295361). Nobody called high risk gives 0.
    """
    called = at.weights * (risk >= threshold)
    everyone = at.weights.sum(axis=-1)
    right = _share((called * at.dead).sum(axis=-1), everyone)
    wrong = _share((called * ~at.dead).sum(axis=-1), everyone)
    return right - wrong * threshold / (1 - threshold)


@dataclass(frozen=True)
class CalibrationGroup:
    """Scans of similar risk: how many, their mean predicted risk, and the observed one (Kaplan and Meier).

    `lower` and `upper` are its 95 % interval; None where there was no bootstrap.
    """

    scans: int
    predicted: float
    observed: float
    lower: float | None
    upper: float | None


def calibration_groups(
    outcomes: Outcomes, risk: Floats, horizon: float, counts: Floats, groups: int = 10
) -> tuple[CalibrationGroup, ...]:
    """Return groups of equal size by predicted risk (fewer where risks are tied), for a plot.

    A group of whom nobody was followed up to the horizon is left out: what was observed in it is not known.

    Args:
        outcomes: of the scans.
        risk: (scans,), 0 to 1.
        horizon: years.
        counts: of a bootstrap, (repeats, scans), for the intervals.
        groups: how many.
    """
    of = np.searchsorted(np.quantile(risk, np.arange(1, groups) / groups), risk, side="left")
    found = []
    for group in np.unique(of):
        rows = np.flatnonzero(of == group)
        drawn = counts[:, rows]
        observed = kaplan_meier_risk(outcomes[rows], horizon)
        if not np.isfinite(observed):
            continue
        ends = interval(kaplan_meier_risk(outcomes[rows], horizon, drawn[drawn.sum(axis=1) > 0]))
        lower, upper = (end if np.isfinite(end) else None for end in ends)
        found.append(CalibrationGroup(len(rows), float(risk[rows].mean()), float(observed), lower, upper))
    return tuple(found)


def bootstrap_counts(patients: Sequence[str], repeats: int, seed: int) -> Floats:
    """How often each scan is taken in each of `repeats` draws of patients with replacement: (repeats, scans).

    Patients are drawn, not scans: scans of one patient are alike.
    """
    names, of = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats)
    return drawn[:, of].astype(np.float64)


def in_parts(counts: Floats) -> Iterator[Floats]:
    """Yield the bootstrap's draws, (repeats, scans), some at a time: all at once take too much memory."""
    return (counts[start : start + _DRAWS_AT_ONCE] for start in range(0, len(counts), _DRAWS_AT_ONCE))


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the bootstrap's values, (draws,); those that are NaN are left out."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    lower, upper = np.percentile(finite, [2.5, 97.5])
    return float(lower), float(upper)
