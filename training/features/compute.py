"""The features of every scan of a cohort: measured by the node's own code, and their change since the prior scan.

What the registry already has is the node's; the rest is measured here from the stored volumes by the same functions
(`dicomnode.analysis`), in parallel, each scan kept in a cache, so that a run that was stopped goes on where it was.

A registry's volumes are cut to the lungs, with air around them: radiomics look across the mask's edge, so these volumes
give other numbers than the node measures when it serves the bundle. From them nothing is measured. What is measured
here are older synthetic registries, which hold whole phantoms.
"""

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import dicomnode
from dicomnode.analysis.measures.change import FOLLOWED, FOLLOWED_BY_REGION, per_year
from dicomnode.analysis.risk.covariates import Covariate, encoded
from dicomnode.errors import DicomnodeError, RefusedError, UsageError
from dicomnode.files import write_whole
from dicomnode.registry_format.volumes import read_volume
from training.data.covariate_types import of_cohort
from training.data.outcomes import DAYS_PER_YEAR
from training.data.registry_folder import Registry
from training.features.settings import FeatureSettings
from training.files import digest
from training.progress_type import ProgressCallback

#: change.<measure> -> the quantity that it follows, as `dicomnode.analysis.measures.change.compare` does.
CHANGES: Mapping[str, str] = {
    "change.volume_ml": "quantities.lungs.volume_ml",
    **{f"change.{name}": f"quantities.lungs.{name}" for name in FOLLOWED},
    **{f"change.{region}.haa_percent": f"quantities.{region}.haa_percent" for region in FOLLOWED_BY_REGION},
}
#: Stands for PyRadiomics' settings where whoever brought a table did not say them: no node has these.
RADIOMICS_NOT_STATED: Mapping[str, object] = {"settings": "not stated"}
#: How a registry comes to hold what it lacks, by its writer.
_LET_MEASURE = {
    "node": "let the node measure them (analysis.radiomics and registry.record in ae_config.toml) and export again",
    "training": "make the registry anew with `training cohort --dicom`",
    "import": "add them to the table and import it again",
    "synthetic": "make it anew with `training synthetic --radiomics`, and set features.radiomics_spacing_mm = 4",
}


@dataclass(frozen=True)
class _FeatureTask:
    """One scan to measure."""

    scan: str
    volume: Path
    radiomics: Mapping[str, object] | None
    cached: Path


def radiomics_settings(settings: FeatureSettings) -> Mapping[str, object] | None:
    """PyRadiomics' parameter file for these settings; None without radiomics."""
    if not settings.radiomics:
        return None
    from dicomnode.analysis.radiomics.extract import (  # noqa: PLC0415  (a second, and only where measured)
        DEFAULT_SETTINGS,
        with_preparation,
    )

    spacing = settings.radiomics_spacing_mm
    plain = {**DEFAULT_SETTINGS, "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": [spacing] * 3}}
    return with_preparation(plain, settings.radiomics_preparation)


def radiomics_settings_of(registry: Registry, settings: FeatureSettings) -> Mapping[str, object] | None:
    """Return PyRadiomics' settings behind the features of a run, None without radiomics.

    Of an imported table they are what the registry states of it, not the node's; it may state none (`NOT_STATED`).
    """
    if not settings.radiomics or not registry.imported:
        return radiomics_settings(settings)
    stated = registry.about.get("radiomics_settings")
    return json.loads(stated) if isinstance(stated, str) and stated else RADIOMICS_NOT_STATED


def compute(
    cohort: pd.DataFrame,
    registry: Registry,
    settings: FeatureSettings,
    cache: Path,
    progress: ProgressCallback,
    declared: Sequence[Covariate] | None = None,
) -> pd.DataFrame:
    """Return the features of a cohort's scans.

    Args:
        cohort: the cohort's frame.
        registry: where they come from.
        settings: which, and whether the registry's own are taken.
        cache: folder of measured scans, one file each; may be shared between runs.
        progress: told about each scan.
        declared: the covariates that the cohort has (`covariate_types.of_cohort`); None: age, sex and lung function.

    Returns:
        A row a scan in the cohort's order: `scan`, then float64 columns by name: quantities.*, radiomics.*, change.*
        (per year, against `prior_scan`), covariates.*. NaN where a scan lacks a feature.

    Raises:
        UsageError: a volume cannot be read or measured, a scan has neither features nor a volume, a registry that holds
            the lungs alone lacks features, or the registry's radiomics were measured at another resolution than the
            settings ask for.
    """
    stored = _stored(cohort, registry, settings)
    tasks = _tasks(cohort, registry, settings, cache, stored)
    _measure(tasks, settings.workers or len(os.sched_getaffinity(0)), progress)
    measured = pd.DataFrame(
        {t.scan: json.loads(t.cached.read_text(encoding="utf-8")) for t in tasks}, dtype=np.float64
    ).T
    features = measured.reindex(index=cohort["scan"], columns=sorted({*stored.columns, *measured.columns}))
    features = features.astype(np.float64).fillna(stored.set_axis(cohort["scan"].to_list()))
    features = pd.concat([features, changes(cohort, features), covariates(cohort, declared)], axis=1)
    return features.rename_axis("scan").reset_index()


def to_measure(
    cohort: pd.DataFrame, registry: Registry, settings: FeatureSettings
) -> tuple[pd.DataFrame, tuple[Path, ...]]:
    """Return what the registry knows of a cohort's scans, in their order, and the volumes that `compute` will measure.

    Raises:
        UsageError: as `compute`.
    """
    stored = _stored(cohort, registry, settings)
    return stored, tuple(task.volume for task in _tasks(cohort, registry, settings, Path(), stored))


def _stored(cohort: pd.DataFrame, registry: Registry, settings: FeatureSettings) -> pd.DataFrame:
    """Return what the registry has and the settings want, in the cohort's order."""
    features = registry.features.set_axis(registry.scans["scan"].to_list()).reindex(cohort["scan"])
    prefixes = ("quantities.", "radiomics.") if settings.radiomics else ("quantities.",)
    wanted = [c for c in features if c.startswith(prefixes)] if settings.source == "registry" else []
    wanted = [c for c in wanted if not c.startswith("radiomics.") or _is_prepared(c, settings.radiomics_preparation)]
    registry_mm, settings_mm = registry.radiomics_spacing_mm, settings.radiomics_spacing_mm
    if registry_mm != settings_mm and any(c.startswith("radiomics.") for c in wanted):
        # Texture depends on the resolution: a model fitted at one must not be applied at another.
        anew = "" if registry.lungs_alone else ', or set features.source = "volumes" to measure everything again'
        raise UsageError(
            f"{registry.folder}: its radiomics were measured at {registry_mm:g} mm, but features.radiomics_spacing_mm "
            f"is {settings_mm:g}: set it to {registry_mm:g}{anew}"
        )
    return features[wanted]


def _is_prepared(column: str, preparation: str) -> bool:
    """Whether `radiomics.<region>.<feature>` is of this preparation, which stands at the feature's beginning."""
    is_ibsi = column.split(".")[2].startswith("ibsi")
    return is_ibsi == (preparation == "ibsi")


def _tasks(
    cohort: pd.DataFrame, registry: Registry, settings: FeatureSettings, cache: Path, stored: pd.DataFrame
) -> list[_FeatureTask]:
    """Return the scans that the registry does not answer for; of an imported table none can be measured."""
    if registry.imported:
        return []
    spec = radiomics_settings(settings)
    prefixes = ("quantities.",) if spec is None else ("quantities.", "radiomics.")
    has = {p: stored[[c for c in stored if c.startswith(p)]].notna().any(axis=1).to_numpy() for p in prefixes}
    complete = np.logical_and.reduce(list(has.values()))
    if registry.lungs_alone and not complete.all():
        raise _unmeasurable(registry, settings, {p: int((~known).sum()) for p, known in has.items()}, len(stored))
    tasks = []
    for scan, volume, known in zip(cohort["scan"], cohort["volume"], complete, strict=True):
        path = registry.folder / str(volume)
        if known:
            continue
        if not volume:
            raise UsageError(
                f"{registry.folder}: the scan {scan} has no volume, and features.parquet has no "
                f"{' or '.join(prefixes)}* for it: export the registry with them, or set features.radiomics = false"
            )
        kept = path.stat()
        key = digest(spec, dicomnode.__version__, scan, str(volume), kept.st_size, kept.st_mtime_ns)
        tasks.append(_FeatureTask(str(scan), path, spec, cache / f"{scan}-{key[:16]}.json"))
    return tasks


def _unmeasurable(registry: Registry, settings: FeatureSettings, lacking: Mapping[str, int], scans: int) -> UsageError:
    """Why nothing is measured from volumes that are cut to the lungs, and what else can be done."""
    why = "its volumes are cropped to the lungs and give different values from those the node measures in service"
    if settings.source == "volumes":
        return UsageError(f'{registry.folder}: features.source is "volumes": {why}: set features.source = "registry"')
    missing = " and ".join(f"{prefix}* for {count}" for prefix, count in lacking.items() if count)
    cure = _LET_MEASURE[str(registry.about["made_by"])]
    if not lacking["quantities."]:
        cure += ", or set features.radiomics = false"
    return UsageError(f"{registry.folder}: features.parquet lacks {missing} of {scans} scans, and {why}: {cure}")


def _measure(tasks: list[_FeatureTask], workers: int, progress: ProgressCallback) -> None:
    waiting = [t for t in tasks if not t.cached.is_file()]
    done = len(tasks) - len(waiting)
    progress("Measuring scans", done, len(tasks))
    workers = min(workers, len(waiting))
    if workers <= 1:
        for number, task in enumerate(waiting, start=done + 1):
            _measure_one(task)
            progress("Measuring scans", number, len(tasks))
        return
    # Spawned, not forked: a fork of a process with threads (torch has some) may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_measure_one, task) for task in waiting]
        try:
            for number, future in enumerate(as_completed(futures), start=done + 1):
                future.result()
                progress("Measuring scans", number, len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _measure_one(task: _FeatureTask) -> None:
    try:
        write_whole(task.cached, json.dumps(measure(task.volume, task.radiomics), allow_nan=False))
    except DicomnodeError as error:
        raise UsageError(f"{task.volume}: {error}: repair the volume or remove the scan from the registry") from None


def measure(volume: Path, radiomics: Mapping[str, object] | None) -> dict[str, float]:
    """Quantities and radiomics of a stored volume, as the node measures and names them.

    Raises:
        UsageError: the file is no scan.
        RefusedError: the lungs are empty.
    """
    from dicomnode.analysis.measures import quantify  # noqa: PLC0415  (SimpleITK and PyRadiomics: only where measured)
    from dicomnode.analysis.radiomics import extract  # noqa: PLC0415
    from dicomnode.analysis.risk.tabular import names_of  # noqa: PLC0415

    loaded, labels = read_volume(volume)
    if not labels.any():
        raise UsageError("no voxel is labelled as lung")
    texture = {} if radiomics is None else extract.by_region(loaded, labels, radiomics)[0]
    return names_of(quantify.by_region(loaded, labels), texture)


def changes(cohort: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """Change a year since `prior_scan`, NaN without one or over a short interval; indexed by scan as `features`."""
    days = np.round(cohort["years_since_prior"].to_numpy() * DAYS_PER_YEAR)
    found = {}
    for name, followed in CHANGES.items():
        if followed not in features:
            continue
        now = features[followed].to_numpy()
        then = features[followed].reindex(cohort["prior_scan"]).to_numpy()
        rates = (per_year(*one) for one in zip(then, now, days, strict=True))
        found[name] = np.array([np.nan if rate is None else rate for rate in rates], np.float64)
    return pd.DataFrame(found, index=features.index)


def covariates(cohort: pd.DataFrame, declared: Sequence[Covariate] | None = None) -> pd.DataFrame:
    """Return the cohort's own covariates as features, encoded as the node encodes them; indexed by scan.

    Age (years) and sex (`sex_male`: 1 male, 0 female) are always there. A value outside its declared range counts as
    missing: `dicomnode` would give no risk.
    """
    if declared is None:
        declared = of_cohort(cohort, ())
    given = cohort.assign(sex_male=cohort["sex"].map({"M": 1.0, "F": 0.0}))
    found: dict[str, list[float]] = {}
    for one in declared:
        rows = [_encoded(one, value) for value in given[one.name]]
        found |= {name: [row.get(name, np.nan) for row in rows] for name in one.features}
    return pd.DataFrame(found, index=cohort["scan"].to_list(), dtype=np.float64)


def _encoded(one: Covariate, value: object) -> Mapping[str, float]:
    try:
        return encoded((one,), {one.name: value})
    except RefusedError:
        return {}
