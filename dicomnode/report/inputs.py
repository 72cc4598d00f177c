"""A model's inputs in words: what each is called, and how its value is written."""

from typing import Final

from dicomnode.analysis.findings import Contribution
from dicomnode.report.numbers import share, whole
from dicomnode.report.structures import LOBES_OF_LUNG

_MEASURES: Final = {
    "mean_hu": "mean attenuation",
    "sd_hu": "SD of attenuation",
    "skewness": "skewness",
    "kurtosis": "kurtosis",
    "p50_hu": "median attenuation",
    "haa_percent": "HAA",
    "laa950_percent": "LAA",
    "dense_percent": "dense tissue",
    "volume_ml": "volume",
} | {f"p{p:02d}_hu": f"{p}th percentile" for p in (5, 15, 85, 95)}
_REGIONS: Final = {
    "lungs": "both lungs",
    "right": "right lung",
    "left": "left lung",
    "upper_third": "upper third",
    "middle_third": "middle third",
    "lower_third": "lower third",
    "rim": "rim",
    "core": "core",
    "lower_third_rim": "basal rim",
} | {name: structure.name for name, structure in LOBES_OF_LUNG.items()}
_COVARIATES: Final = {"age_years": "age", "sex_male": "sex"}


def name_of(feature: str) -> str:
    """Return what an input (`tabular.features_of`) is called on the page."""
    kind, _, rest = feature.partition(".")
    if kind == "quantities":
        region, _, measure = rest.rpartition(".")
        return f"{_MEASURES.get(measure, measure)}, {_REGIONS.get(region, region)}"
    if kind == "radiomics":
        region, _, name = rest.partition(".")
        # «original_glcm_Idm»: filter, class and name of PyRadiomics.
        return (
            f"{name.removeprefix('original_').removeprefix('ibsi_').replace('_', ' ')}, {_REGIONS.get(region, region)}"
        )
    if kind == "change":
        region, _, measure = rest.rpartition(".")
        return f"change of {_MEASURES.get(measure, measure)}, {_REGIONS.get(region or 'lungs', region)}"
    if kind == "covariates":
        name, _, category = rest.partition("=")
        return f"{name}: {category}" if category else _COVARIATES.get(name, name)
    return "image encoder, all numbers" if feature == "encoder" else feature


def value_of(one: Contribution) -> str:
    """Return an input's value with its unit; «not known» where the training median stands in for it."""
    if one.value is None:
        return "" if one.name == "encoder" else "not known"
    if one.name == "covariates.sex_male":
        return "male" if one.value else "female"
    if one.name.startswith("covariates.") and "=" in one.name:
        return "yes" if one.value else "no"
    unit = one.unit.partition("/")[0]
    if one.name.startswith("change."):
        number = f"{one.value:+.1f}" if unit == "%" else f"{one.value:+.0f}"
        # Per cent of per cent would be taken for points.
        return f"{number} {'points' if unit == '%' else unit}/year"
    if one.name.startswith("quantities.") and unit:
        number = share(one.value) if unit == "%" else whole(one.value)
    else:
        number = f"{one.value:.3g}" if abs(one.value) < 1000 else f"{one.value:.0f}"
    return f"{number} {one.unit}".strip()
