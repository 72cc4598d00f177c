"""Conditions of the gate that hold for every bundle that is to serve: its use, its calibration, its discrimination."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from training.evaluation import metrics
from training.evaluation.bar import GateBar
from training.release.verdict import GateCheck

#: Half-precision networks and the order of sums move a metric by less.
_SAME = 1e-4
#: So much further off, in the logarithm of the slope or in the intercept, is within the error of a few hundred scans.
_BY_CHANCE = 0.1
#: Of the bootstrap: not the run's, which would set how sure it has to be.
_DRAWS, _SEED = 2000, 20260101


def same_use(bundle: Bundle, before: Bundle) -> GateCheck:
    """Whether a bundle is meant for the same patients as the one in service, or for real ones in place of phantoms."""
    same = before.intended_use in (bundle.intended_use, "synthetic-demo")
    text = f"intended use {bundle.intended_use}, in service {before.intended_use}"
    return GateCheck(
        "intended use",
        same,
        text if same else f"{text}: a model trained on phantoms must not replace one trained on patients",
    )


def calibration(
    at: metrics.AtHorizon, new: NDArray[np.float64], old: NDArray[np.float64] | None, bar: GateBar
) -> Iterator[GateCheck]:
    """Judge slope and level: within the thresholds, or no further from the ideal than what serves.

    Args:
        at: the scans at the horizon.
        new: risks of the candidate, (scans,), 0 to 1.
        old: those of the bundle in service, of the same shape; None without one.
        bar: the thresholds.
    """
    slopes = [float(metrics.calibration_slope(at, risk)) for risk in (new, old) if risk is not None]
    low, high = bar.calibration_slope
    said = [_shown(slope, ".2f") for slope in slopes]
    text = f"calibration slope at {at.horizon:g} years {said[0]}, required {low:g} to {high:g}"
    off = [abs(np.log(slope)) if slope > 0 else np.inf for slope in slopes]
    most = 2 * max(float(-np.log(low)), float(np.log(high)))
    yield _calibrated("calibration slope", low <= slopes[0] <= high, text, off, most, said)
    intercepts = [float(metrics.calibration_intercept(at, risk)) for risk in (new, old) if risk is not None]
    said = [_shown(intercept, "+.2f") for intercept in intercepts]
    text = f"calibration-in-the-large {said[0]} (logit), required within ±{bar.calibration_intercept:g}"
    within = abs(intercepts[0]) <= bar.calibration_intercept
    off = [abs(intercept) for intercept in intercepts]
    most = 2 * bar.calibration_intercept
    yield _calibrated("calibration-in-the-large", within, text, off, most, said)


def _shown(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "not estimable (few deaths, or nobody was followed this long)"


def _calibrated(name: str, within: bool, text: str, off: list[float], most: float, said: list[str]) -> GateCheck:
    """Decide by how far the run's bundle is off, and the one in service where there is one.

    Further off by chance is no worse, but only up to `most`: many small steps must not lead anywhere.
    """
    if len(off) == 1:
        return GateCheck(name, within, text)
    no_worse = off[0] <= off[1] + _SAME or (off[0] <= off[1] + _BY_CHANCE and off[0] <= most)
    text += f", or no worse than in service ({said[1]} on the same scans)"
    return GateCheck(name, within or bool(np.isfinite(off[0]) and no_worse), text)


def discrimination(
    at: metrics.AtHorizon,
    patients: Sequence[str],
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    on: str,
    bar: GateBar,
) -> GateCheck:
    """Test non-inferiority of the AUC on the same scans, by a bootstrap over the same draws of patients.

    Args:
        at: the scans at the horizon.
        patients: of each scan.
        new: risks of the candidate, (scans,), 0 to 1.
        old: those of the bundle in service, of the same shape.
        on: on whom that one is judged, in words.
        bar: the thresholds.
    """
    gain = auc(at, new) - auc(at, old)
    counts = metrics.bootstrap_counts(patients, _DRAWS, _SEED)
    drawn = metrics.at_horizon(at.outcomes, at.horizon, counts)
    low, high = metrics.interval(metrics.auc(drawn, new) - metrics.auc(drawn, old))
    text = (
        f"AUC at {at.horizon:g} years {auc(at, new):.3f}, in service {auc(at, old):.3f} on the same {len(patients)} "
        f"scans: difference {gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), required at least "
        f"-{bar.largest_loss:g}, with a lower bound of at least -{bar.margin:g}. The bundle in service is judged "
        f"on {on}"
    )
    return GateCheck("discrimination", gain >= -bar.largest_loss - _SAME and low >= -bar.margin - _SAME, text)


def auc(at: metrics.AtHorizon, risk: NDArray[np.float64]) -> float:
    """Return the AUC at the horizon of risks, (scans,), 0 to 1."""
    return float(metrics.auc(at, risk))
