"""What the tables of the configuration have in common."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dicomnode.network.identities import identity


def ae_title(value: str) -> str:
    """Return an AE title without the blanks around it; they may stand within (PS3.5 6.2).

    Raises:
        ValueError: it has not 1 to 16 characters of the default repertoire, or a backslash or control character.
    """
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("not an AE title")
    return value.strip()


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"not a regular expression: {e}") from None
    return value


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _identity(value: str) -> str:
    identity(value)
    return value


AeTitle = Annotated[str, AfterValidator(ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = tuple[Pattern, ...]
PATTERNS = "regular expressions in lower case, such as ['lung', 'thin']"

#: A file; relative paths are resolved against the configuration's folder.
File = Annotated[Path, BeforeValidator(_path)]
#: What a certificate has to show, as `dicomnode tls show` prints it.
Identities = tuple[Annotated[str, AfterValidator(_identity)], ...]
IDENTITIES = "a list such as ['sha256:9F:3A:…'], ['DNS:ct1.hospital.example'] or ['CN:CT 1'] (see `dicomnode tls show`)"
Network = Annotated[str, AfterValidator(_network)]


class ConfigTable(BaseModel):
    """A table of the file: its keys and no others, of exactly their types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
