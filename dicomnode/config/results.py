"""What is made of an analysis beside the objects that every result has."""

from pydantic import Field

from dicomnode.config.fields import ConfigTable


class ResultsTable(ConfigTable):
    """Optional objects. A destination gets those that its `objects` list."""

    attenuation_maps: bool = Field(
        False, description="give true for a second segmentation with the high- and low-attenuation areas, else false"
    )
