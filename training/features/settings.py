"""Settings of a run."""

from typing import Literal

from pydantic import Field

from training.toml_table import TomlTable


class FeatureSettings(TomlTable):
    """`[features]`."""

    source: Literal["registry", "volumes"] = Field(
        "registry",
        description="'registry': use the registry's features, measuring missing ones on the volumes (except a "
        "node's, which are cropped to the lungs); 'volumes': measure everything again",
    )
    radiomics: bool = Field(
        True, description="include PyRadiomics features (seconds per scan where they are measured here)"
    )
    radiomics_spacing_mm: float = Field(
        1.0,
        ge=0.5,
        le=6,
        description="resampling resolution of the radiomics, 0.5 to 6 mm; 1 in a node, 4 in a synthetic registry",
    )
    radiomics_preparation: Literal["pyradiomics", "ibsi"] = Field(
        "pyradiomics",
        description="how image and mask are prepared: by PyRadiomics, or as IBSI asks; the node must do the same",
    )
    workers: int = Field(0, ge=0, description="number of measuring processes; 0: one per core")
