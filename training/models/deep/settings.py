"""The table `[deep]` of a run's settings: validated, an unknown key is an error."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from dicomnode.analysis.risk.backbones import BACKBONES
from dicomnode.analysis.risk.preprocess import Spec
from dicomnode.errors import UsageError
from training.models.deep.augment import Augmentation
from training.models.deep.pretrained import PretrainedFile

#: 1.5 mm pixels over 312 x 384 mm, 24 slices: full size, for a GPU.
FULL_SPEC = Spec(spacing_mm=1.5, canvas=(208, 256), slices=24)
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


class DeepSettings(BaseModel):
    """How the networks are trained.

    Attributes:
        spec: how the input is made; all keys of `preprocess.Spec`.
        epochs: at most; `patience` epochs without a better likelihood on the inner validation patients end it sooner.
        refit: fit once more, on all training patients, for as many epochs as were best on the validation patients, who
            are else lost to the network: with three inner folds a third.
        batch: scans of one optimiser step, over all processes.
        accumulate: parts that a step's scans are worked in, one after the other: less memory, same gradient but for
            batch norms, which see the part.
        learning_rates: by backbone, instead of `learning_rate`: transformers want a lower one.
        prior: whether the latest prior scan is a second input; its slices are encoded too.
        pretrained: by backbone, a local file with ImageNet weights; a backbone without one starts at random.
        precision: of the forward pass; "auto": bfloat16 (float16 on older GPUs) on CUDA, and on a CPU that has
            instructions for it (there it gains, see docs/evidence/benchmarks-training.md), else float32.
        device: "auto": cuda where there is one.
        processes: how many share each step (torchrun on this machine), one a GPU.
        workers: processes that prepare scans; 0: as many as this process may use cores.
        cache: folder of prepared scans; empty: `prepared` in the registry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    spec: Spec = FULL_SPEC
    epochs: Count = 40
    patience: Count = 8
    refit: bool = False
    batch: Count = 16
    accumulate: Count = 1
    learning_rate: Rate = 3e-4
    learning_rates: dict[str, Rate] = {}
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.02
    prior: bool = Field(False, validation_alias=AliasChoices("prior", "earlier"))
    pretrained: dict[str, PretrainedFile] = {}
    augmentation: Augmentation = Augmentation()
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Count = 1
    workers: Annotated[int, Field(ge=0)] = 0
    cache: Path | None = None

    @field_validator("spec", mode="before")
    @classmethod
    def _read_spec(cls, value: object) -> object:
        return Spec.from_dict({**FULL_SPEC.to_dict(), **value}) if isinstance(value, Mapping) else value

    @field_serializer("spec")
    def _write_spec(self, spec: Spec) -> dict[str, float | int | list[int] | list[float]]:
        return spec.to_dict()

    @field_validator("cache", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("pretrained", "learning_rates")
    @classmethod
    def _known(cls, value: dict[str, object]) -> dict[str, object]:
        if odd := sorted(set(value) - set(BACKBONES)):
            raise ValueError(f"unknown backbone {', '.join(odd)}: use {', '.join(BACKBONES)}")
        return value

    @property
    def cores(self) -> int:
        """How many processes prepare scans."""
        return self.workers or len(os.sched_getaffinity(0))


def read(table: Mapping[str, object]) -> DeepSettings:
    """Return the settings in a table of run.toml.

    Raises:
        UsageError: a key is unknown or a value does not fit.
    """
    try:
        return DeepSettings.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("deep", *(str(part) for part in first["loc"])))
        raise UsageError(f"{where}: {first['msg']} (found {first['input']!r})") from None
