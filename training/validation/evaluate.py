"""`training evaluate`: finished bundles judged on a site's patients, side by side, with the full report."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import UsageError
from dicomnode.files import make_folder, sha256_of, write_whole
from dicomnode.registry_format.description import NAME as DESCRIPTION
from training.data import cohort
from training.evaluation.evaluate import evaluate
from training.evaluation.thresholds import Threshold, by_horizon
from training.files import write_json
from training.progress_type import ProgressCallback
from training.report import report
from training.report.validation_facts import NAME
from training.run.record import code, software
from training.validation import needs, served, shift
from training.validation import site as sites
from training.validation.served import ServedRisks
from training.validation.site import Site, SiteTables

FORMAT = 1
#: Share of the scans beyond the range of training from which a predictor is warned of.
_FOREIGN = 0.5
_SHOWN = 4


@dataclass(frozen=True)
class EvaluationSettingsGiven:
    """What a person may set: draws of the bootstrap, and the risk from which a scan counts as high."""

    bootstrap: int = 1000
    threshold: Threshold = 0.2


def evaluate_bundles(
    folders: Sequence[Path],
    tables: SiteTables,
    out: Path,
    options: EvaluationSettingsGiven,
    progress: ProgressCallback,
) -> Path:
    """Judge bundles on a site's patients; the first is the one that decides, where there are several.

    Args:
        folders: of the bundles.
        tables: of the site.
        out: a new or empty folder.
        options: of the evaluation.
        progress: told about each stage.

    Returns:
        The page of the report.

    Raises:
        UsageError: input does not fit, or `out` is not empty.
        BundleError: a bundle does not load.
    """
    with whole(out) as folder:
        bundles = [load(one, allow_demo=True) for one in folders]
        names = needs.names_of(bundles)
        by_horizon(options.threshold, needs.horizons_of(bundles))
        site, answers = served.ask(sites.read(tables, bundles, folder.parent, progress), bundles, progress)
        facts = stated(site, tables, dict(zip(names, answers, strict=True)))
        named = {name: answer.risks for name, answer in zip(names, answers, strict=True)}
        page = write(folder, site, served.predictions(site, named), options, facts, needs.horizons_of(bundles))
    return out / page.name


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yield a folder to write to that becomes `out` at the end: what is broken off leaves nothing under this name.

    Raises:
        UsageError: `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty: give a new folder, so that nothing is overwritten")
    make_folder(out.absolute().parent)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".validation-") as temporary:
        folder = Path(temporary) / (out.name or "validation")
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)


def stated(site: Site, tables: SiteTables, answers: Mapping[str, ServedRisks]) -> dict[str, Any]:
    """Return the record of an evaluation: who was judged on whom, and what is to be read first.

    Args:
        site: the scans.
        tables: they were read from.
        answers: by the bundle's name in the report.
    """
    files = {"outcomes": tables.outcomes, "covariates": tables.covariates}
    doubts = [
        f"{name}: {count} of {len(site.frame)} scans: {text}"
        for name, answer in answers.items()
        for text, count in answer.flags.items()
    ]
    bundles = {name: _bundle(answer.bundle, site) for name, answer in answers.items()}
    return {
        "format": FORMAT,
        "settings": {
            "registry": str(tables.registry.absolute()),
            "cohort": {"transplant": tables.transplant},
        },
        "bundles": bundles,
        "fixed": {
            "sha256": {
                "registry": site.registry.sha256,
                **{name: sha256_of(path) for name, path in files.items() if path is not None},
            }
        },
        "provenance": asdict(site.registry.provenance),
        "unknown_training": list(site.unknown),
        "matching": None if site.matched is None else asdict(site.matched),
        "warnings": [*_unstated(site), *site.warnings, *doubts, *_foreign(bundles)],
        "software": software(),
        "code": code(),
    }


def _unstated(site: Site) -> Iterator[str]:
    """Yield what nobody says of the patients, so that nothing can be said of how they differ from those in training."""
    of = site.registry.provenance
    lacking = [name for name in ("disease", "source", "sites") if not getattr(of, name)]
    if lacking and not site.registry.synthetic:
        yield f"the registry does not state {', '.join(lacking)}: state it in {site.registry.folder / DESCRIPTION}"


def _foreign(bundles: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield which predictors hardly any scan has in the range that training has seen."""
    for name, stored in bundles.items():
        found = [one for one in stored["shifts"] if one["outside"] >= _FOREIGN]
        if found:
            told = ", ".join(f"{one['feature']} ({100 * one['outside']:.0f} % of scans)" for one in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            yield (
                f"{name}: outside the range of training: {told}{more}; are they measured in the same way and unit here?"
            )


def _bundle(bundle: Bundle, site: Site) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "intended_use": bundle.intended_use,
        "limits": list(manifest.limits),
        "horizons_years": list(manifest.horizons_years),
        "population": manifest.population.model_dump(mode="json"),
        "site_calibration": None
        if manifest.site_calibration is None
        else manifest.site_calibration.model_dump(mode="json"),
        "arms": {arm.name: arm.kind for arm in manifest.arms},
        "features": list(manifest.features),
        "members": bundle.models.members,
        "shifts": [asdict(one) for one in shift.shifts(bundle, site.of_bundle(bundle))],
    }


def write(
    out: Path,
    site: Site,
    predictions: pd.DataFrame,
    options: EvaluationSettingsGiven,
    facts: Mapping[str, Any],
    horizons: Sequence[int],
) -> Path:
    """Evaluate predictions of a site's scans, and write tables and report.

    Args:
        out: the folder.
        site: the scans.
        predictions: of each bundle.
        options: of the evaluation.
        facts: as `stated` returns them.
        horizons: years.

    Returns:
        The page of the report.
    """
    known = site.registry.folder / "truth.csv"
    truth = pd.read_csv(known) if site.registry.synthetic and known.is_file() else None
    found = evaluate(site.frame, predictions, options, truth, horizons, external=True, courses=site.courses)
    cohort.save(cohort.Cohort(site.frame, site.flow), out / "cohort.parquet")
    write_whole(out / "features.parquet", _with_scan(site).to_parquet(index=False))
    write_whole(out / "predictions.parquet", predictions.to_parquet(index=False))
    write_json(out / NAME, facts)
    write_whole(out / "evaluation.json", found.to_json())
    return report.write(out)


def _with_scan(site: Site) -> pd.DataFrame:
    return pd.concat([site.frame[["scan"]], site.data.features], axis=1)
