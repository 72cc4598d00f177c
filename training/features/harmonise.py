"""What is done to features before a model sees them, learnt on training rows alone, and never from outcomes.

In turn: features that are mostly missing or constant are left out; ComBat makes scanners alike (optional); missing
values become the median; values are clipped to what training has seen, centred and scaled; features that do not repeat
when one patient is scanned again soon are left out; of two that say the same, one is.

The result is a `dicomnode.analysis.risk.tabular.Harmoniser`, plain numbers that the node applies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.tabular import Floats, Harmoniser
from dicomnode.errors import UsageError

#: Scans of one scanner that ComBat needs to learn from it; a scanner with fewer passes through.
SMALLEST_BATCH = 10
#: Repetitions, of two scans or more, that the stability of features is judged from; with fewer it is not judged.
FEWEST_REPEATED = 20
#: A feature that a greater share of the training scans lacks is left out; first scans have no change.
MOST_MISSING, MOST_MISSING_CHANGE = 0.5, 0.9
_CLIP_PERCENT = 0.5


@dataclass(frozen=True)
class Choice:
    """A harmoniser, why each feature that it lacks was left out, and from how many repetitions stability was judged.

    `repeated` is 0 where it was not judged.
    """

    harmoniser: Harmoniser
    left_out: Mapping[str, str]
    repeated: int = 0


def fit(
    features: pd.DataFrame,
    batches: Sequence[str],
    repetitions: Sequence[str],
    *,
    combat_by: Sequence[str] = (),
    stability: float = 0.0,
    correlation: float = 1.0,
) -> Choice:
    """Learn from training rows.

    Args:
        features: (scans, features), NaN where missing.
        batches: scanner of each scan (`tabular.batch_name`); "" is unknown.
        repetitions: of each scan, alike for scans that repeat one another (`repetitions_of`).
        combat_by: parts of the batch name; empty: no ComBat.
        stability: lowest intraclass correlation over repeated scans; 0: not judged.
        correlation: highest absolute correlation between two features; 1: not judged.

    Raises:
        UsageError: no feature is left.
    """
    left_out: dict[str, str] = {}

    def keep(frame: pd.DataFrame, which: NDArray[np.bool_], reason: str) -> pd.DataFrame:
        left_out.update(dict.fromkeys(frame.columns[~which], reason))
        return frame.loc[:, which]

    limits = [MOST_MISSING_CHANGE if str(c).startswith("change.") else MOST_MISSING for c in features]
    features = keep(features, features.isna().mean().to_numpy() <= limits, "missing")
    features = keep(features, _varies(features.to_numpy()), "constant")
    if features.empty:
        raise UsageError(
            "every feature is missing or constant over the training scans: measure features or choose other families"
        )
    values = features.to_numpy(np.float64)
    acquired = np.array([not str(c).startswith(("change.", "covariates.")) for c in features])
    learnt = combat(values, batches, acquired) if combat_by else {}
    harmoniser = _scaling(tuple(map(str, features)), values, batches, tuple(combat_by), learnt)

    scaled = pd.DataFrame(harmoniser.apply(values, batches), columns=features.columns)
    repeated = _repeated(repetitions) if stability > 0 else 0
    if repeated:
        scaled = keep(scaled, _stable(scaled, repetitions, stability), "unstable")
    if correlation < 1:
        scaled = keep(scaled, uncorrelated(scaled.to_numpy(), correlation), "correlated")
    if scaled.shape[1] == 0:
        raise UsageError("no feature is repeatable over repeated scans: lower radiomics.stability")
    return Choice(_only(harmoniser, list(scaled)), left_out, repeated)


def repetitions_of(patients: Sequence[str], dates: Sequence[str], within_days: int) -> list[str]:
    """Return a label of each scan, alike for scans of one patient within so many days of the first of them.

    Scans far apart differ by what has happened in between: that is progression, not a lack of repeatability, and a
    feature that sees it would be left out for it.

    Args:
        patients: of each scan.
        dates: ISO, on one calendar for each patient.
        within_days: 0: all scans of a patient count as repetitions.
    """
    if within_days == 0:
        return list(patients)
    days = np.asarray(dates, "datetime64[D]").astype(np.int64)
    labels, begun = [""] * len(patients), dict[str, tuple[int, int]]()
    for row in np.argsort(days, kind="stable"):
        patient = patients[row]
        number, first = begun.get(patient, (0, int(days[row])))
        if days[row] - first > within_days:
            number, first = number + 1, int(days[row])
        begun[patient] = number, first
        labels[row] = f"{patient} {number}"
    return labels


def _varies(values: Floats) -> NDArray[np.bool_]:
    low, high = np.nanpercentile(values, [_CLIP_PERCENT, 100 - _CLIP_PERCENT], axis=0)
    return high - low > 1e-9 * np.maximum(np.abs(low), np.abs(high))


def _scaling(
    names: tuple[str, ...],
    values: Floats,
    batches: Sequence[str],
    combat_by: tuple[str, ...],
    learnt: Mapping[str, tuple[Floats, Floats]],
) -> Harmoniser:
    ones = np.ones(len(names))
    alike = Harmoniser(
        names, combat_by, learnt, np.full(len(names), np.nan), -np.inf * ones, np.inf * ones, 0 * ones, ones
    )
    values = alike.apply(values, batches)
    median = np.nanmedian(values, axis=0)
    values = np.where(np.isnan(values), median, values)
    low, high = np.percentile(values, [_CLIP_PERCENT, 100 - _CLIP_PERCENT], axis=0)
    # Where most values are one, as of missing changes, the percentiles may meet: then nothing is clipped.
    met = high <= low
    low, high = np.where(met, values.min(axis=0), low), np.where(met, values.max(axis=0), high)
    values = np.clip(values, low, high)
    sd = values.std(axis=0)
    return Harmoniser(names, combat_by, learnt, median, low, high, values.mean(axis=0), np.where(sd > 0, sd, 1.0))


def _only(whole: Harmoniser, names: Sequence[str]) -> Harmoniser:
    at = [whole.features.index(name) for name in names]
    rows = (whole.median[at], whole.low[at], whole.high[at], whole.mean[at], whole.sd[at])
    batches = {name: (scale[at], shift[at]) for name, (scale, shift) in whole.batches.items()}
    return Harmoniser(tuple(names), whole.combat_by, batches, *rows)


def combat(values: Floats, batches: Sequence[str], which: NDArray[np.bool_]) -> dict[str, tuple[Floats, Floats]]:
    """ComBat: location and scale of each batch, shrunk towards what all features of the batch share.

    The parametric empirical Bayes of Johnson, Li and Rabinovic (Biostatistics 2007;8:118, sections 3.1 and 3.2),
    without covariates: the node would have to know them. Missing values are passed over.

    Args:
        values: (scans, features).
        batches: of each scan; "" and batches of fewer than `SMALLEST_BATCH` scans are left as they are.
        which: features that are made alike, (features,).

    Returns:
        For each batch (scale, shift), each (features,): harmonised = scale * value + shift.
    """
    names = [b for b in sorted(set(batches)) if b and list(batches).count(b) >= SMALLEST_BATCH]
    rows = {name: np.array([b == name for b in batches]) for name in names}
    if len(names) < 2:
        return {}
    # A feature that a scanner hardly has cannot be made alike.
    which = which & np.all([np.sum(~np.isnan(values[rows[name]]), axis=0) >= SMALLEST_BATCH for name in names], axis=0)
    if not which.any():
        return {}
    known = values[np.any(list(rows.values()), axis=0)][:, which]
    means = {name: np.nanmean(values[rows[name]][:, which], axis=0) for name in names}
    grand = np.nanmean(known, axis=0)
    residual = np.concatenate([values[rows[name]][:, which] - means[name] for name in names])
    sigma = np.sqrt(np.nanmean(residual**2, axis=0))
    sigma = np.where(sigma > 0, sigma, 1.0)
    found = {}
    for name in names:
        gamma, delta = _shrunk((values[rows[name]][:, which] - grand) / sigma)
        scale, shift = np.ones(values.shape[1]), np.zeros(values.shape[1])
        scale[which] = 1 / delta
        shift[which] = grand * (1 - 1 / delta) - sigma * gamma / delta
        found[name] = (scale, shift)
    return found


def _shrunk(standardised: Floats) -> tuple[Floats, Floats]:
    """Location and scale of one batch's standardised values (scans, features) by empirical Bayes, each (features,)."""
    count = np.sum(~np.isnan(standardised), axis=0)
    gamma_hat, delta_hat = np.nanmean(standardised, axis=0), np.nanvar(standardised, axis=0, ddof=1)
    if len(gamma_hat) < 2 or delta_hat.var() == 0 or gamma_hat.var() == 0:
        return gamma_hat, np.sqrt(np.maximum(delta_hat, 1e-12))
    prior_mean, prior_variance = gamma_hat.mean(), gamma_hat.var(ddof=1)
    m, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
    shape, rate = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    gamma, delta = gamma_hat, delta_hat
    for _ in range(1000):
        new_gamma = (count * prior_variance * gamma_hat + delta * prior_mean) / (count * prior_variance + delta)
        squares = np.nansum((standardised - new_gamma) ** 2, axis=0)
        new_delta = (rate + squares / 2) / (count / 2 + shape - 1)
        moved = max(np.abs(new_gamma - gamma).max(), np.abs(new_delta - delta).max())
        gamma, delta = new_gamma, new_delta
        if moved < 1e-10:
            break
    return gamma, np.sqrt(delta)


def _repeated(repetitions: Sequence[str]) -> int:
    """Return from how many repetitions stability can be judged; 0 where they are too few."""
    found = int((pd.Series(repetitions).value_counts() > 1).sum())
    return found if found >= FEWEST_REPEATED else 0


def _stable(scaled: pd.DataFrame, repetitions: Sequence[str], lowest: float) -> NDArray[np.bool_]:
    """Whether each feature repeats; changes and covariates are no traits of a patient that could be asked to."""
    judged = np.array([not str(c).startswith(("change.", "covariates.")) for c in scaled])
    return ~judged | (intraclass_correlation(scaled.to_numpy(), repetitions) >= lowest)


def intraclass_correlation(values: Floats, patients: Sequence[str]) -> Floats:
    """ICC(1) of each column over patients with two rows or more (Shrout and Fleiss 1979, groups of unequal size).

    Args:
        values: (scans, features), without gaps.
        patients: of each scan.
    """
    order = np.argsort(np.array(patients), kind="stable")
    _, starts, counts = np.unique(np.array(patients)[order], return_index=True, return_counts=True)
    ordered = values[order]
    groups = [ordered[a:b] for a, b in pairwise([*starts, len(order)]) if b - a > 1]
    sizes = counts[counts > 1]
    total, number = sizes.sum(), len(sizes)
    grand = np.concatenate(groups).mean(axis=0)
    between = sum(len(g) * (g.mean(axis=0) - grand) ** 2 for g in groups) / (number - 1)
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups) / (total - number)
    size = (total - (sizes**2).sum() / total) / (number - 1)
    spread = between + (size - 1) * within
    return np.divide(between - within, spread, out=np.zeros_like(spread), where=spread > 0)


def uncorrelated(values: Floats, highest: float) -> NDArray[np.bool_]:
    """Choose the columns of (scans, features) that stay: (features,), true for each.

    Of each pair with a higher absolute correlation, that nearer to all others goes.
    """
    deviations = values - values.mean(axis=0)
    norms = np.sqrt((deviations**2).sum(axis=0))
    deviations = deviations / np.where(norms > 0, norms, 1.0)
    r = np.abs(deviations.T @ deviations)
    np.fill_diagonal(r, 0)
    kept = np.ones(len(r), bool)
    while r.size and r.max() > highest:
        pair = list(np.unravel_index(r.argmax(), r.shape))
        goes = max(pair, key=lambda i: (r[i].sum(), i))
        kept[goes] = False
        r[goes], r[:, goes] = 0, 0
    return kept
