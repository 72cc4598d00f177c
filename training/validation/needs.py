"""What bundles need of a site, and what stands against asking them there together."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.covariates import PREFIX, Covariate
from dicomnode.errors import BundleError, UsageError
from dicomnode.registry_format.description import NAME as DESCRIPTION
from training.data import covariate_types
from training.data.registry_folder import Registry
from training.features import compute
from training.features.settings import FeatureSettings

_SHOWN = 4
#: What no registry holds, as it is computed of a scan and its prior: a first scan has none.
_COMPUTED = ("change.", "encoder.")


def names_of(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """Return how bundles are told apart: by name and version, and where these are the same by their digest, too.

    Raises:
        UsageError: one of them is given twice.
    """
    plain = [f"{bundle.name} {bundle.version}" for bundle in bundles]
    if len({bundle.sha256 for bundle in bundles}) < len(bundles):
        twice = next(name for i, name in enumerate(plain) if bundles[i].sha256 in {b.sha256 for b in bundles[:i]})
        raise UsageError(f"the bundle {twice} is given twice: give each bundle once")
    pairs = zip(plain, bundles, strict=True)
    return tuple(name if plain.count(name) == 1 else f"{name} ({one.sha256[:8]})" for name, one in pairs)


def horizons_of(bundles: Sequence[Bundle]) -> tuple[int, ...]:
    """Return the horizons at which all bundles predict, years.

    Raises:
        UsageError: there is none, or a bundle does not predict by whole years up to the last of them.
    """
    shared = set.intersection(*(set(bundle.manifest.horizons_years) for bundle in bundles))
    if not shared:
        said = "; ".join(f"{b.name} {b.version}: {_years(b.manifest.horizons_years)}" for b in bundles)
        raise UsageError(f"the bundles have no horizon in common ({said} years): evaluate them one by one")
    last = max(shared)
    for bundle in bundles:
        if list(bundle.manifest.edges_years[: last + 1]) != list(range(last + 1)):
            raise UsageError(
                f"{bundle.folder}: its intervals end at {_years(bundle.manifest.edges_years[1:])} years, and only "
                "yearly intervals can be evaluated: make the bundle anew with `training run`"
            )
    return tuple(sorted(shared))


def free_covariates(registry: Registry, bundles: Sequence[Bundle]) -> tuple[Covariate, ...]:
    """Return how the covariates of the site are to be read: as its registry declares them, else as a bundle does.

    Raises:
        UsageError: registry and bundle mean different things by one name.
    """
    stored = registry.about.get("covariates", {})
    assert isinstance(stored, dict), "read_description has seen to it"
    found = covariate_types.declared(stored, f"{registry.folder / DESCRIPTION}: covariates")
    for bundle in bundles:
        for one in bundle.manifest.covariates:
            own = found.setdefault(one.name, one) if one.name not in covariate_types.BUILT_IN else one
            if (own.type, own.unit) != (one.type, one.unit):
                raise UsageError(
                    f"the covariate {one.name} is {own.described} in the registry and {one.described} in the bundle "
                    f"{bundle.name}: convert it, and correct its declaration in {registry.folder / DESCRIPTION}"
                )
    return tuple(found.values())


def declared_by(bundle: Bundle, frame: pd.DataFrame) -> tuple[Covariate, ...]:
    """Return the covariates that a bundle declares; of an older one, which declares none, those that a cohort has."""
    return bundle.manifest.covariates or covariate_types.of_cohort(frame, ())


def measured_by(bundle: Bundle) -> set[str]:
    """Return the names of the features that a bundle takes, but for those that follow from two scans."""
    return {name for name in bundle.manifest.features if not name.startswith(_COMPUTED)}


def check(bundle: Bundle, registry: Registry, frame: pd.DataFrame, covariates: Path | None) -> list[str]:
    """Refuse a registry that cannot answer for a bundle; return what is in doubt.

    Args:
        bundle: to be asked.
        registry: of the site.
        frame: its cohort.
        covariates: the file that they were read from.

    Raises:
        UsageError: volumes, features or covariates are missing, or were measured otherwise.
    """
    who = f"{bundle.name} {bundle.version}"
    if bundle.models.imaged and (frame["volume"] == "").all():
        raise UsageError(
            f"{who} looks at images, and {registry.folder} keeps no volumes: export it with registry.volumes = true"
        )
    needed = measured_by(bundle)
    has = {str(name) for name in registry.features}
    measured = sorted(name for name in needed - has if not name.startswith(PREFIX))
    if measured and (registry.lungs_alone or registry.imported):
        raise UsageError(
            f"{registry.folder} lacks {len(measured)} of the {len(needed)} features that {who} takes: "
            f"{_some(measured)}. Measure them as the bundle does (model.toml, radiomics), or evaluate another bundle"
        )
    lacking_covariates = [
        one
        for one in declared_by(bundle, frame)
        if one.missing == "refuse" and needed & set(one.features) and one.name not in {*frame, "sex_male"}
    ]
    if lacking_covariates:
        named = "; ".join(f"{one.name} ({one.described})" for one in lacking_covariates)
        cure = "give them with --covariates" if covariates is None else f"add them to {covariates}"
        raise UsageError(f"{who} takes covariates that this registry has of nobody: {named}: {cure}")
    return list(_radiomics(bundle, registry, who))


def _radiomics(bundle: Bundle, registry: Registry, who: str) -> Iterator[str]:
    """Refuse features of other settings than the bundle's; yield that they are not known."""
    needed = bundle.manifest.radiomics_settings
    if needed is None:
        return
    here = compute.radiomics_settings_of(registry, feature_settings([bundle], registry))
    unstated = compute.RADIOMICS_NOT_STATED
    if unstated in (needed, here):
        yield f"{who}: with which settings radiomics were measured is not stated, here or in training"
        return
    try:
        bundle.check_radiomics(here)
    except BundleError:
        raise UsageError(
            f"{registry.folder}: its radiomics were measured with other settings than those that {who} was trained "
            "with (model.toml, radiomics): they are not comparable; measure them again with these"
        ) from None


def feature_settings(bundles: Iterable[Bundle], registry: Registry) -> FeatureSettings:
    """Return the settings by which a registry's features are taken for some bundles.

    Raises:
        UsageError: one needs other preparation than another.
    """
    radiomics = {name for bundle in bundles for name in bundle.manifest.features if name.startswith("radiomics.")}
    ibsi = {name.split(".")[2].startswith("ibsi") for name in radiomics}
    if len(ibsi) > 1:
        raise UsageError(
            "the bundles were trained with features of different preparation (pyradiomics and ibsi): evaluate them one "
            "by one"
        )
    return FeatureSettings(
        radiomics=bool(radiomics),
        radiomics_spacing_mm=registry.radiomics_spacing_mm,
        radiomics_preparation="ibsi" if True in ibsi else "pyradiomics",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _years(numbers: Iterable[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)
