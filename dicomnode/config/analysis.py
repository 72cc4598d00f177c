"""Which series are analysed, by which algorithms, and where their weights come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from dicomnode.analysis.series import selection_rules
from dicomnode.analysis.series.kernels import Family
from dicomnode.analysis.series.selection_rules import Contrast, Rules
from dicomnode.config.fields import PATTERNS, ConfigTable, Patterns

_RULES = selection_rules.DEFAULT

#: The segmenters there are; `models.segmenters.SEGMENTERS` makes them.
SegmenterName = Literal["classical", "lungmask"]
#: The keys of [analysis] that one segmenter alone reads: those of another mean nothing to it.
SEGMENTER_KEYS: Final[Mapping[SegmenterName, tuple[str, ...]]] = {
    "classical": (),
    "lungmask": (
        "lungmask_weights",
        "lungmask_sha256",
        "lungmask_lobe_weights",
        "lungmask_lobe_sha256",
        "lungmask_lobes",
        "lungmask_step_mm",
    ),
}


class SelectionTable(ConfigTable):
    """Which series are analysed (`analysis.series.selection_rules` explains the fields and has the defaults)."""

    modalities: tuple[str, ...] = Field(_RULES.modalities, min_length=1, description="give a list such as ['CT']")
    body_parts: Patterns = Field(
        _RULES.body_parts, description=f"give a list of words for the chest, {PATTERNS}, or omit the key"
    )
    other_body_parts: Patterns = Field(
        _RULES.other_body_parts, description=f"give a list of words for other parts of the body, {PATTERNS}"
    )
    body_part_may_be_missing: bool = Field(True, description="give false to require a word for the chest, else true")
    max_degrees_from_axial: float = Field(
        _RULES.max_degrees_from_axial, ge=0, le=40, description="give an angle in degrees, 0 to 40"
    )
    min_slices: int = Field(_RULES.min_slices, ge=2, description="give a number of slices, at least 2")
    min_coverage_mm: float = Field(
        _RULES.min_coverage_mm, ge=0, description="give the distance from the first slice to the last, in mm"
    )
    max_step_mm: float | None = Field(
        None, gt=0, description="give the largest slice spacing, in mm; omit the key for no limit"
    )
    max_thickness_mm: float | None = Field(
        None, gt=0, description="give the largest Slice Thickness, in mm; omit the key for no limit"
    )
    kernels: tuple[Family, ...] = Field(
        _RULES.kernels, min_length=1, description=f"give some of {', '.join(_RULES.kernels)}, the best first"
    )
    contrast: Contrast = Field(_RULES.contrast, description="give 'allowed', 'preferred' or 'refused'")
    lossy: Literal["allowed", "refused"] = Field(_RULES.lossy, description="give 'allowed' or 'refused'")
    invalid_identity: Literal["refused", "verbatim"] = Field(
        _RULES.invalid_identity, description="give 'refused' or 'verbatim'"
    )
    image_type_refused: tuple[str, ...] = Field(
        _RULES.image_type_refused, description="give a list of values of Image Type, such as ['LOCALIZER']"
    )
    image_type_required: tuple[str, ...] = Field(
        _RULES.image_type_required, description="give a list of values of Image Type, such as ['AXIAL']"
    )
    description_include: Patterns = Field((), description=f"give a list of patterns for Series Description, {PATTERNS}")
    description_exclude: Patterns = Field((), description=f"give a list of patterns for Series Description, {PATTERNS}")

    @field_validator("kernels")
    @classmethod
    def _once(cls, value: tuple[Family, ...]) -> tuple[Family, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a family is listed twice")
        return value

    @property
    def rules(self) -> Rules:
        """The record that the analysis takes."""
        return Rules(**{name: getattr(self, name) for name in type(self).model_fields})


class AnalysisTable(ConfigTable):
    """Which algorithms make the numbers, and from which series."""

    selection: SelectionTable = Field(SelectionTable(), description="give a table [analysis.selection]")

    segmenter: SegmenterName = Field(
        "classical", description="give 'classical' (needs no weights) or 'lungmask' (needs lungmask_weights)"
    )
    second_segmenter: SegmenterName | Literal[""] = Field(
        "", description="give a segmenter whose disagreement with the first becomes a flag, or '' for none"
    )
    lungmask_weights: Path | None = Field(
        None, description="give 'R231' (after `dicomnode weights fetch R231`), or the path of such a weights file"
    )
    lungmask_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="give the SHA-256 of that file: 64 lower-case hex digits"
    )
    lungmask_lobe_weights: Path | None = Field(
        None, description="give 'LTRCLobes' (after `dicomnode weights fetch LTRCLobes`), or the path of such a file"
    )
    lungmask_lobe_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="give the SHA-256 of that file: 64 lower-case hex digits"
    )
    lungmask_lobes: bool = Field(
        True, description="give true for the lobes wherever the weights for them are installed, or false for none"
    )
    lungmask_step_mm: float = Field(
        0.0, ge=0.0, le=5.0, description="give 0 for every slice, or 2.5 to 3 to look at slices so far apart"
    )
    weights: Path = Field(Path("weights"), description="give the folder that holds the model bundles")
    bundle: str = Field("", description="give the name of a bundle's folder in `weights`, or '' for no risk")
    shadow_bundle: str = Field(
        "", description="give the folder name, in `weights`, of a bundle to run in shadow of `bundle`, or ''"
    )
    allow_demo_bundles: bool = Field(
        False, description="give true for demonstrations only: it allows bundles trained on synthetic data"
    )
    require_signed_bundles: bool = Field(
        False, description="give true to serve only bundles that are signed with a key of trusted_keys"
    )
    trusted_keys: tuple[Path, ...] = Field(
        (), description="give a list of files with public keys, such as ['keys/research.pub']"
    )
    explanation: bool = Field(
        False, description="give true to show on summary page and PDF how the bundle weighs the scan, else false"
    )
    radiomics: bool = Field(True, description="give true to compute the radiomics features, else false")
    radiomics_preparation: Literal["pyradiomics", "ibsi"] = Field(
        "pyradiomics",
        description="give 'pyradiomics', or 'ibsi' to prepare image and mask for the features as IBSI asks",
    )
    radiomics_filters: tuple[Literal["LoG", "Wavelet"], ...] = Field(
        (), description="give some of 'LoG' and 'Wavelet' for features of filtered images too (minutes), else []"
    )
    radiomics_log_sigma_mm: tuple[float, ...] = Field(
        (1.0, 2.0, 3.0), min_length=1, description="give a list of widths for LoG in mm, such as [1.0, 2.0, 3.0]"
    )
    device: str = Field("cpu", pattern=r"^cpu$|^cuda(:\d+)?$", description="give 'cpu', 'cuda' or 'cuda:0'")

    @field_validator("lungmask_lobe_weights")
    @classmethod
    def _with_lungmask(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("segmenter") == "classical":
            raise ValueError("lobes need segmenter = 'lungmask': the classical segmenter finds none")
        return value

    @field_validator("radiomics_filters")
    @classmethod
    def _unfiltered(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and info.data.get("radiomics_preparation") == "ibsi":
            raise ValueError("must be [] where radiomics_preparation = 'ibsi': filtered images are PyRadiomics' alone")
        return value

    @field_validator("trusted_keys")
    @classmethod
    def _someone(cls, value: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        if info.data.get("require_signed_bundles") and not value:
            raise ValueError("is empty: require_signed_bundles = true needs the public keys of those who may sign")
        return value

    @field_validator("radiomics_log_sigma_mm")
    @classmethod
    def _widths(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.5 <= sigma <= 20 for sigma in value):
            raise ValueError("widths must be 0.5 to 20 mm")
        return value

    @field_validator("lungmask_weights")
    @classmethod
    def _weights(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        for key in ("segmenter", "second_segmenter"):
            if info.data.get(key) == "lungmask" and value is None:
                raise ValueError(f"is missing: {key} = 'lungmask' needs it (and lungmask_sha256 for a path)")
        return value

    @field_validator("second_segmenter")
    @classmethod
    def _another(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("segmenter"):
            raise ValueError("is the first segmenter: nothing would be compared")
        return value

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class WeightsTable(ConfigTable):
    """Where `dicomnode weights fetch` gets files from."""

    mirror: str = Field(
        "",
        pattern=r"^$|^https?://",
        description="give '' for the publisher's server, or the http(s) URL of a folder with the same files",
    )
