"""What stands in a bundle's `model.toml` and `golden.json`: validated records; an unknown key is an error."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomnode.analysis.findings import IntendedUse
from dicomnode.analysis.risk.backbones import BACKBONES
from dicomnode.analysis.risk.covariates import PREFIX, Covariate
from dicomnode.analysis.risk.encoder import PREFIX as ENCODED
from dicomnode.analysis.risk.encoder import WIDEST
from dicomnode.analysis.risk.encoder import names as encoder_names
from dicomnode.analysis.risk.ensemble import Ensemble
from dicomnode.analysis.risk.network import horizon_indices
from dicomnode.words.numerals import plural


def _plain_name(name: str) -> str:
    if PurePath(name).name != name or name in ("", ".", "..") or not name.isprintable():
        raise ValueError(f"{name!r} must be a file name in the bundle's own folder")
    return name


def _backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"{name!r} is not one of {', '.join(BACKBONES)}")
    return name


Backbone = Annotated[str, AfterValidator(_backbone)]
FileName = Annotated[str, AfterValidator(_plain_name)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Millimetres = Annotated[float, Field(gt=0, le=100)]
#: Of model.toml; `Manifest.format` repeats it.
FORMAT = 3


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkArm(_Record):
    """An arm of networks on slices, one a fold; `prior`: with the latest prior scan as second input."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["network"]
    backbone: Backbone
    prior: bool = Field(validation_alias=AliasChoices("prior", "earlier"))  # "earlier" in older bundles
    models: Annotated[tuple[FileName, ...], Field(min_length=1)]


class TabularArm(_Record):
    """An arm on measured numbers, one model a fold (see `tabular`)."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["tabular"]
    models: Annotated[tuple[FileName, ...], Field(min_length=1)]


class EncoderFile(_Record):
    """A 3-D encoder that somebody else has made, whose embedding an arm takes as `encoder.0`, `encoder.1`, ….

    Attributes:
        file: its name, in the bundle or, where its licence does not let it be passed on, in `encoders` beside it.
        sha256: of the file.
        licence: as its user has stated it.
        included: whether the bundle holds the file.
        width: of the embedding.
        preprocessing: `encoder.EncoderSpec`.
    """

    file: FileName
    sha256: Digest
    licence: Annotated[str, Field(min_length=1, max_length=200)]
    included: bool
    width: Annotated[int, Field(ge=1, le=WIDEST)]
    preprocessing: dict[str, object]


class Population(_Record):
    """On whom a model was trained; its evaluation predicts each patient by models that never saw them.

    Attributes:
        deaths: scans followed by an observed death within the longest horizon.
        disease: of the patients, as the registry states it; "": not stated, as in older bundles.
        source: where the data come from; "": not stated.
        sites: the hospitals; empty: not stated.
        period: years of the scans; "": not stated.
        dates: what the registry's dates are.
    """

    description: str
    patients: int
    scans: int
    deaths: int
    registry_sha256: Digest
    split_sha256: Digest
    disease: str = ""
    source: str = ""
    sites: tuple[str, ...] = ()
    period: str = ""
    dates: str = ""


class SiteCalibration(_Record):
    """To which site a bundle was recalibrated, and by what: logit of every hazard = slope * what it was + intercept.

    The bundle's `ensemble` has both worked in: this names them.

    Attributes:
        site: the hospital.
        intercept, slope: as fitted there; the slope is 1 where the intercept alone was.
        patients, scans: of the site, that they were fitted on.
        deaths: of these patients within the longest horizon.
        bundle_sha256: of the bundle that was recalibrated.
        registry_sha256: of the site's registry.
        disease: of the site's patients, as their registry states it; "": not stated.
        period: years of their scans; "": not stated.
    """

    site: Annotated[str, Field(min_length=1, max_length=60)]
    intercept: float
    slope: Annotated[float, Field(gt=0)]
    patients: int
    scans: int
    deaths: int
    bundle_sha256: Digest
    registry_sha256: Digest
    disease: str = ""
    period: str = ""


class Manifest(_Record):
    """`model.toml`: what the model is, its arms with a model for each fold, and the ensemble over them.

    Attributes:
        edges_years: the ends of the hazard's intervals, from 0.
        seal: `seal_of` all the rest.
        files: every other file of the folder with its sha256.
        preprocessing: the networks' input; None without networks.
        radiomics: PyRadiomics' parameter file as JSON, where a tabular arm takes radiomics; else "".
        features: all that the tabular arms take, by name; empty without such an arm.
        covariates: types, units and ranges of the covariates among them; empty in older bundles.
        encoder: where a tabular arm takes embeddings; None otherwise.
        site_calibration: of a bundle that was recalibrated to a site; None otherwise.
    """

    format: Literal[3]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    intended_use: IntendedUse
    horizons_years: Annotated[tuple[int, ...], Field(min_length=1)]
    edges_years: Annotated[tuple[float, ...], Field(min_length=2)]
    limits: tuple[str, ...]
    created_by: str
    software: dict[str, str]
    seal: Digest
    files: dict[FileName, Digest]
    radiomics: str = ""
    features: tuple[str, ...] = ()
    covariates: tuple[Covariate, ...] = ()
    preprocessing: dict[str, object] | None = None
    encoder: EncoderFile | None = None
    ensemble: Ensemble
    population: Population
    site_calibration: SiteCalibration | None = None
    arms: Annotated[tuple[Annotated[NetworkArm | TabularArm, Field(discriminator="kind")], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_named(self) -> Self:
        needed = {"golden.json", "MODEL_CARD.md", *(name for arm in self.arms for name in arm.models)}
        if missing := sorted(needed - set(self.files)):
            raise ValueError(f"the table files has no sha256 of {', '.join(missing)}")
        if list(self.horizons_years) != sorted(set(self.horizons_years)):
            raise ValueError(f"horizons_years {self.horizons_years} must increase")
        horizon_indices(self.edges_years, self.horizons_years)
        return self

    @property
    def radiomics_settings(self) -> dict[str, object] | None:
        """PyRadiomics' settings with which the features were measured; None where none is needed."""
        settings: dict[str, object] | None = json.loads(self.radiomics) if self.radiomics else None
        return settings

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [arm.name for arm in self.arms]
        weights = list(self.ensemble.weights)
        if sorted(names) != sorted(weights):
            raise ValueError(f"arms {names} and ensemble.weights {weights} must name the same arms, each once")
        if len(self.ensemble.intercepts) != len(self.edges_years) - 1:
            raise ValueError(
                f"ensemble.intercepts needs {plural(len(self.edges_years) - 1, 'number')}, one for each interval"
            )
        declared = [name for one in self.covariates for name in one.features]
        if len(set(declared)) < len(declared):
            raise ValueError("covariates declares one of them twice")
        if declared and (odd := {n for n in self.features if n.startswith(PREFIX)} - set(declared)):
            raise ValueError(f"covariates does not declare {', '.join(sorted(odd)[:3])}, which features lists")
        taken = {name for name in self.features if name.startswith(ENCODED)}
        if taken - set(encoder_names(0 if self.encoder is None else self.encoder.width)) or (
            self.encoder is not None and not taken
        ):
            raise ValueError(f"encoder is required where features has {ENCODED}*, which it must have")
        if self.encoder is not None and self.encoder.included != (self.encoder.file in self.files):
            raise ValueError("encoder.included must say whether files has the encoder")
        kinds = {arm.kind for arm in self.arms}
        if ("network" in kinds) != (self.preprocessing is not None):
            raise ValueError("preprocessing is required with a network arm, and not allowed otherwise")
        if ("tabular" in kinds) != bool(self.features):
            raise ValueError("features is required with a tabular arm, and not allowed otherwise")
        if any(name.startswith("radiomics.") for name in self.features) != bool(self.radiomics) or not isinstance(
            self.radiomics_settings, dict | None
        ):
            raise ValueError("radiomics is required where features has radiomics.*, and not allowed otherwise")
        return self


def seal_of(content: Mapping[str, object]) -> str:
    """SHA-256 over all of `model.toml` but its `seal`: over its JSON with sorted keys, without spaces at its commas.

    It finds what was edited by hand. It is no signature: who wants to can make a new one.
    """
    rest = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class GoldenHorizon(_Record):
    """What the golden case must give at one horizon."""

    years: int
    probability: float
    lower: float
    upper: float


class Golden(_Record):
    """`golden.json`: a stored scan with its expected risk. `recipe` says in words where the scan comes from.

    `features` and `scanner` are what the tabular arms are given with it, `codes` what the networks remember a prior
    scan by that lies `years` before; empty: no prior scan.
    """

    scan: FileName
    spacing_mm: tuple[_Millimetres, _Millimetres, _Millimetres]
    recipe: str
    features: dict[str, float] = {}
    scanner: dict[str, str] = {}
    codes: dict[FileName, tuple[float, ...]] = {}
    years: Annotated[float, Field(gt=0)] = 1.0
    expected: tuple[GoldenHorizon, ...]
    tolerance: Annotated[float, Field(gt=0, le=0.01)]


def first_error(error: ValidationError) -> str:
    """Where the first error is, and what. An arm's kind is pydantic's choice of a record, no place."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("network", "tabular"))
    return f"{where}: {first['msg']}" if where else first["msg"]
