"""The gate for a bundle that was recalibrated to a site (`training.release.gate` is that of a run's bundle).

The bundle is asked about the site's scans, its recalibration taken back and found again, cross-fitted: these risks are
judged, not those that lie in the folder. The bundle in service is judged by what it says of the same patients as it
serves. Patients that it was trained on would flatter it, and are left out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.covariates import PREFIX
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, UsageError
from training.bundle import held_out
from training.data import cohort, registry_folder
from training.data.outcomes import Outcomes, middle_of
from training.evaluation import bar as bars
from training.evaluation import metrics
from training.evaluation.bar import GateBar
from training.models.arm import Data
from training.progress_type import ProgressCallback
from training.release import checks as checks_of
from training.release.conclusion import conclude
from training.release.promotion import bundle_of, not_yet
from training.release.verdict import GateCheck, GateVerdict
from training.report.validation_facts import NAME
from training.validation import calibrate, needs, served
from training.validation import site as sites
from training.validation.calibrate import SiteFit
from training.validation.recalibrate import RECALIBRATED
from training.validation.site import Site

#: Half-precision networks and clipped hazards move a probability by less.
_PARITY = 0.01


@dataclass(frozen=True)
class _Recalibrated:
    """What is judged.

    Attributes:
        site: the scans.
        stored: cross-fitted risks as they lie in the folder, (scans, years).
        folds: of the scans.
    """

    folder: Path
    site: Site
    stored: NDArray[np.float64]
    folds: NDArray[np.int64]
    bundle: Bundle


def is_one(folder: Path) -> bool:
    """Whether a folder was written by `training recalibrate`."""
    return (folder / NAME).is_file() and "recalibration" in _facts(folder)


def compare(folder: Path, current: Path | None, progress: ProgressCallback, weights: Path | None = None) -> GateVerdict:
    """Judge a recalibrated bundle, beside the one that serves now, and write `gate.json`.

    Args:
        folder: as written by `training recalibrate`.
        current: the folder of the serving bundle; None where there is none.
        progress: told about each scan.
        weights: as `training.release.gate.compare` takes it.

    Raises:
        UsageError: the folder is not whole, its registry has changed, the bar cannot be, or the serving bundle cannot
            be asked about the site's scans.
        BundleError: the serving bundle does not load.
    """
    bar, source = bars.load(weights if weights is not None or current is None else current.absolute().parent)
    before = None if current is None or not_yet(current) else load(current, allow_demo=True)
    departs = f", which depart: {', '.join(bar.departures)}" if bar.departures else ""
    checks = [GateCheck("thresholds", True, f"those of {source}{departs}")]
    sha256, judged_on = "", ""
    try:
        made = _read(folder)
        sha256 = made.bundle.sha256
        risk = _found_again(made, progress)
        checks += [GateCheck("bundle", True, "digests and golden case verified"), _parity(made, risk)]
        years = _horizon(bar, made, before, source)
        if before is None:
            checks += _alone(made, risk, bar, years)
        else:
            rows, risks, judged_on = _in_service(made, before, progress)
            checks += [checks_of.same_use(made.bundle, before)]
            checks += _beside(made, risk, rows, risks, judged_on, bar, years)
    except BundleError as error:
        checks.append(GateCheck("bundle", False, str(error)))
    return conclude(folder, checks, sha256, before, bar, judged_on)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        stored = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / NAME} cannot be read ({error}): run `training recalibrate` again") from None
    if not isinstance(stored, dict):
        raise UsageError(f"{folder / NAME} is not what `training recalibrate` writes: run it again")
    return stored


def _read(folder: Path) -> _Recalibrated:
    """Return what is judged. Raises UsageError: it is not whole, or its registry is gone or another; BundleError."""
    needed = ("cohort.parquet", "features.parquet", "predictions.parquet")
    if lacking := [name for name in needed if not (folder / name).is_file()]:
        raise UsageError(f"{folder} is not whole ({', '.join(lacking)} missing): run `training recalibrate` again")
    bundle = load(bundle_of(folder), allow_demo=True)
    facts = _facts(folder)
    try:
        place, sha256 = Path(facts["settings"]["registry"]), str(facts["fixed"]["sha256"]["registry"])
    except (LookupError, TypeError):
        raise UsageError(f"{folder / NAME} does not name its registry: run `training recalibrate` again") from None
    registry = registry_folder.read(place)
    if registry.sha256 != sha256:
        raise UsageError(f"{registry.folder} has changed since {folder} was made from it: recalibrate again")
    frame = cohort.load(folder / "cohort.parquet")
    features = pd.read_parquet(folder / "features.parquet").drop(columns="scan")
    horizons = needs.horizons_of([bundle])
    known = sites.forgotten(frame.drop(columns=["time_years", "event"]))
    data = Data(registry.folder, known, features, cohort.outcomes_of(frame, horizons))
    site = Site(registry, frame, data, (), None, (), ())
    table = pd.read_parquet(folder / "predictions.parquet")
    own = table[table["arm"] == RECALIBRATED].set_index("scan").loc[frame["scan"]]
    risk = own[[f"risk_{year}" for year in range(1, max(horizons) + 1)]].to_numpy(np.float64)
    return _Recalibrated(folder, site, risk, own["fold"].to_numpy(np.int64), bundle)


def _horizon(bar: GateBar, made: _Recalibrated, before: Bundle | None, source: str) -> int:
    horizons = made.bundle.manifest.horizons_years
    years = middle_of(horizons) if bar.horizon_years is None else bar.horizon_years
    for bundle in (made.bundle, *([] if before is None else [before])):
        if years not in bundle.manifest.horizons_years:
            raise UsageError(
                f"{source}: {bundle.folder} does not predict at {years} years: set horizon_years in {bars.NAME} to one "
                f"of {', '.join(map(str, bundle.manifest.horizons_years))}"
            )
    return years


def _found_again(made: _Recalibrated, progress: ProgressCallback) -> NDArray[np.float64]:
    """Return the cross-fitted risks of the site's scans, (scans, years), from what the bundle itself says.

    Raises:
        UsageError: the bundle does not answer for all of them.
        BundleError: it is not recalibrated.
    """
    of = made.bundle.manifest.site_calibration
    if of is None:
        raise BundleError(f"{made.bundle.folder} is not recalibrated to a site: run `training recalibrate` again")
    asked, (answer,) = served.ask(made.site, [made.bundle], progress)
    if (lost := len(made.site.frame) - len(asked.frame)) > 0:
        raise UsageError(f"{made.bundle.folder} gives no risk for {lost} scans that it was found on: recalibrate again")
    members = SiteFit(of.intercept, of.slope).undone(answer.members)[:, :, : made.stored.shape[1]]
    return calibrate.cross_fitted(members, made.site.data.outcomes, made.folds, slope=of.slope != 1)


def _parity(made: _Recalibrated, risk: NDArray[np.float64]) -> GateCheck:
    """Whether that is what the folder holds, and its report tells of."""
    worst = float(np.abs(risk - made.stored).max())
    text = (
        f"asked as in the node, the bundle gives cross-fitted risks that differ from the recalibration's by at most "
        f"{worst:.2g}, allowed {_PARITY:g}"
    )
    return GateCheck("parity", worst <= _PARITY, text)


def _in_service(
    made: _Recalibrated, before: Bundle, progress: ProgressCallback
) -> tuple[NDArray[np.intp], NDArray[np.float64], str]:
    """Return the scans that the bundle in service can be judged on, its risks of these, and on whom that is."""
    said = held_out.read(before.folder)
    patients = made.site.frame["patient"]
    seen = patients.map(lambda patient: said is not None and said.fold(str(patient)) is not None).to_numpy(np.bool_)
    rows = np.flatnonzero(~seen)
    unseen, known = patients[~seen].nunique(), patients[seen].nunique()
    on = f"{unseen} patients of the site"
    if known:
        on += f"; {known} left out, whom it was trained on"
    if said is None:
        on += ", as it serves: it does not say whom it was trained on, and looks better than it is if on these"
    if not rows.size:
        return rows, np.empty((0, 0)), on
    needs.check(before, made.site.registry, made.site.frame, None)
    here = {str(name) for name in made.site.data.features}
    if lacking := sorted(name for name in needs.measured_by(before) - here if not name.startswith(PREFIX)):
        raise UsageError(
            f"{made.folder} has no {lacking[0]}, which the bundle in service takes and the recalibrated one does not; "
            "compare the two by `training evaluate`"
        )
    rest = sites.kept(made.site, [int(row) for row in rows], {})
    answered, (answer,) = served.ask(rest, [before], progress)
    place = {scan: row for row, scan in enumerate(made.site.frame["scan"])}
    return np.array([place[scan] for scan in answered.frame["scan"]], np.intp), answer.risks, on


def _alone(made: _Recalibrated, risk: NDArray[np.float64], bar: GateBar, years: int) -> Iterator[GateCheck]:
    at = metrics.at_horizon(made.site.data.outcomes, years)
    new = risk[:, years - 1]
    yield from checks_of.calibration(at, new, None, bar)
    text = f"no bundle is in service, so there is no comparison; AUC at {years} years {checks_of.auc(at, new):.3f}"
    yield GateCheck("discrimination", True, text)


def _beside(
    made: _Recalibrated,
    risk: NDArray[np.float64],
    rows: NDArray[np.intp],
    before: NDArray[np.float64],
    on: str,
    bar: GateBar,
    years: int,
) -> Iterator[GateCheck]:
    if not rows.size:
        yield GateCheck("discrimination", False, f"there is nobody to compare on: {on}")
        return
    outcomes: Outcomes = made.site.data.outcomes[rows]
    at = metrics.at_horizon(outcomes, years)
    new, old = risk[rows, years - 1], before[:, years - 1]
    yield from checks_of.calibration(at, new, old, bar)
    patients = made.site.frame["patient"].iloc[rows].to_list()
    yield checks_of.discrimination(at, patients, new, old, on, bar)
