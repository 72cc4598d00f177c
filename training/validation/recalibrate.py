"""`training recalibrate`: a bundle whose level of risk fits a site, and what the gate needs to let it serve there.

The folder that it writes stands where a run's does: `training compare` and `training promote` take it.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk import golden_case
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load, read
from dicomnode.analysis.risk.manifest import SiteCalibration
from dicomnode.errors import UsageError
from training.bundle import golden, held_out
from training.bundle.make import share, write_sealed
from training.bundle.model_card import model_card
from training.data import splits
from training.evaluation.misjudged import without_single_scans
from training.progress_type import ProgressCallback
from training.validation import calibrate, needs, served
from training.validation import evaluate as evaluating
from training.validation import site as sites
from training.validation.calibrate import SiteFit
from training.validation.evaluate import EvaluationSettingsGiven
from training.validation.site import Site, SiteTables

#: How the arm is called that is judged, in tables and report.
RECALIBRATED = "recalibrated"
_REPORT = "validation.md"
#: Of the split, whose inner folds are not used: as few as there can be.
_SEED, _INNER = 20260101, 2
_LONGEST_VERSION, _LONGEST_SITE = 32, 60


@dataclass(frozen=True)
class SiteAsked:
    """What a person asks for.

    Attributes:
        site: the hospital; it goes into the bundle and into the node's reports.
        version: of the new bundle; "": the bundle's with the site's name.
        slope: whether the slope is found, too, or the intercept alone.
    """

    site: str
    version: str = ""
    slope: bool = True


def recalibrate(
    folder: Path,
    tables: SiteTables,
    asked: SiteAsked,
    out: Path,
    options: EvaluationSettingsGiven,
    progress: ProgressCallback,
) -> tuple[Bundle, SiteFit]:
    """Recalibrate a bundle to a site, judge it cross-fitted beside what it was, and write both to `out`.

    Args:
        folder: of the bundle.
        tables: of the site.
        asked: name and version.
        out: a new or empty folder: `bundle`, and tables and report as `training evaluate` writes them.
        options: of the evaluation.
        progress: told about each stage.

    Returns:
        The new bundle, and what was found.

    Raises:
        UsageError: input does not fit, too few patients died, or `out` is not empty.
        BundleError: the bundle does not load.
    """
    with evaluating.whole(out) as work:
        bundle = load(folder, allow_demo=True)
        site_name, version = _names(bundle, asked)
        read_site = sites.read(tables, [bundle], work.parent, progress)
        site, (answer,) = served.ask(read_site, [bundle], progress)
        _enough(site, slope=asked.slope)
        outcomes = site.data.outcomes
        members = answer.members[:, :, : len(outcomes.edges) - 1]
        folds = _folds(site)
        progress("Recalibrating", 0, 2)
        found = calibrate.fit(members, outcomes, slope=asked.slope)
        progress("Recalibrating", 1, 2)
        judged = calibrate.cross_fitted(members, outcomes, folds, slope=asked.slope)
        progress("Recalibrating", 2, 2)
        original = needs.names_of([bundle])[0]
        by_name = {RECALIBRATED: judged, original: np.asarray(members.mean(axis=1))}
        calibration = _calibration(site, bundle, site_name, found)
        facts = evaluating.stated(site, tables, {original: answer})
        facts["recalibration"] = calibration.model_dump(mode="json") | {"version": version, "folds": calibrate.FOLDS}
        predictions = served.predictions(site, by_name, folds)
        evaluating.write(work, site, predictions, options, facts, needs.horizons_of([bundle]))
        _bundle(bundle, site, calibration, version, work)
    return load(out / "bundle", allow_demo=True), found


def _names(bundle: Bundle, asked: SiteAsked) -> tuple[str, str]:
    """Return the site's name, and the new bundle's version.

    Raises:
        UsageError: the name is none, the version is too long or the old one, or the bundle is a site's already.
    """
    site_name = asked.site.strip()
    if not site_name or len(site_name) > _LONGEST_SITE or not site_name.isprintable():
        raise UsageError(f"--site {asked.site!r}: name the hospital in 1 to {_LONGEST_SITE} printable characters")
    if (before := bundle.manifest.site_calibration) is not None:
        raise UsageError(
            f"{bundle.folder} was recalibrated to {before.site} already: recalibrate the bundle that it was made from "
            f"(sha256 {before.bundle_sha256[:12]}…)"
        )
    return site_name, _version(bundle, asked, site_name)


def _version(bundle: Bundle, asked: SiteAsked, site_name: str) -> str:
    """Return the new bundle's version. Raises UsageError: it is too long, or the old one's."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", site_name).strip("-").lower()
    version = asked.version.strip() or f"{bundle.version}-{plain}".rstrip("-")
    if len(version) > _LONGEST_VERSION or version == bundle.version:
        raise UsageError(
            f"the version would be {version!r}: name another one of up to {_LONGEST_VERSION} characters with --version"
        )
    return version


def _enough(site: Site, *, slope: bool) -> None:
    last = site.data.outcomes.edges[-1]
    died = site.frame["event"] & (site.frame["time_years"] <= last)
    patients = site.frame.loc[died, "patient"].nunique()
    asked = calibrate.FEWEST_DEATHS[2 if slope else 1]
    if patients < asked:
        fits = slope and patients >= calibrate.FEWEST_DEATHS[1]
        less = " or find the intercept alone (--intercept-only)" if fits else ""
        raise UsageError(
            f"{patients} patients of {site.registry.folder} died within {last:g} years, and {asked} are needed to find "
            f"{'intercept and slope' if slope else 'an intercept'}: add patients{less}"
        )
    alive = site.frame["patient"].nunique() - site.frame.loc[site.frame["event"], "patient"].nunique()
    if alive < _INNER * calibrate.FOLDS:
        raise UsageError(
            f"{alive} patients of {site.registry.folder} were alive at their last contact, and "
            f"{_INNER * calibrate.FOLDS} are needed to judge by: add patients; is 1 the death, and not the censoring?"
        )


def _folds(site: Site) -> NDArray[np.int64]:
    """Return the fold of each scan, by patient and with deaths in each."""
    patients = site.frame["patient"].to_list()
    drawn = splits.nested(patients, site.frame["event"].to_numpy(np.bool_), _SEED, calibrate.FOLDS, _INNER)
    of = {patient: number for number, fold in enumerate(drawn.outer) for patient in fold}
    return np.array([of[patient] for patient in patients], np.int64)


def _calibration(site: Site, bundle: Bundle, site_name: str, found: SiteFit) -> SiteCalibration:
    died = site.frame["event"] & (site.frame["time_years"] <= site.data.outcomes.edges[-1])
    return SiteCalibration(
        site=site_name,
        intercept=found.intercept,
        slope=found.slope,
        patients=int(site.frame["patient"].nunique()),
        scans=len(site.frame),
        deaths=int(site.frame.loc[died, "patient"].nunique()),
        bundle_sha256=bundle.sha256,
        registry_sha256=site.registry.sha256,
        disease=site.registry.provenance.disease,
        period=site.registry.provenance.period,
    )


def _bundle(bundle: Bundle, site: Site, of: SiteCalibration, version: str, out: Path) -> None:
    """Write the recalibrated bundle to `out`/bundle: its models as they are, the rest anew, sealed, and loaded."""
    manifest = bundle.manifest.model_dump(mode="json", exclude_none=True, exclude={"files", "seal"})
    old = bundle.manifest.ensemble
    manifest |= {
        "version": version,
        "created_by": f'training recalibrate --site "{of.site}"',
        "limits": [*bundle.manifest.limits, f"recalibrated to {of.site}: its level of risk holds there alone"],
        "ensemble": {
            "slope": of.slope * old.slope,
            "intercepts": [of.slope * one + of.intercept for one in old.intercepts],
            "weights": dict(old.weights),
        },
        "site_calibration": of.model_dump(mode="json"),
    }
    with tempfile.TemporaryDirectory(dir=out, prefix=".bundle-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        for name in bundle.manifest.files:
            if name not in (golden_case.NAME, "MODEL_CARD.md", held_out.NAME, _REPORT):
                shutil.copyfile(bundle.folder / name, folder / name)
        held_out.recalibrate(bundle.folder, folder, of.intercept, of.slope, site.frame["patient"].to_list())
        report = without_single_scans((out / "report.md").read_text(encoding="utf-8"))
        (folder / _REPORT).write_text(report, encoding="utf-8")
        (folder / "MODEL_CARD.md").write_text(_card(manifest, of), encoding="utf-8")
        asked = golden_case.parse((bundle.folder / golden_case.NAME).read_bytes(), bundle.folder / golden_case.NAME)
        write_sealed(folder, manifest, asked)
        write_sealed(folder, manifest, golden.answered(asked, read(folder)))
        load(folder, allow_demo=True)
        share(folder)
        folder.rename(out / "bundle")


def _card(manifest: Mapping[str, Any], of: SiteCalibration) -> str:
    """Return the card: as a run's, and what was done to it."""
    known = "; ".join(text for text in (of.disease, of.period) if text)
    return f"""{model_card(manifest)}
## Recalibration
Recalibrated to {of.site}{f" ({known})" if known else ""}: logit of each hazard times {of.slope:.4f}, plus {of.intercept:+.4f}.
Found on {of.scans} scans of {of.patients} patients there, {of.deaths} of whom died within the longest horizon. The models, and
the ranking of patients by each of them, are those of the bundle with sha256 `{of.bundle_sha256}`; `report.md`, where there is
one, tells of that bundle. How the recalibrated risk fits at the site, cross-fitted: `{_REPORT}`.
"""  # noqa: E501 (a paragraph of Markdown is one line)
