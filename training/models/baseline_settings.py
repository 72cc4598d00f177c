"""Settings of the baselines, and which features each of them takes."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from dicomnode.errors import UsageError
from training.toml_table import TomlTable

#: What stands for a volume, the first that there is: the lungs', a lesion's as PyRadiomics measures it, %HAA.
_VOLUMES = (
    re.compile(r"quantities\.lungs\.volume_ml"),
    re.compile(r".*shape_(Mesh|Voxel)?Volume", re.IGNORECASE),
    re.compile(r"quantities\.lungs\.haa_percent"),
)


class BaselineSettings(TomlTable):
    """`[baselines]`: simple models to compare the arms with."""

    fit: tuple[Literal["clinical", "volume"], ...] = Field(
        ("clinical", "volume"),
        description="baselines to fit: clinical (all covariates), volume (one quantity); [] for none",
    )
    quantity: str = Field(
        "",
        description="the feature that the baseline 'volume' uses; '' for the lungs' volume, else a PyRadiomics volume, "
        "else the lungs' %HAA",
    )


def columns_of(name: str, features: Sequence[str], quantity: str) -> tuple[str, ...]:
    """Return which of the `features` a baseline is fitted to; none where the registry has nothing for it.

    Args:
        name: "clinical" or "volume".
        features: names of all that there are.
        quantity: of the settings, for "volume".

    Raises:
        UsageError: the quantity that the settings name is not there.
    """
    if name == "clinical":
        return tuple(f for f in features if f.startswith("covariates."))
    if quantity:
        if quantity not in features:
            raise UsageError(f"baselines.quantity: there is no feature {quantity!r}: see features.parquet of the run")
        return (quantity,)
    for pattern in _VOLUMES:
        if found := [f for f in features if pattern.fullmatch(f)]:
            return (min(found),)
    return ()
