"""What is kept of each scan for training."""

from pathlib import Path

from pydantic import Field

from dicomnode.config.fields import ConfigTable


class RegistryTable(ConfigTable):
    """The registry: pseudonymised features, and where wanted the lungs' voxels, of each analysed scan."""

    record: bool = Field(False, description="give true to keep each analysed scan's numbers, else false")
    volumes: bool = Field(False, description="give true to keep the lungs' voxels too (about 30 MB a scan), else false")
    folder: Path = Field(
        Path("var/registry"), description="give the folder for the registry's key and volumes; it never leaves the node"
    )
    disease: str = Field(
        "", description="give the disease of the patients whose scans are kept, for reports and bundles; '': not stated"
    )
    site: str = Field("", description="give the hospital's name, for reports and bundles; '': not stated")
    monitor: str = Field(
        "20 4 * * *",
        description="give when recorded scans are looked through for drift, as cron's five fields (UTC), '' for never",
    )


class RetrainingTable(ConfigTable):
    """A scheduled retraining, which ends at the gate and never promotes."""

    schedule: str = Field(
        "", description="give '' for never, or cron's five fields (minute hour day month weekday; UTC): '0 2 * * sun'"
    )
    settings: Path = Field(Path("training.toml"), description="give the path of a run's settings (training run)")
    folder: Path = Field(Path("var/retraining"), description="give the folder for exports and runs")
