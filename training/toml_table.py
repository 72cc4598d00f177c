"""What the tables of a run's settings have in common."""

from pydantic import BaseModel, ConfigDict


class TomlTable(BaseModel):
    """A table of which every key is known and every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
