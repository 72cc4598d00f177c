"""Settings of a run."""

from typing import Literal

from pydantic import Field

from dicomnode.analysis.risk.tabular import BATCH_PARTS
from training.models.grid_settings import GridSettings


class RadiomicsSettings(GridSettings):
    """`[radiomics]`: the arm on measured numbers."""

    families: tuple[Literal["quantities", "radiomics", "change", "covariates"], ...] = Field(
        ("quantities", "radiomics", "change"),
        min_length=1,
        description="feature families; with 'covariates' (age, sex, lung function), the node needs them too",
    )
    correlation: float = Field(
        0.95, gt=0, le=1, description="drop one of two features whose absolute correlation is higher; 1: keep all"
    )
    stability: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="drop features whose repeatability (ICC over repeated scans) is lower; 0: keep all",
    )
    stability_days: int = Field(
        90,
        ge=0,
        le=36500,
        description="days within which scans of a patient repeat one another; 0: all of them do, progression or not",
    )
    combat: tuple[Literal["manufacturer", "model", "kernel_family"], ...] = Field(
        (), description=f"batch variables of ComBat ({', '.join(BATCH_PARTS)}); empty: no ComBat"
    )
