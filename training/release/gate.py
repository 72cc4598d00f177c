"""The gate that a run's bundle must pass to go into service; its verdict, with the reasons, is `gate.json` in the run.

The candidate is judged by its out-of-fold predictions, the bundle in service by its predictions for the same scans. If
that one was trained on some of these patients, it looks better than it is, which makes the gate harder to pass, never
easier.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, UsageError
from training.evaluation import metrics
from training.models.arm import Data, Rows
from training.models.stacking import risk_names
from training.progress_type import ProgressCallback
from training.release import node_predictions, verdict
from training.release.promotion import CURRENT, bundle_of
from training.release.verdict import GateCheck, GateVerdict
from training.run.run import read_data
from training.run.settings import GateSettings, RunSettings, from_dict

#: Networks are stored in half precision, which moves a probability by less.
_PARITY = 0.01
#: Measured on the same voxels by the same code, numbers are equal but for rounding.
_MEASURED = 0.001


def compare(run: Path, current: Path | None, progress: ProgressCallback) -> GateVerdict:
    """Judge a run's bundle, beside the one that serves now, and write `gate.json`.

    Args:
        run: a finished run.
        current: the folder of the serving bundle; None where there is none. `current` of a weights folder may be
            missing: nothing was promoted there yet, so nothing serves.
        progress: told about each stage.

    Raises:
        UsageError: the run is not finished, or the serving bundle cannot be asked about its scans.
        BundleError: the serving bundle does not load.
    """
    settings = _settings(run)
    data = read_data(run, settings.registry, settings.horizons)
    before = None if current is None or _not_yet(current) else load(current, allow_demo=True)
    if before is not None and settings.gate.horizon_years not in before.manifest.horizons_years:
        raise UsageError(
            f"{current} does not predict at {settings.gate.horizon_years} years: set gate.horizon_years to one of "
            f"{', '.join(map(str, before.manifest.horizons_years))}"
        )
    bundle_sha256 = ""
    checks: tuple[GateCheck, ...] = ()
    try:
        bundle = load(bundle_of(run), allow_demo=True)
        bundle_sha256, checks = bundle.sha256, tuple(_checks(run, settings, data, bundle, before, progress))
    except BundleError as error:
        checks = (GateCheck("bundle", False, str(error)),)
    found = GateVerdict(
        passed=all(check.passed for check in checks),
        checks=checks,
        bundle_sha256=bundle_sha256,
        current_sha256="" if before is None else before.sha256,
        made_at=datetime.now(UTC).isoformat(),  # to the microsecond: each comparison is a consent of its own
    )
    verdict.write(run, found)
    return found


def _settings(run: Path) -> RunSettings:
    """Return the run's settings. Raises UsageError where the run has not come to its end."""
    needed = ("run.json", "cohort.parquet", "features.parquet", "predictions.parquet")
    if missing := [name for name in needed if not (run / name).is_file()]:
        raise UsageError(f"{run} is not a finished run ({', '.join(missing)} missing): run `training run`")
    bundle_of(run)
    try:
        stored = json.loads((run / "run.json").read_text("utf-8"))["settings"]
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{run / 'run.json'} is not the record of a run ({error!r}): start a new run") from None
    return from_dict(stored, str(run / "run.json"))


def _not_yet(current: Path) -> bool:
    return current.name == CURRENT and not current.exists() and not current.is_symlink()


def _checks(
    run: Path, settings: RunSettings, data: Data, bundle: Bundle, before: Bundle | None, progress: ProgressCallback
) -> Iterator[GateCheck]:
    gate = settings.gate
    yield GateCheck("bundle", True, "digests and golden case verified")
    if before is not None:
        yield _same_use(bundle, before)
    predictions = pd.read_parquet(run / "predictions.parquet")
    by_arm = {str(arm): _aligned(of, data) for arm, of in predictions.groupby("arm")}
    new = by_arm["ensemble"][f"risk_{gate.horizon_years}"].to_numpy(np.float64)
    at = metrics.at_horizon(data.outcomes, gate.horizon_years)
    yield from _calibration(at, new, gate)
    folds = by_arm["ensemble"]["fold"].to_numpy(np.intp)
    yield _parity(bundle, data, folds, by_arm)
    if bundle.manifest.features:
        yield _measured(data, folds)
    if before is None:
        text = f"no bundle is in service, so there is no comparison; AUC at {gate.horizon_years} years"
        yield GateCheck("discrimination", True, f"{text} {_auc(at, new):.3f}")
    else:
        column = list(before.manifest.horizons_years).index(gate.horizon_years)
        old = node_predictions.risks(before, data, progress)[:, column]
        yield _discrimination(data, new, old, settings)


def _aligned(predictions: pd.DataFrame, data: Data) -> pd.DataFrame:
    return predictions.set_index("scan").loc[data.cohort["scan"]].reset_index()


def _same_use(bundle: Bundle, before: Bundle) -> GateCheck:
    same = before.intended_use in (bundle.intended_use, "synthetic-demo")
    text = f"intended use {bundle.intended_use}, in service {before.intended_use}"
    return GateCheck(
        "intended use",
        same,
        text if same else f"{text}: a model trained on phantoms must not replace one trained on patients",
    )


def _calibration(at: metrics.AtHorizon, risk: NDArray[np.float64], gate: GateSettings) -> Iterator[GateCheck]:
    slope = float(metrics.calibration_slope(at, risk))
    low, high = gate.calibration_slope
    text = f"calibration slope at {gate.horizon_years} years {slope:.2f}, required {low:g} to {high:g}"
    yield GateCheck("calibration slope", low <= slope <= high, text)
    intercept = float(metrics.calibration_intercept(at, risk))
    text = f"calibration-in-the-large {intercept:+.2f} (logit), required within ±{gate.calibration_intercept:g}"
    yield GateCheck("calibration-in-the-large", abs(intercept) <= gate.calibration_intercept, text)


def _parity(bundle: Bundle, data: Data, folds: Rows, by_arm: dict[str, pd.DataFrame]) -> GateCheck:
    columns = list(risk_names(data.outcomes.edges))
    predicted = {arm: frame[columns].to_numpy(np.float64) for arm, frame in by_arm.items() if arm != "ensemble"}
    worst = node_predictions.largest_disagreement(bundle, data, folds, predicted)
    text = f"applied as in the node, the fold models differ from training by at most {worst:.2g}, allowed {_PARITY:g}"
    return GateCheck("parity", worst <= _PARITY, text)


def _measured(data: Data, folds: Rows) -> GateCheck:
    """Whether the table that was learnt from holds what the node measures, as far as the kept volumes can tell."""
    rows = node_predictions.looked_at(data, folds)
    found = [one for row in rows for one in node_predictions.remeasured(data, row)]
    left_out = (
        "lung regions and radiomics are not compared, as they may differ on a stored volume, cropped to the lungs"
    )
    if not found:
        return GateCheck("measurements", True, f"no whole-lung quantity among the features to compare; {left_out}")
    worst = max(found, key=lambda one: one.difference)
    text = (
        f"the quantities of {', '.join(node_predictions.WHOLE)}, re-measured on {len(rows)} scans, differ from "
        f"the run's features by at most {worst.difference:.2g} of the value, allowed {_MEASURED:g} ({worst.name}: "
        f"{worst.in_table:.6g}, re-measured {worst.measured:.6g}); {left_out}"
    )
    return GateCheck("measurements", worst.difference <= _MEASURED, text)


def _discrimination(data: Data, new: NDArray[np.float64], old: NDArray[np.float64], settings: RunSettings) -> GateCheck:
    """AUC of both on the same scans, and its difference by a bootstrap over the same draws of patients."""
    gate, years = settings.gate, settings.gate.horizon_years
    at = metrics.at_horizon(data.outcomes, years)
    gain = _auc(at, new) - _auc(at, old)
    counts = metrics.bootstrap_counts(data.patients, settings.evaluation.bootstrap, settings.seed)
    drawn = metrics.at_horizon(data.outcomes, years, counts)
    low, high = metrics.interval(metrics.auc(drawn, new) - metrics.auc(drawn, old))
    text = (
        f"AUC at {years} years {_auc(at, new):.3f}, in service {_auc(at, old):.3f} on the same {len(new)} scans: "
        f"difference {gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), required at least 0, with a lower bound "
        f"of at least -{gate.margin:g}"
    )
    return GateCheck("discrimination", gain >= 0 and low >= -gate.margin, text)


def _auc(at: metrics.AtHorizon, risk: NDArray[np.float64]) -> float:
    return float(metrics.auc(at, risk))
