"""Settings of a run: the grid that the inner folds choose a model from, on measured numbers or embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from training.toml_table import TomlTable

_MOST = 12
Penalizer = Annotated[float, Field(gt=0, le=1000)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Trees = Annotated[int, Field(ge=1, le=2000)]
Leaves = Annotated[int, Field(ge=2, le=64)]
Steps = Annotated[int, Field(ge=1, le=2000)]


class GridSettings(TomlTable):
    """What `[radiomics]` and `[encoder]` share."""

    models: tuple[Literal["cox", "boosting", "network"], ...] = Field(
        ("cox", "boosting", "network"), min_length=1, description="model types that the inner folds choose from"
    )
    penalizers: tuple[Penalizer, ...] = Field(
        (0.1, 0.3, 1.0, 3.0), min_length=1, max_length=_MOST, description="penalties of the Cox models, above 0"
    )
    l1_ratios: tuple[Ratio, ...] = Field(
        (0.0,),
        min_length=1,
        max_length=_MOST,
        description="kinds of penalty of the Cox models, each with each of penalizers: 0 ridge, all features stay; "
        "1 lasso, few do; between them elastic net",
    )
    boosting: tuple[tuple[Trees, Leaves], ...] = Field(
        ((20, 3), (40, 4), (100, 4)),
        min_length=1,
        max_length=_MOST,
        description="gradient boosting: pairs of a number of trees and the leaves of each",
    )
    steps: tuple[Steps, ...] = Field(
        (15, 30, 60), min_length=1, max_length=_MOST, description="optimiser steps of the small networks"
    )
