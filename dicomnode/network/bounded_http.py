"""One HTTP request whose answer is bounded in size and in time, whatever the server does.

A socket's time-out bounds the silence between two bytes and nothing else: a server that sends one byte a minute, or
never stops, or packs gigabytes into a few bytes, would hold its caller for ever or take its memory. Redirections are
not followed and the environment's proxies are not used: what is sent, and with which credentials, goes to one address.
"""

import os
import socket
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from dicomnode.errors import PeerError

#: No answer that we ask for comes near, bytes once unpacked.
MOST_BYTES = 1 << 20
#: A server that takes what we send more slowly than this is as good as away, bytes a second.
SLOWEST_BYTES_S = 50_000
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


@dataclass(frozen=True)
class HttpAnswer:
    """What a server answered. `content`: unpacked."""

    status: int
    reason: str
    content: bytes
    content_type: str = ""

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        """3xx."""
        return 300 <= self.status < 400

    @property
    def is_server_error(self) -> bool:
        """5xx."""
        return self.status >= 500


class Deadline:
    """Cuts a connection's socket when the time is over: whoever reads or writes on it then gets an error."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._mine: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._mine:
                one.close()
            self._mine.clear()

    def watch(self, connected: socket.socket) -> None:
        """Cut this one too. It is duplicated: TLS takes the object away, not the connection."""
        with self._lock:
            self._mine.append(socket.socket(fileno=os.dup(connected.fileno())))
        if self.passed:
            self._cut()

    def _cut(self) -> None:
        self.passed = True
        with self._lock:
            for one in self._mine:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it has ended by itself

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Httpcore's hook (the request's extension «trace»): the moment at which there is a socket."""
        if name == "connection.connect_tcp.complete":
            self.watch(info["return_value"].get_extra_info("socket"))


def ask(
    client: httpx.Client,
    method: str,
    url: str,
    who: str,
    timeout_s: float,
    *,
    most_bytes: int = MOST_BYTES,
    **arguments: Any,
) -> HttpAnswer:
    """Send a request and return the answer.

    Args:
        client: without redirections.
        method: of HTTP.
        url: of the request.
        who: the server, for messages.
        timeout_s: the longest silence. The whole takes at most twice that, beside what sending takes at a low rate.
        most_bytes: of the answer, unpacked.
        arguments: of httpx's request.

    Raises:
        PeerError: no connection, no whole answer in time, one that is too large, or what is not HTTP.
    """
    size = len(arguments.get("content") or b"")
    total_s = 2 * timeout_s + size / SLOWEST_BYTES_S
    headers = {"Accept-Encoding": "identity", **arguments.pop("headers", {})}
    with Deadline(total_s) as deadline:
        extensions = {"trace": deadline.trace}
        try:
            with client.stream(method, url, headers=headers, extensions=extensions, **arguments) as answer:
                content = _content(answer, who, most_bytes)
                return HttpAnswer(
                    answer.status_code, answer.reason_phrase, content, answer.headers.get("Content-Type", "").lower()
                )
        except httpx.TimeoutException as error:
            raise PeerError(f"{who} did not answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            if deadline.passed:
                raise PeerError(f"{who} did not finish its answer within {total_s:.0f} s") from error
            if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError):
                raise PeerError(f"{who} answered what is not HTTP ({type(error).__name__})") from error
            raise PeerError(f"{who}: no connection ({error}); check url, firewall and certificates") from error


def _content(answer: httpx.Response, who: str, most_bytes: int) -> bytes:
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise PeerError(f"{who} answered in a content encoding that was not asked for")
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding in ("gzip", "deflate") else None
    content = bytearray()
    for piece in answer.iter_raw():
        if unpack is None:
            content += piece
        else:
            try:
                content += unpack.decompress(piece, most_bytes + 1 - len(content))
            except zlib.error as error:
                raise PeerError(f"{who} answered what cannot be unpacked") from error
        if len(content) > most_bytes:
            raise PeerError(f"{who} answered with more than {most_bytes >> 20} MB: not read to its end")
    return bytes(content)
