"""Settings of a run."""

from pydantic import Field

from training.toml_table import TomlTable


class ExplanationSettings(TomlTable):
    """`[explanation]`: what the arms look at, in the report."""

    scans: int = Field(
        60,
        ge=0,
        le=2000,
        description="scans that each arm is explained on, one a patient, 0 to 2000; 0: no explanation",
    )
    pictures: int = Field(
        2,
        ge=0,
        le=20,
        description="scans per network shown with their heat map in report.html, 0 to 20; they are images",
    )
