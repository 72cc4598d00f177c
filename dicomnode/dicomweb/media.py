"""Media types that a client accepts (RFC 9110 12.5.1, PS3.18 8.7): in the order of its preference."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
RELATED: Final = "multipart/related"
OCTETS: Final = "application/octet-stream"
ANY: Final = "*/*"
#: Of one header.
_MOST_RANGES = 32
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)')
# White space behind "=" is taken once and for all (*+): an empty value would share it out in exponentially many ways.
_RANGE = re.compile(r'\s*([\w.+*-]+/[\w.+*-]+)((?:\s*;\s*[\w-]+\s*=\s*+(?:"(?:[^"\\]|\\.)*"|[^;,\s"]*))*)\s*(?:,|$)')


@dataclass(frozen=True)
class MediaRange:
    """One media type.

    Attributes:
        name: "image/jpeg"; "multipart/related" where parts are wanted.
        inner: of the parts; "" where the client leaves it open.
        transfer_syntax: "" where it is not said, "*" for any.
        parameters: all, with their names in small letters.
    """

    name: str
    inner: str = ""
    transfer_syntax: str = ""
    parameters: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def kind(self) -> str:
        """What is wanted, in parts or alone; ANY where that is left open."""
        return (self.inner or ANY) if self.name == RELATED else self.name

    @property
    def in_parts(self) -> bool:
        """Whether parts are wanted, or nothing is said against them."""
        return self.name in (RELATED, ANY, "multipart/*")


def accepted(given: Iterable[str]) -> list[MediaRange]:
    """Return what `Accept` headers, or the parameter `accept`, ask for; everything where they say nothing.

    What is no media type is left out, and of equal quality the first comes first.
    """
    found = [one for text in given for one in _ranges(text)][:_MOST_RANGES]
    wanted = [(quality, one) for quality, one in found if quality > 0]
    if not found:
        return [MediaRange(ANY)]
    return [one for _, one in sorted(wanted, key=lambda pair: -pair[0])]


def content_type(text: str) -> MediaRange:
    """Return the media type of a body."""
    return next((one for _, one in _ranges(text)), MediaRange(""))


def _ranges(text: str) -> Iterator[tuple[float, MediaRange]]:
    at = 0
    while at < len(text):
        found = _RANGE.match(text, at)
        if found is None:
            behind = text.find(",", at)
            at = len(text) if behind < 0 else behind + 1
            continue
        at = found.end()
        given = {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(found[2])}
        one = MediaRange(
            found[1].lower(), given.get("type", "").lower(), given.get("transfer-syntax", "").strip(), given
        )
        yield _quality(given.get("q", "1")), one


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
