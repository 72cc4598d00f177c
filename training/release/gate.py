"""The gate that a run's bundle must pass to go into service; its verdict, with the reasons, is `gate.json` in the run.

The candidate is judged by its out-of-fold predictions, the bundle in service on the same scans by models that have not
seen their patients (`training.release.judged`), so that the same training passes against itself. The thresholds are the
node's (`training.evaluation.bar`): those that a run asks for are not looked at.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, UsageError
from training.data.outcomes import middle_of
from training.data.splits import Nested
from training.evaluation import bar as bars
from training.evaluation import metrics
from training.evaluation.bar import GateBar
from training.models.arm import Data, Rows
from training.models.stacking import risk_names
from training.progress_type import ProgressCallback
from training.release import checks as checks_of
from training.release import judged, node_predictions
from training.release.conclusion import conclude
from training.release.judged import JudgedRisks
from training.release.promotion import bundle_of, not_yet
from training.release.verdict import GateCheck, GateVerdict
from training.run.run import read_data
from training.run.settings import from_dict

#: Networks are stored in half precision, which moves a probability by less.
_PARITY = 0.01
#: Measured on the same voxels by the same code, numbers are equal but for rounding.
_MEASURED = 0.001


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
    before = None if current is None or not_yet(current) else load(current, allow_demo=True)
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
            checks += [checks_of.same_use(bundle, before), *_beside(made, bundle, before, other, bar, years)]
    except BundleError as error:
        checks.append(GateCheck("bundle", False, str(error)))
    return conclude(run, checks, bundle_sha256, before, bar, judged_on)


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
    if settings.splits.kind == "temporal":
        data = data.of(Nested.load(run / "splits.json").judged(data.patients))
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
    yield from checks_of.calibration(at, risk, None, bar)
    text = f"no bundle is in service, so there is no comparison; AUC at {years} years"
    yield GateCheck("discrimination", True, f"{text} {checks_of.auc(at, risk):.3f}")


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
    yield from checks_of.calibration(at, new, old, bar)
    patients = [made.data.patients[row] for row in rows]
    yield checks_of.discrimination(at, patients, new, old, other.on, bar)


def _of_arms(by_arm: Mapping[str, pd.DataFrame], data: Data) -> dict[str, NDArray[np.float64]]:
    columns = list(risk_names(data.outcomes.edges))
    return {arm: frame[columns].to_numpy(np.float64) for arm, frame in by_arm.items() if arm != "ensemble"}


def _aligned(predictions: pd.DataFrame, data: Data) -> pd.DataFrame:
    return predictions.set_index("scan").loc[data.cohort["scan"]].reset_index()


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
