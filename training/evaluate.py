"""Metrics of risk at a horizon under censoring: pure functions, inverse-probability-of-censoring weights (IPCW).

The censoring distribution is the Kaplan-Meier estimate on the scans given. Intervals come from a bootstrap over
patients, since scans of one patient are alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.outcome import Outcomes, status_at

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % percentile interval over patients."""

    value: float
    lower: float
    upper: float


def censoring_survival(outcomes: Outcomes, at: Scores) -> Scores:
    """Kaplan-Meier estimate of P(not censored before t): G(t-), left-continuous, for each t in `at`.

    Where deaths and censorings fall on one time, deaths come first.
    """
    times = np.unique(outcomes.years[~outcomes.event])
    at_risk = np.array([(outcomes.years >= t).sum() - ((outcomes.years == t) & outcomes.event).sum() for t in times])
    censored = np.array([((outcomes.years == t) & ~outcomes.event).sum() for t in times])
    factors = 1 - censored / at_risk if times.size else np.empty(0)
    survival = np.concatenate([[1.0], np.cumprod(factors)])
    return survival[np.searchsorted(times, at, side="left")]


def _weights(outcomes: Outcomes, horizon: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Scores]:
    """(cases, controls, weights) at the horizon; a scan censored before it weighs 0."""
    dead, known = status_at(outcomes, horizon)
    g = censoring_survival(outcomes, np.minimum(outcomes.years, horizon))
    return dead, known & ~dead, np.where(known & (g > 0), 1 / np.maximum(g, 1e-12), 0.0)


def auc(outcomes: Outcomes, risk: Scores, horizon: float) -> float:
    """Cumulative/dynamic AUC with IPCW (Uno et al. 2007; Hung and Chiang 2010). NaN without cases or controls."""
    cases, controls, weights = _weights(outcomes, horizon)
    if not cases.any() or not controls.any():
        return float("nan")
    higher = risk[cases][:, None] - risk[controls][None, :]
    pairs = weights[cases][:, None] * weights[controls][None, :]
    return float((pairs * ((higher > 0) + 0.5 * (higher == 0))).sum() / pairs.sum())


def brier(outcomes: Outcomes, risk: Scores, horizon: float) -> float:
    """Brier score with IPCW (Graf et al. 1999): 0 is perfect."""
    cases, _, weights = _weights(outcomes, horizon)
    return float((weights * (cases - risk) ** 2).mean())


def kaplan_meier_risk(outcomes: Outcomes, horizon: float) -> float:
    """The observed risk of death by the horizon: 1 minus Kaplan and Meier's survival."""
    times = np.unique(outcomes.years[outcomes.event & (outcomes.years <= horizon)])
    deaths = np.array([((outcomes.years == t) & outcomes.event).sum() for t in times])
    at_risk = np.array([(outcomes.years >= t).sum() for t in times])
    return float(1 - np.prod(1 - deaths / at_risk)) if times.size else 0.0


def with_interval(
    metric: Callable[[Outcomes, Scores, float], float],
    outcomes: Outcomes,
    risk: Scores,
    horizon: float,
    patients: Sequence[str],
    *,
    repeats: int = 400,
    seed: int = 0,
) -> Estimate:
    """A metric with its interval from `repeats` bootstrap samples of patients; samples without a value are left out."""
    rng = np.random.default_rng(seed)
    names, of = np.unique(np.array(patients), return_inverse=True)
    rows = [np.flatnonzero(of == i) for i in range(len(names))]
    samples = (np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(repeats))
    values = np.array([metric(outcomes[s], risk[s], horizon) for s in samples])
    lower, upper = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    return Estimate(metric(outcomes, risk, horizon), float(lower), float(upper))
