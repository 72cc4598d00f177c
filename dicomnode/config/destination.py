"""Where results go."""

from pathlib import Path
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticCustomError

from dicomnode.config.fields import AeTitle, ConfigTable, Port

ObjectName = Literal["seg", "measurements", "risk", "summary"]
OBJECTS: tuple[ObjectName, ...] = get_args(ObjectName)
TransferSyntaxName = Literal["explicit-le", "implicit-le"]


_STANDS_AT = r"^$|^env:[A-Za-z_][A-Za-z0-9_]*$|^file:.+$"
_PLACES = "'env:NAME' or 'file:path'"
_OF_KIND = {"ae_title": "dicom", "host": "dicom", "port": "dicom", "url": "stow"}


class DestinationTable(ConfigTable):
    """One PACS or archive that gets results. Each destination has its own queue."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    kind: Literal["dicom", "stow"] = Field(
        "dicom", description="give 'dicom' (C-STORE to ae_title, host and port) or 'stow' (STOW-RS to url)"
    )
    ae_title: AeTitle = Field(
        "", validate_default=True, description="give the peer's AE title: 1 to 16 plain characters"
    )
    host: str = Field("", min_length=1, validate_default=True, description="give the peer's host name or address")
    port: Port = Field(0, validate_default=True, description="give the peer's TCP port, 1 to 65535")
    url: str = Field(
        "",
        pattern=r"^https?://[^@\s?#]+$",
        validate_default=True,
        description="give the DICOMweb service's root, such as 'https://pacs.example/dicom-web', without credentials",
    )
    user: str = Field("", description="give the user name for basic authentication; the url must begin with https://")
    password: str = Field("", pattern=_STANDS_AT, description=f"give where the password stands: {_PLACES}")
    token: str = Field(
        "", validate_default=True, pattern=_STANDS_AT, description=f"give where the bearer token stands: {_PLACES}"
    )
    ca_file: str = Field(
        "", description="give the file with the certificates of the authorities to trust, or '' for the system's"
    )
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

    @field_validator(*_OF_KIND, mode="wrap")
    @classmethod
    def _of_kind(cls, value: str | int, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> str | int:
        """Check that the address of its kind is there, and that the other kind's is not."""
        kind, given = info.data.get("kind", "dicom"), value not in ("", 0)
        if _OF_KIND[info.field_name or ""] != kind:
            if given:
                raise ValueError(f"is not for kind = {kind!r}: take it out, or change the kind")
            return value
        if not given:
            raise PydanticCustomError("missing", "Field required")
        return validate(value)

    @field_validator("commitment")
    @classmethod
    def _committing(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("kind") == "stow":
            raise ValueError("DICOMweb knows no storage commitment")
        return value

    @field_validator("password", "token")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        if value and not _is_private(info.data.get("url", "")):
            raise ValueError("would go over the network in the clear: the url must begin with https://")
        return value

    @field_validator("token")
    @classmethod
    def _one_way_in(cls, value: str, info: ValidationInfo) -> str:
        user, password = bool(info.data.get("user")), bool(info.data.get("password"))
        if user != password or (value and user):
            raise ValueError("user and password belong together, and exclude a token")
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
