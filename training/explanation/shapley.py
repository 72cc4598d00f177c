"""Shapley values: how much each number moved a prediction away from that for other scans (Lundberg and Lee 2017).

They are interventional (Janzing et al. 2020): what a feature is «without» is its value in scans of the training part.
A linear model has them in closed form. Of any other they are the mean over random orders of the features, each order
taken forwards and backwards (Castro et al. 2009; Mitchell et al. 2022): the sum over the features is exact for any
number of orders, and so is each value where the model has no interactions.

The library `shap` would bring the same: its tree explainer does not read our models (plain numbers, one tree walked
once for each interval), and what is left of it, the walk over orders, is the dozen lines below.
"""

from collections.abc import Callable

import numpy as np

from dicomnode.analysis.risk.tabular import Cox, Floats, Predictor

#: So many values at most are asked of a model at once: 64 MB.
_AT_ONCE = 8_000_000


def log_cumulative_hazard(risk: Floats) -> Floats:
    """Return log(-log(1 - risk)): the scale on which a Cox model is a sum; risks of 0 and 1 count as nearly so."""
    return np.log(-np.log1p(-np.clip(risk, 1e-12, 1 - 1e-12)))


def explain(predictor: Predictor, interval: int, rows: Floats, background: Floats, orders: int, seed: int) -> Floats:
    """Return the Shapley values of the log cumulative hazard at the end of an interval.

    Args:
        predictor: of a tabular model.
        interval: which, from 0.
        rows: harmonised values of the scans to explain, (scans, features).
        background: those of the scans to compare with, (scans, features).
        orders: how many random orders of the features, each taken both ways.
        seed: of the orders.

    Returns:
        (scans, features): what each feature adds.
    """
    if isinstance(predictor, Cox):
        return (rows - background.mean(axis=0)) * predictor.coefficients
    return by_orders(lambda x: log_cumulative_hazard(predictor.risk(x)[:, interval]), rows, background, orders, seed)


def by_orders(value: Callable[[Floats], Floats], rows: Floats, background: Floats, orders: int, seed: int) -> Floats:
    """Return Shapley values of any function of rows (n, features) to (n,), from random orders; as in `explain`."""
    rng = np.random.default_rng(seed)
    scans, features = rows.shape
    found = np.zeros((scans, features))
    part = max(1, _AT_ONCE // ((features + 1) * features))
    for _ in range(orders):
        order = rng.permutation(features)
        others = background[rng.integers(len(background), size=scans)]
        for way in (order, order[::-1]):
            for start in range(0, scans, part):
                some = slice(start, start + part)
                found[some][:, way] += _steps(value, rows[some], others[some], way)
    return found / (2 * orders)


def _steps(value: Callable[[Floats], Floats], rows: Floats, others: Floats, way: "np.ndarray") -> Floats:
    """Change the features of `others` to those of `rows` one after the other: what each change adds, in that order."""
    scans, features = rows.shape
    walk = np.repeat(others[:, None, :], features + 1, axis=1)
    for step, feature in enumerate(way, start=1):
        walk[:, step:, feature] = rows[:, feature, None]
    return np.diff(value(walk.reshape(-1, features)).reshape(scans, features + 1), axis=1)
