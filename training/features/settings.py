"""Settings of a run."""

from typing import Literal

from pydantic import Field

from training.toml_table import TomlTable


class FeatureSettings(TomlTable):
    """`[features]`."""

    source: Literal["registry", "volumes"] = Field(
        "registry",
        description="'registry': what the registry has, and the rest from the volumes (not from a node's, cut "
        "to the lungs); 'volumes': all measured anew",
    )
    radiomics: bool = Field(True, description="with PyRadiomics features (seconds a scan where they are measured here)")
    radiomics_spacing_mm: float = Field(
        1.0,
        ge=0.5,
        le=6,
        description="resolution of the radiomics, 0.5 to 6 mm; the node's is 1, a synthetic registry's 4",
    )
    workers: int = Field(0, ge=0, description="processes that measure; 0: one a core")
