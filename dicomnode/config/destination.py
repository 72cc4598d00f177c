"""Where results go."""

from typing import Literal, get_args

from pydantic import Field

from dicomnode.config.fields import AeTitle, Port, Table

ObjectName = Literal["seg", "measurements", "risk", "summary"]
OBJECTS: tuple[ObjectName, ...] = get_args(ObjectName)
TransferSyntaxName = Literal["explicit-le", "implicit-le"]


class Destination(Table):
    """One PACS that gets results. Each destination has its own queue."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    ae_title: AeTitle = Field(description="give the peer's AE title: 1 to 16 plain characters")
    host: str = Field(min_length=1, description="give the peer's host name or address")
    port: Port = Field(description="give the peer's TCP port, 1 to 65535")
    calling_ae_title: AeTitle | None = Field(None, description="give the AE title to call with (default: the node's)")
    objects: tuple[ObjectName, ...] = Field(OBJECTS, description=f"give a list of some of: {', '.join(OBJECTS)}")
    refused_report: bool = Field(False, description="give true to send a short «not analysed: reason» report")
    transfer_syntax: TransferSyntaxName = Field("explicit-le", description="give 'explicit-le' or 'implicit-le'")
    concurrency: int = Field(1, ge=1, le=16, description="give the number of studies sent at once, 1 to 16")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for an answer")
    retry_first_s: float = Field(10, gt=0, description="give the seconds before the first new attempt")
    retry_longest_s: float = Field(1800, gt=0, description="give the longest pause between attempts, in seconds")
    retry_for_s: float = Field(172800, ge=0, description="give the seconds after which delivery counts as failed")
    commitment: bool = Field(False, description="give true to ask this peer for storage commitment")
    commitment_timeout_s: float = Field(
        3600, gt=0, description="give the seconds without a commitment report after which it is asked for again"
    )
