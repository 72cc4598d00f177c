"""Settings of a run."""

from typing import Literal

from pydantic import Field

from dicomnode.analysis.risk.tabular import BATCH_PARTS
from training.toml_table import TomlTable


class RadiomicsSettings(TomlTable):
    """`[radiomics]`: the arm on measured numbers."""

    families: tuple[Literal["quantities", "radiomics", "change", "covariates"], ...] = Field(
        ("quantities", "radiomics", "change"),
        min_length=1,
        description="which features; with 'covariates' (age, sex, lung function) the node must be given them too",
    )
    models: tuple[Literal["cox", "boosting", "network"], ...] = Field(
        ("cox", "boosting", "network"), min_length=1, description="kinds of model that the inner folds choose from"
    )
    correlation: float = Field(
        0.95, gt=0, le=1, description="of two features with a higher absolute correlation, one is left out; 1: none"
    )
    stability: float = Field(
        0.3, ge=0, lt=1, description="features whose repeatability (ICC) over a patient's scans is lower are left out"
    )
    combat: tuple[Literal["manufacturer", "model", "kernel_family"], ...] = Field(
        (), description=f"ComBat by these ({', '.join(BATCH_PARTS)}); empty: none"
    )
