"""What stands in a bundle's `model.toml` and `golden.json`: validated records; an unknown key is an error."""

from pathlib import PurePath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dicomnode.analysis.backbones import BACKBONES
from dicomnode.analysis.findings import IntendedUse


def _plain_name(name: str) -> str:
    if PurePath(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} must be a file name in the bundle's own folder")
    return name


def _backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"{name!r} is not one of {', '.join(BACKBONES)}")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Calibration(_Record):
    """Recalibration of every hazard logit: slope * logit + intercept. The slope is above 0: no ranking turns round."""

    slope: Annotated[float, Field(gt=0)]
    intercept: float

    def apply(self, logits: Tensor) -> Tensor:
        """Calibrated hazard logits, same shape."""
        return self.slope * logits + self.intercept


class ArmEntry(_Record):
    """One arm: its encoder, how many heads, and the file with the weights of both."""

    backbone: Annotated[str, AfterValidator(_backbone)]
    heads: Annotated[int, Field(ge=1)]
    weights: FileName


class Population(_Record):
    """On whom the model was trained and evaluated."""

    description: str
    train_patients: int
    train_scans: int
    test_patients: int
    test_scans: int
    registry_sha256: Digest
    split_sha256: Digest


class Manifest(_Record):
    """`model.toml`. `files`: every other file of the bundle with its sha256; `edges_years`: the hazard's intervals."""

    format: Annotated[int, Field(ge=1, le=1)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    intended_use: IntendedUse
    horizons_years: Annotated[tuple[int, ...], Field(min_length=1)]
    edges_years: Annotated[tuple[float, ...], Field(min_length=2)]
    limits: tuple[str, ...]
    created_by: str
    preprocessing: dict[str, object]
    calibration: Calibration
    population: Population
    software: dict[str, str]
    files: dict[FileName, Digest]
    arms: Annotated[tuple[ArmEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_named(self) -> Self:
        needed = {"golden.json", "MODEL_CARD.md", *(arm.weights for arm in self.arms)}
        if missing := sorted(needed - set(self.files)):
            raise ValueError(f"files lacks the sha256 of {', '.join(missing)}")
        if list(self.horizons_years) != sorted(set(self.horizons_years)):
            raise ValueError(f"horizons_years {self.horizons_years} must rise")
        return self


class GoldenHorizon(_Record):
    """What the golden case must give at one horizon."""

    years: int
    probability: float
    lower: float
    upper: float


class Golden(_Record):
    """`golden.json`: a stored scan with its expected risk. `recipe` says in words where the scan comes from."""

    scan: FileName
    spacing_mm: tuple[float, float, float]
    recipe: str
    expected: tuple[GoldenHorizon, ...]
    tolerance: Annotated[float, Field(gt=0, le=0.01)]
