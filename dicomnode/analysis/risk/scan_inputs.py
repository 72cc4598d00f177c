"""What a scan brings to a model beside its image, by name: the same at the node, in its registry and in training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Scale = Literal["plain", "log", "log1p"]
#: What is looked at of every scan: its scale, and the least spread on it (what differs by less is alike).
NUMBERS: Final[Mapping[str, tuple[Scale, float]]] = {
    "acquisition.spacing_z_mm": ("log", 0.1),
    "acquisition.slice_thickness_mm": ("log", 0.1),
    "covariates.age_years": ("plain", 2.0),
    "quantities.lungs.volume_ml": ("log", 0.05),
    "quantities.lungs.mean_hu": ("plain", 5.0),
    "quantities.lungs.sd_hu": ("plain", 5.0),
    "quantities.lungs.kurtosis": ("log1p", 0.05),
    "quantities.lungs.haa_percent": ("log1p", 0.05),
    "quantities.lungs.laa950_percent": ("log1p", 0.05),
}
WORDS: Final = ("manufacturer", "kernel_family", "sex")
#: Slice thickness and step that are read, mm: some scanners write a thickness of 0.
MM_RANGE: Final = (0.01, 100.0)


@dataclass(frozen=True)
class ScanInputs:
    """What the models look at, or depend on, by name; what is not known is missing."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


def is_stated(name: str) -> bool:
    """Whether a number is stated of patient or acquisition, and not measured."""
    return name.startswith(("covariates.", "acquisition."))


def on_scale(scale: Scale, value: float) -> float:
    """Return a number as it is compared: ratios of volumes and distances count, not their differences."""
    if scale == "log":
        return math.log(max(value, 1e-3))
    return math.log1p(max(value, 0.0)) if scale == "log1p" else value


def read_mm(stated: float | None) -> float | None:
    """Return a slice thickness as it is stated, mm; None where it is not, or can be none."""
    low, high = MM_RANGE
    return stated if stated is not None and low <= stated <= high else None


def scan_inputs(
    features: Mapping[str, float],
    *,
    spacing_z_mm: float | None,
    slice_thickness_mm: float | None,
    manufacturer: str,
    kernel_family: str,
    sex: str,
) -> ScanInputs:
    """Return a scan's inputs by name: the same at the node, in its registry and in training.

    Args:
        features: quantities, radiomics, change and covariates (`covariates.age_years`) by name.
        spacing_z_mm: between the slices.
        slice_thickness_mm: as the images state it.
        manufacturer: of the scanner; vendors change what follows the first word.
        kernel_family: "lung", "medium" or "soft"; "unknown" and "" are not known.
        sex: F, M, O or "".
    """
    stated = {"acquisition.spacing_z_mm": spacing_z_mm, "acquisition.slice_thickness_mm": read_mm(slice_thickness_mm)}
    maker = manufacturer.casefold().split()
    words = {
        "manufacturer": maker[0] if maker else "",
        "kernel_family": "" if kernel_family == "unknown" else kernel_family,
        "sex": sex,
    }
    return ScanInputs({**features, **{k: v for k, v in stated.items() if v is not None}}, words)


_TITLES: Final = {
    "acquisition.spacing_z_mm": "slice spacing, mm",
    "acquisition.slice_thickness_mm": "slice thickness, mm",
    "covariates.age_years": "age, years",
    "quantities.lungs.volume_ml": "lung volume, ml",
    "quantities.lungs.mean_hu": "mean attenuation, HU",
    "quantities.lungs.sd_hu": "spread of the attenuation, HU",
    "quantities.lungs.kurtosis": "kurtosis of the attenuation",
    "quantities.lungs.haa_percent": "high attenuation, %",
    "quantities.lungs.laa950_percent": "low attenuation, %",
    "kernel": "reconstruction kernel",
    "kernel_family": "kernel family",
    "outside": "scans outside the model's population",
    "risk": "predicted risk, %",
    "scanner": "scanner",
}


def words_of(name: str) -> str:
    """Return an input's name for people."""
    return _TITLES.get(name, name)
