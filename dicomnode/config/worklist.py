"""The modality worklist of the RIS: which orders are asked for, and how long an answer may take."""

import zoneinfo
from typing import ClassVar

from pydantic import Field, field_validator
from pydicom.uid import UID

from dicomnode.config.fields import AeTitle
from dicomnode.config.remote import RemoteTable
from dicomnode.network.find import MODALITY_WORKLIST


class WorklistTable(RemoteTable):
    """A worklist provider (Modality Worklist, PS3.4 annex K). Without this table no order is queried."""

    peer_name: ClassVar[str] = "worklist"

    modality: str = Field("CT", max_length=16, description="give the modality to query, such as 'CT', or '' for all")
    station_ae_titles: tuple[AeTitle, ...] = Field(
        (), description="give the scanners' AE titles as the worklist names them; an empty list queries all stations"
    )
    days_before: int = Field(1, ge=0, le=30, description="give the days before today to query, 0 to 30")
    days_after: int = Field(1, ge=0, le=30, description="give the days after today to query, 0 to 30")
    every_s: float = Field(300, ge=1, description="give the interval between queries of the whole list, in seconds")
    on_receipt: bool = Field(
        True, description="give true to query the order of a received study, false to use known orders only"
    )
    timeout_s: float = Field(10, gt=0, le=120, description="give the seconds to wait for a response, up to 120")
    most: int = Field(2000, ge=1, description="give the number of responses after which a query is cancelled")
    keep_days: int = Field(14, ge=1, description="give the days to remember an order after it was last listed")
    time_zone: str = Field("", description="give the RIS's time zone, such as 'Europe/Zurich'; '' for this machine's")

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value and value not in zoneinfo.available_timezones():
            raise ValueError("is not a time zone known on this machine")
        return value

    @property
    def services(self) -> tuple[UID, ...]:
        """The worklist's own query."""
        return (MODALITY_WORKLIST,)
