"""An HTTP server that takes results: how it is called, with which credentials, and whom we trust to be it.

Redirects are not followed, and proxies of the environment are not used: where patients' data goes is said by the
configuration alone.
"""

import os
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx

from dicomnode.errors import PeerError

#: Besides 5xx, what a server says of the moment: time-out, too early, too many requests (RFC 9110, 8470, 6585).
PASSING_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True)
class HttpServer:
    """A server that takes our objects.

    Attributes:
        url: the service's root.
        user, password: basic authentication. `token`: bearer token. Password and token are named by where they stand:
            "env:NAME" or "file:/path"; they are read for each delivery, so that they can be renewed.
        ca_file: certificates of the authorities that are trusted; "" for the system's.
    """

    name: str
    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: str = ""
    timeout_s: float = 30.0

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"

    def client(self, trusted: ssl.SSLContext | None = None) -> httpx.Client:
        """Return a client for one delivery, or with what `trusted` has made before.

        Raises:
            PeerError: a secret or `ca_file` cannot be read.
        """
        headers = {"Authorization": f"Bearer {self.secret(self.token)}"} if self.token else {}
        auth = httpx.BasicAuth(self.user, self.secret(self.password)) if self.user else None
        verify = trusted or self.trusted()
        return httpx.Client(
            verify=verify, auth=auth, headers=headers, timeout=self.timeout_s, follow_redirects=False, trust_env=False
        )

    def trusted(self) -> ssl.SSLContext:
        """Return whom we trust to be it; this takes a while. Raises PeerError: `ca_file` cannot be read."""
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise PeerError(f"{self}: ca_file {self.ca_file} cannot be read ({type(error).__name__})") from error

    def secret(self, where: str) -> str:
        """Return the secret that stands at "env:NAME" or "file:/path". Raises PeerError: it is not there."""
        kind, _, place = where.partition(":")
        if kind == "env":
            value = os.environ.get(place, "")
        else:
            try:
                value = Path(place).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PeerError(
                    f"{self}: {place} cannot be read ({type(error).__name__}): it must hold the secret"
                ) from error
        if not value.strip():
            raise PeerError(f"{self}: {where} is empty: it must hold the password or token")
        return value.strip()


def phrase(status: int) -> str:
    """Return the standard's word for a status: the server's own is text that it may choose."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "not a status of HTTP"
