"""Settings of a run."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from training.models.grid_settings import GridSettings


class EncoderSettings(GridSettings):
    """`[encoder]`: the arm on embeddings of a 3-D encoder that somebody else has made."""

    path: Path | None = Field(None, description="TorchScript file of the encoder")
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = Field(
        "", description="SHA-256 of the file: sha256sum FILE; nothing of it is loaded before this is compared"
    )
    licence: str = Field("", max_length=200, description="licence of the file, as its makers state it")
    redistribute: bool = Field(
        False, description="true only if the licence lets a bundle hold the file; else the node gets it by itself"
    )
    #: Checked by `dicomnode.analysis.risk.encoder.EncoderSpec`, whose table it is.
    spec: dict[str, object] = Field({}, description="the encoder's input: spacing_mm, size, window_hu, values, axes, …")
    models: tuple[Literal["cox", "boosting", "network"], ...] = Field(
        ("cox",), min_length=1, description="model types on the embedding that the inner folds choose from"
    )
    correlation: float = Field(0.95, gt=0, le=1, description="as radiomics.correlation")
    stability: float = Field(0.0, ge=0, lt=1, description="as radiomics.stability")
    cache: Path | None = Field(None, description="folder of embeddings; default: `embeddings` in the registry")
