"""A patient's prior scans: which ones are fetched, from where, when, and how long a study waits for them."""

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from pydicom.uid import UID

from dicomnode.analysis.series import selection_rules
from dicomnode.config.fields import PATTERNS, Patterns
from dicomnode.config.remote import RemoteTable
from dicomnode.network.find import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class PriorsTable(RemoteTable):
    """The PACS that holds prior scans. Without this table none is fetched."""

    peer_name: ClassVar[str] = "priors"

    retrieve: Literal["move", "get"] = Field(
        "move", description="give 'move' (the PACS must know this node's AE title, host and port) or 'get'"
    )
    most: int = Field(3, ge=1, le=50, description="give the number of prior scans to fetch, the latest first")
    years: float = Field(10, gt=0, le=100, description="give the years to look back")
    modalities: tuple[str, ...] = Field(("CT",), min_length=1, description="give a list such as ['CT']")
    body_parts: Patterns = Field(
        selection_rules.CHEST_WORDS,
        description=f"give words for the chest in descriptions and body part, {PATTERNS}, or omit the key",
    )
    description_exclude: Patterns = Field((), description=f"give a list of patterns for descriptions, {PATTERNS}")
    on_receipt: bool = Field(True, description="give true to fetch the priors of received studies")
    prefetch: bool = Field(True, description="give true to prefetch the priors of patients on the worklist")
    quiet_hours: str = Field(
        "",
        description="give the hours for prefetching and `dicomnode retrieve`, such as '19:00-06:00', or '' for all",
    )
    studies_per_hour: int = Field(60, ge=1, description="give the largest number of studies fetched in an hour")
    wait_s: float = Field(600, ge=0, description="give the seconds for which a study waits for its priors")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for a response of the PACS")
    retry_for_s: float = Field(86400, ge=0, description="give the seconds after which a failed fetch is not retried")
    send_results: bool = Field(False, description="give true to send the results of fetched priors too, else false")

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        if value and _HOURS.fullmatch(value) is None:
            raise ValueError("is not a time range")
        return value

    @property
    def services(self) -> tuple[UID, ...]:
        """Query, and the way of retrieval that is configured."""
        return (STUDY_ROOT_FIND, STUDY_ROOT_MOVE if self.retrieve == "move" else STUDY_ROOT_GET)
