"""An OpenID provider as the configuration names it: apart from its client, so that no other process loads that."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class OpenIdProvider:
    """A provider, and what it knows us as.

    Attributes:
        issuer: its URL, exactly as it writes it itself.
        secret: "env:NAME" or "file:/path"; "" for a client without one.
        redirect_uri: where it sends browsers back to.
        ask_again: whether it shall ask for the password though its user is logged in there.
        ca_file: certificates of the authorities that are trusted; "" for the system's.
    """

    issuer: str
    client_id: str
    secret: str
    redirect_uri: str
    scopes: tuple[str, ...]
    ask_again: bool = False
    ca_file: str = ""
    timeout_s: float = 10.0


def is_private(url: str) -> bool:
    """Whether what is asked there is read by nobody else: HTTPS, or this machine."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1"))
    )
