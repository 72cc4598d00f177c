"""Where results go: one class for each kind of destination, told apart by the key `kind`.

A new kind is a class here, in `Destination`, and an entry in `dicomnode.outbound.destinations.KINDS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.config.fields import ConfigTable
from dicomnode.config.remote import RemoteTable, TcpTable
from dicomnode.network.association import Peer
from dicomnode.network.contexts import STORAGE_COMMITMENT

ObjectName = Literal["seg", "attenuation", "measurements", "risk", "summary", "pdf"]
OBJECTS: tuple[ObjectName, ...] = get_args(ObjectName)
#: What a destination gets that does not say. Attenuation maps only where [results] has them made.
USUAL_OBJECTS: tuple[ObjectName, ...] = ("seg", "attenuation", "measurements", "risk", "summary")
#: What a report for a system that speaks no DICOM holds.
PartName = Literal["measurements", "risk", "pdf"]
PARTS: tuple[PartName, ...] = get_args(PartName)
SegmentationName = Literal["binary", "labelmap"]
TransferSyntaxName = Literal["explicit-le", "implicit-le", "deflated-le"]

#: Their UIDs.
SYNTAXES: dict[TransferSyntaxName, str] = {
    "explicit-le": ExplicitVRLittleEndian,
    "implicit-le": ImplicitVRLittleEndian,
    "deflated-le": DeflatedExplicitVRLittleEndian,
}
_DEFAULT_KIND: Literal["dicom"] = "dicom"
_STANDS_AT = r"^$|^env:[A-Za-z_][A-Za-z0-9_]*$|^file:.+$"
_PLACES = "'env:NAME' or 'file:path'"
_URL = r"^https?://[^@\s?#]+$"
_HEADER = "give up to 100 printable characters, as the receiver knows them"
#: A name in the header of a message.
HeaderText = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,100}$")]
Server = TypeVar("Server")


class DestinationTable(ConfigTable):
    """One PACS or archive that gets results: what all kinds have in common. Each has its own queue."""

    #: Whether destinations of this kind can be asked for storage commitment.
    supports_commitment: ClassVar[bool] = False
    #: Whether they take DICOM objects, and received images with them; else they get each result as one report.
    takes_objects: ClassVar[bool] = True

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    kind: str
    objects: tuple[ObjectName, ...] = Field(USUAL_OBJECTS, description=f"give a list of some of: {', '.join(OBJECTS)}")
    segmentation: SegmentationName = Field(
        "binary", description="give 'binary', or 'labelmap' for a PACS that takes it"
    )
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

    @field_validator("segmentation")
    @classmethod
    def _segmenting(cls, value: SegmentationName) -> SegmentationName:
        if value != "binary" and not cls.takes_objects:
            raise ValueError("this kind of destination takes no segmentation: remove it")
        return value

    @field_validator("reject_old")
    @classmethod
    def _rejecting(cls, value: bool) -> bool:
        if value and not cls.takes_objects:
            raise ValueError("this kind of destination takes no rejection note, and replaces reports: leave it false")
        return value

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

    @property
    def audited(self) -> tuple[str, str]:
        """By what the audit trail knows it, and its host: an AE title or an address."""
        return self.name, ""

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
    transfer_syntax: TransferSyntaxName = Field(
        "explicit-le", description="give 'explicit-le', 'implicit-le' or 'deflated-le'"
    )

    def resolved(self, folder: Path) -> Self:
        """Return the same with its files' paths made absolute against `folder`."""
        return self.files_resolved(folder)

    @property
    def services(self) -> tuple[UID, ...]:
        """Storage commitment where it is asked for; what may be stored shows with the first object."""
        return (STORAGE_COMMITMENT,) if self.commitment else ()

    @property
    def audited(self) -> tuple[str, str]:
        """By what the audit trail knows it, and its host."""
        return self.ae_title, self.host

    @property
    def peer(self) -> Peer:
        """How it is reached."""
        return replace(super().peer, name=self.name, preferred_syntax=SYNTAXES[self.transfer_syntax])


class HttpDestinationTable(DestinationTable):
    """A server that is reached by HTTP."""

    url: str = Field(pattern=_URL, description="give the service's root")
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

    @property
    def audited(self) -> tuple[str, str]:
        """By what the audit trail knows it, and its host."""
        return self.url, urlsplit(self.url).hostname or ""

    def server(self, of: Callable[..., Server]) -> Server:
        """Return how it is reached, as a record of that class."""
        return of(
            name=self.name,
            url=self.url,
            user=self.user,
            password=self.password,
            token=self.token,
            ca_file=self.ca_file,
            timeout_s=self.timeout_s,
        )


class StowDestinationTable(HttpDestinationTable):
    """STOW-RS."""

    kind: Literal["stow"] = Field("stow", description="STOW-RS to url")
    url: str = Field(
        pattern=_URL,
        description="give the DICOMweb service's root, such as 'https://pacs.example/dicom-web', without credentials",
    )


class ReportDestinationTable(DestinationTable):
    """A system that speaks no DICOM, and gets each result as one report. `objects`: what that holds."""

    takes_objects: ClassVar[bool] = False

    objects: tuple[PartName, ...] = Field(  # type: ignore[assignment, unused-ignore]
        PARTS, description=f"give a list of some of: {', '.join(PARTS)}"
    )


class FhirDestinationTable(ReportDestinationTable, HttpDestinationTable):  # type: ignore[misc, unused-ignore]
    """A FHIR R4 server."""

    kind: Literal["fhir"] = Field("fhir", description="a FHIR transaction to url")
    url: str = Field(
        pattern=_URL,
        description="give the FHIR R4 server's base, such as 'https://ehr.example/fhir', without credentials",
    )
    patient_systems: Mapping[str, str] = Field(
        {},
        description="give the URI of a Patient ID's system by its issuer, such as { '' = 'urn:oid:1.2.3' }; '' is for "
        "IDs without an issuer",
    )


class Hl7DestinationTable(TcpTable, ReportDestinationTable):
    """A receiver of HL7 version 2 messages."""

    kind: Literal["hl7"] = Field("hl7", description="ORU^R01 by MLLP to host and port")
    sending_application: HeaderText = Field("DICOMNODE", description=_HEADER)
    sending_facility: HeaderText = Field("", description=_HEADER)
    receiving_application: HeaderText = Field("", description=_HEADER)
    receiving_facility: HeaderText = Field("", description=_HEADER)
    processing_id: Literal["P", "T", "D"] = Field("P", description="give 'P' (production), 'T' (training) or 'D'")
    assigning_authority: HeaderText = Field("", description="give the issuer of Patient IDs whose images name none")

    def resolved(self, folder: Path) -> Self:
        """Return the same with its files' paths made absolute against `folder`."""
        return self.files_resolved(folder)

    @property
    def audited(self) -> tuple[str, str]:
        """By what the audit trail knows it, and its host."""
        return f"{self.host}:{self.port}", self.host


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _kind_of(value: Any) -> str:
    """Return the kind that a table of the file, or a record, is of."""
    is_table = isinstance(value, dict)
    return str(value.get("kind", _DEFAULT_KIND) if is_table else getattr(value, "kind", _DEFAULT_KIND))


Destination = Annotated[
    Annotated[DicomDestinationTable, Tag("dicom")]
    | Annotated[StowDestinationTable, Tag("stow")]
    | Annotated[FhirDestinationTable, Tag("fhir")]
    | Annotated[Hl7DestinationTable, Tag("hl7")],
    Discriminator(_kind_of),
]
