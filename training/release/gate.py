"""The gate that a run's bundle must pass to go into service; its verdict, with the reasons, is `gate.json` in the run.

The candidate is judged by its out-of-fold predictions, the bundle in service on the same scans by models that have not
seen their patients (`training.release.judged`), so that the same training passes against itself. The thresholds are the
node's (`training.evaluation.bar`): those that a run asks for are not looked at.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, UsageError
from training.data.outcomes import middle_of
from training.evaluation import bar as bars
from training.evaluation import metrics
from training.evaluation.bar import GateBar
from training.models.arm import Data, Rows
from training.models.stacking import risk_names
from training.progress_type import ProgressCallback
from training.release import judged, node_predictions, verdict
from training.release.judged import JudgedRisks
from training.release.promotion import CURRENT, bundle_of
from training.release.verdict import GateCheck, GateVerdict
from training.report import report
from training.run.run import read_data
from training.run.settings import from_dict

#: Networks are stored in half precision, which moves a probability by less.
_PARITY = 0.01
#: Measured on the same voxels by the same code, numbers are equal but for rounding.
_MEASURED = 0.001
#: Half-precision networks and the order of sums move a metric by less.
_SAME = 1e-4
#: So much further off, in the logarithm of the slope or in the intercept, is within the error of a few hundred scans.
_BY_CHANCE = 0.1
#: Of the bootstrap: not the run's, which would set how sure it has to be.
_DRAWS, _SEED = 2000, 20260101


@dataclass(frozen=True)
class _JudgedRun:
    """What is judged: a finished run.

    Attributes:
        record: `run.json`.
        horizons: of its settings, years.
        by_arm: predictions of each arm and of the ensemble, in the order of the data's scans.
        folds: of each scan.
    """

    folder: Path
    record: Mapping[str, object]
    horizons: tuple[int, ...]
    data: Data
    by_arm: Mapping[str, pd.DataFrame]
    folds: Rows


def compare(run: Path, current: Path | None, progress: ProgressCallback, weights: Path | None = None) -> GateVerdict:
    """Judge a run's bundle, beside the one that serves now, and write `gate.json`.

    Args:
        run: a finished run.
        current: the folder of the serving bundle; None where there is none. `current` of a weights folder may be
            missing: nothing was promoted there yet, so nothing serves.
        progress: told about each stage.
        weights: the node's weights folder, whose `gate.toml` sets the bar; None: the folder that `current` lies in.

    Raises:
        UsageError: the run is not finished, the bar cannot be, or the serving bundle cannot be asked about its scans.
        BundleError: the serving bundle does not load.
    """
    bar, source = bars.load(weights if weights is not None or current is None else current.absolute().parent)
    made = _read(run)
    years = _horizon(bar, made, source)
    before = None if current is None or _not_yet(current) else load(current, allow_demo=True)
    if before is not None and years not in before.manifest.horizons_years:
        raise UsageError(
            f"{current} does not predict at {years} years: set horizon_years in {bars.NAME} to one of "
            f"{', '.join(map(str, before.manifest.horizons_years))}"
        )
    bundle_sha256, judged_on = "", ""
    checks = [_thresholds(made, bar, source)]
    try:
        bundle = load(bundle_of(run), allow_demo=True)
        bundle_sha256 = bundle.sha256
        checks += _alone(made, bundle)
        if before is None:
            checks += _without_comparison(made, bar, years)
        else:
            other = judged.judge(before, made.data, str(made.record.get("split_sha256")), made.folds, progress)
            judged_on = other.on
            checks += [_same_use(bundle, before), *_beside(made, bundle, before, other, bar, years)]
    except BundleError as error:
        checks.append(GateCheck("bundle", False, str(error)))
    found = GateVerdict(
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        bundle_sha256=bundle_sha256,
        current_sha256="" if before is None else before.sha256,
        made_at=datetime.now(UTC).isoformat(),  # to the microsecond: each comparison is a consent of its own
        bar=bar.model_dump(),
        departures=bar.departures,
        judged_on=judged_on,
    )
    verdict.write(run, found)
    if (run / "report.html").is_file():
        report.write(run)
    return found


def _read(run: Path) -> _JudgedRun:
    """Return a finished run. Raises UsageError where it has not come to its end."""
    needed = ("run.json", "cohort.parquet", "features.parquet", "predictions.parquet")
    if missing := [name for name in needed if not (run / name).is_file()]:
        raise UsageError(f"{run} is not a finished run ({', '.join(missing)} missing): run `training run`")
    bundle_of(run)
    try:
        record = json.loads((run / "run.json").read_text("utf-8"))
        # Its own thresholds set nothing, so that those of before, which today are refused, do not matter.
        stored = {name: value for name, value in record["settings"].items() if name != "gate"}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{run / 'run.json'} is not the record of a run ({error!r}): start a new run") from None
    settings = from_dict(stored, str(run / "run.json"))
    data = read_data(run, settings.registry, settings.horizons)
    predictions = pd.read_parquet(run / "predictions.parquet")
    by_arm = {str(arm): _aligned(of, data) for arm, of in predictions.groupby("arm")}
    folds = by_arm["ensemble"]["fold"].to_numpy(np.intp)
    return _JudgedRun(run, record, settings.horizons, data, by_arm, folds)


def _horizon(bar: GateBar, made: _JudgedRun, source: str) -> int:
    """Return the horizon to be judged, years. Raises UsageError: the run does not predict at the bar's."""
    years = middle_of(made.horizons) if bar.horizon_years is None else bar.horizon_years
    if years not in made.horizons:
        raise UsageError(
            f"{source}: horizon_years = {years}, and {made.folder} does not predict there: set it to one of its "
            f"horizons ({', '.join(map(str, made.horizons))}), or add {years} to horizons and run it anew"
        )
    return years


def _not_yet(current: Path) -> bool:
    return current.name == CURRENT and not current.exists() and not current.is_symlink()


def _thresholds(made: _JudgedRun, bar: GateBar, source: str) -> GateCheck:
    """Say by which thresholds the run is judged, and where they depart from the defaults."""
    own = made.record["settings"]
    asked = own.get("gate") if isinstance(own, dict) else None
    text = f"those of {source}" + (f", which depart: {', '.join(bar.departures)}" if bar.departures else "")
    if isinstance(asked, dict) and (unused := bars.departures(asked, made.horizons)):
        text += f"; the run asks for {', '.join(unused)} in its own [gate], which sets nothing"
    return GateCheck("thresholds", True, text)


def _alone(made: _JudgedRun, bundle: Bundle) -> Iterator[GateCheck]:
    """Look at what has nothing to do with any other bundle."""
    yield GateCheck("bundle", True, "digests and golden case verified")
    yield _parity(bundle, made.data, made.folds, made.by_arm)
    if bundle.manifest.features:
        yield _measured(made.data, made.folds)


def _without_comparison(made: _JudgedRun, bar: GateBar, years: int) -> Iterator[GateCheck]:
    risk = made.by_arm["ensemble"][f"risk_{years}"].to_numpy(np.float64)
    at = metrics.at_horizon(made.data.outcomes, years)
    yield from _calibration(at, risk, None, bar)
    text = f"no bundle is in service, so there is no comparison; AUC at {years} years"
    yield GateCheck("discrimination", True, f"{text} {_auc(at, risk):.3f}")


def _beside(
    made: _JudgedRun, bundle: Bundle, before: Bundle, other: JudgedRisks, bar: GateBar, years: int
) -> Iterator[GateCheck]:
    """Compare with the bundle in service, on the scans that it can be judged on."""
    rows = other.rows
    if not rows.size:
        yield GateCheck("discrimination", False, f"there is nobody to compare on: {other.on}")
        return
    predicted = judged.of_run(_of_arms(made.by_arm, made.data), made.folds, bundle)
    new = predicted[rows, list(made.data.outcomes.edges[1:]).index(years)]
    old = other.risks[rows, list(before.manifest.edges_years[1:]).index(years)]
    at = metrics.at_horizon(made.data.outcomes[rows], years)
    yield from _calibration(at, new, old, bar)
    yield _discrimination(made, at, rows, new, old, other.on, bar)


def _of_arms(by_arm: Mapping[str, pd.DataFrame], data: Data) -> dict[str, NDArray[np.float64]]:
    columns = list(risk_names(data.outcomes.edges))
    return {arm: frame[columns].to_numpy(np.float64) for arm, frame in by_arm.items() if arm != "ensemble"}


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


def _calibration(
    at: metrics.AtHorizon, new: NDArray[np.float64], old: NDArray[np.float64] | None, bar: GateBar
) -> Iterator[GateCheck]:
    """Within the thresholds, or no further from the ideal than what serves: that one it does not make worse."""
    slopes = [float(metrics.calibration_slope(at, risk)) for risk in (new, old) if risk is not None]
    low, high = bar.calibration_slope
    text = f"calibration slope at {at.horizon:g} years {slopes[0]:.2f}, required {low:g} to {high:g}"
    off = [abs(np.log(slope)) if slope > 0 else np.inf for slope in slopes]
    most = 2 * max(float(-np.log(low)), float(np.log(high)))
    yield _calibrated("calibration slope", low <= slopes[0] <= high, text, off, most, [f"{s:.2f}" for s in slopes])
    intercepts = [float(metrics.calibration_intercept(at, risk)) for risk in (new, old) if risk is not None]
    text = f"calibration-in-the-large {intercepts[0]:+.2f} (logit), required within ±{bar.calibration_intercept:g}"
    within = abs(intercepts[0]) <= bar.calibration_intercept
    off = [abs(intercept) for intercept in intercepts]
    most = 2 * bar.calibration_intercept
    yield _calibrated("calibration-in-the-large", within, text, off, most, [f"{i:+.2f}" for i in intercepts])


def _calibrated(name: str, within: bool, text: str, off: list[float], most: float, said: list[str]) -> GateCheck:
    """Decide by how far the run's bundle is off, and the one in service where there is one.

    Further off by chance is no worse, but only up to `most`: many small steps must not lead anywhere.
    """
    if len(off) == 1:
        return GateCheck(name, within, text)
    no_worse = off[0] <= off[1] + _SAME or (off[0] <= off[1] + _BY_CHANCE and off[0] <= most)
    text += f", or no worse than in service ({said[1]} on the same scans)"
    return GateCheck(name, within or bool(np.isfinite(off[0]) and no_worse), text)


def _parity(bundle: Bundle, data: Data, folds: Rows, by_arm: Mapping[str, pd.DataFrame]) -> GateCheck:
    predicted = _of_arms(by_arm, data)
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


def _discrimination(
    made: _JudgedRun,
    at: metrics.AtHorizon,
    rows: Rows,
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    on: str,
    bar: GateBar,
) -> GateCheck:
    """Test non-inferiority of the AUC on the same scans, by a bootstrap over the same draws of patients."""
    gain = _auc(at, new) - _auc(at, old)
    patients = [made.data.patients[row] for row in rows]
    counts = metrics.bootstrap_counts(patients, _DRAWS, _SEED)
    drawn = metrics.at_horizon(at.outcomes, at.horizon, counts)
    low, high = metrics.interval(metrics.auc(drawn, new) - metrics.auc(drawn, old))
    text = (
        f"AUC at {at.horizon:g} years {_auc(at, new):.3f}, in service {_auc(at, old):.3f} on the same {len(rows)} "
        f"scans: difference {gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), required at least "
        f"-{bar.largest_loss:g}, with a lower bound of at least -{bar.margin:g}. The bundle in service is judged "
        f"on {on}"
    )
    return GateCheck("discrimination", gain >= -bar.largest_loss - _SAME and low >= -bar.margin - _SAME, text)


def _auc(at: metrics.AtHorizon, risk: NDArray[np.float64]) -> float:
    return float(metrics.auc(at, risk))
