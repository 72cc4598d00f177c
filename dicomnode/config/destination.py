"""Where results go: one class for each kind of destination, told apart by the key `kind`.

A new kind is a class here, in `Destination`, and an entry in `dicomnode.outbound.destinations.KINDS`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.config.fields import ConfigTable
from dicomnode.config.remote import RemoteTable
from dicomnode.network.association import Peer
from dicomnode.network.contexts import STORAGE_COMMITMENT

ObjectName = Literal["seg", "measurements", "risk", "summary"]
OBJECTS: tuple[ObjectName, ...] = get_args(ObjectName)
TransferSyntaxName = Literal["explicit-le", "implicit-le"]

_SYNTAXES: dict[TransferSyntaxName, str] = {
    "explicit-le": ExplicitVRLittleEndian,
    "implicit-le": ImplicitVRLittleEndian,
}
_DEFAULT_KIND: Literal["dicom"] = "dicom"
_STANDS_AT = r"^$|^env:[A-Za-z_][A-Za-z0-9_]*$|^file:.+$"
_PLACES = "'env:NAME' or 'file:path'"


class DestinationTable(ConfigTable):
    """One PACS or archive that gets results: what all kinds have in common. Each has its own queue."""

    #: Whether destinations of this kind can be asked for storage commitment.
    supports_commitment: ClassVar[bool] = False

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    kind: str
    objects: tuple[ObjectName, ...] = Field(OBJECTS, description=f"give a list of some of: {', '.join(OBJECTS)}")
    refused_report: bool = Field(False, description="give true to send a short «not analysed: reason» report")
    reject_old: bool = Field(
        False, description="give true to reject replaced results by a Key Object rejection note (IHE IOCM)"
    )
    concurrency: int = Field(1, ge=1, le=16, description="give the number of studies sent at once, 1 to 16")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for a response")
    retry_first_s: float = Field(10, gt=0, description="give the seconds before the first retry")
    retry_longest_s: float = Field(1800, gt=0, description="give the longest pause between attempts, in seconds")
    retry_for_s: float = Field(172800, ge=0, description="give the seconds after which delivery counts as failed")
    commitment: bool = Field(False, description="give true to ask this peer for storage commitment")
    commitment_timeout_s: float = Field(
        3600, gt=0, description="give the seconds to wait for a commitment report before requesting it again"
    )

    @field_validator("commitment")
    @classmethod
    def _committing(cls, value: bool) -> bool:
        if value and not cls.supports_commitment:
            raise ValueError("this kind of destination has no storage commitment: leave it false")
        return value

    @property
    def peer(self) -> Peer | None:
        """The DICOM peer that it is: it may be queried, and C-MOVE may send to it. None for what is no DICOM peer."""
        return None

    def called_as(self, _ae_title: str) -> Self:
        """Return the same, called under our AE title where its kind calls by AE titles and it names none of its own."""
        return self

    def resolved(self, _folder: Path) -> Self:
        """Return the same with its files' paths made absolute against the configuration's folder."""
        return self


class DicomDestinationTable(RemoteTable, DestinationTable):
    """C-STORE."""

    supports_commitment: ClassVar[bool] = True

    kind: Literal["dicom"] = Field(_DEFAULT_KIND, description="C-STORE to ae_title, host and port")
    transfer_syntax: TransferSyntaxName = Field("explicit-le", description="give 'explicit-le' or 'implicit-le'")

    def resolved(self, folder: Path) -> Self:
        """Return the same with its files' paths made absolute against `folder`."""
        return self.files_resolved(folder)

    @property
    def services(self) -> tuple[UID, ...]:
        """Storage commitment where it is asked for; what may be stored shows with the first object."""
        return (STORAGE_COMMITMENT,) if self.commitment else ()

    @property
    def peer(self) -> Peer:
        """How it is reached."""
        return replace(super().peer, name=self.name, preferred_syntax=_SYNTAXES[self.transfer_syntax])


class StowDestinationTable(DestinationTable):
    """STOW-RS."""

    kind: Literal["stow"] = Field("stow", description="STOW-RS to url")
    url: str = Field(
        pattern=r"^https?://[^@\s?#]+$",
        description="give the DICOMweb service's root, such as 'https://pacs.example/dicom-web', without credentials",
    )
    user: str = Field("", description="give the user name for basic authentication; the url must begin with https://")
    password: str = Field(
        "", validate_default=True, pattern=_STANDS_AT, description=f"give the place of the password: {_PLACES}"
    )
    token: str = Field(
        "", validate_default=True, pattern=_STANDS_AT, description=f"give the place of the bearer token: {_PLACES}"
    )
    ca_file: str = Field("", description="give a file of trusted CA certificates, or '' for the system's")

    @field_validator("password", "token")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        if value and not _is_private(info.data.get("url", "")):
            raise ValueError("would be sent unencrypted: the url must begin with https://")
        if info.field_name == "password" and info.data.get("user") and not value:
            raise ValueError("is missing where user is given")
        return value

    @field_validator("token")
    @classmethod
    def _one_way_in(cls, value: str, info: ValidationInfo) -> str:
        user, password = bool(info.data.get("user")), bool(info.data.get("password"))
        if user != password or (value and user):
            raise ValueError("give either user and password, or a token")
        return value

    def resolved(self, folder: Path) -> Self:
        """Return the same with its files' paths made absolute against `folder`."""
        files = {
            key: f"file:{folder / value.removeprefix('file:')}"
            for key, value in (("password", self.password), ("token", self.token))
            if value.startswith("file:")
        }
        if self.ca_file:
            files["ca_file"] = str(folder / self.ca_file)
        return self.model_copy(update=files)


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _kind_of(value: Any) -> str:
    """Return the kind that a table of the file, or a record, is of."""
    is_table = isinstance(value, dict)
    return str(value.get("kind", _DEFAULT_KIND) if is_table else getattr(value, "kind", _DEFAULT_KIND))


Destination = Annotated[
    Annotated[DicomDestinationTable, Tag("dicom")] | Annotated[StowDestinationTable, Tag("stow")],
    Discriminator(_kind_of),
]
