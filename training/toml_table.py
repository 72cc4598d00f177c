"""What the tables of a run's settings have in common."""

from pydantic import BaseModel, ConfigDict


class TomlTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
