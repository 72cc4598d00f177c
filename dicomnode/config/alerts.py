"""When a person is told that something is wrong with the node itself: [alerts]."""

from pydantic import Field

from dicomnode.config.fields import ConfigTable


class AlertsTable(ConfigTable):
    """Marks and times. Who is told: the [[notify]] tables whose events have "alert"."""

    every_s: float = Field(60, gt=0, le=3600, description="give the interval between looks, in seconds, up to 3600")
    disk_free_gb: float = Field(5.0, ge=0, description="give the free disk space, in GB, to alert below; 0 for never")
    away_minutes: float = Field(
        10.0, ge=0, description="give the minutes after which a peer, the database or the workers count as away"
    )
    ask_peers: bool = Field(True, description="give false to send no C-ECHO to destinations and other peers")
    refused: int = Field(10, ge=0, description="give the refused associations to alert at; 0 for never")
    refused_minutes: float = Field(60.0, ge=5, description="give the minutes within which they are counted, at least 5")
    silent_hours: float = Field(
        96.0, ge=0, description="give the hours without a received image to alert after; 0 for never"
    )
    dead_letters: bool = Field(True, description="give false for no alert about objects that were not delivered")
