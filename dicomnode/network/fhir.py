"""The sender of a FHIR transaction (R4 section 3.1.0.11), with the two kinds of failure of the other senders.

`HANDLING` says what each answer is taken as. Whether the transaction was stored is not always known (the connection
broke, the answer was none): sending it again changes nothing, because every resource goes under an identifier. No
identifier stands in the URL.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import bounded_http
from dicomnode.network.bounded_http import HttpAnswer
from dicomnode.network.http_server import PASSING_STATUSES, HttpServer, phrase

log = logging.getLogger(__name__)

_FHIR_JSON = "application/fhir+json"
#: What a server says of itself is long: of the usual ones, one to three megabytes.
_MOST_CAPABILITIES = 16 << 20
_CONFLICT, _NOT_IMPLEMENTED = 409, 501
#: An answer, where it is defined, and what it is taken as.
HANDLING: tuple[tuple[str, str, str], ...] = (
    ("200 with a transaction-response, each of whose entries is 2xx", "R4 section 3.1.0.11.2", "stored"),
    ("no connection, certificate not trusted, time-out", "", "passing"),
    ("an answer that is too large, too slow, or not a transaction-response by its form", "", "passing"),
    (
        f"{', '.join(map(str, sorted(PASSING_STATUSES)))}, 5xx but {_NOT_IMPLEMENTED}",
        "RFC 9110, 6585, 8470",
        "passing",
    ),
    (f"{_CONFLICT}, of another transaction at the same resources", "R4 section 3.1.0.7", "passing"),
    (f"{_NOT_IMPLEMENTED}: the server does not support transactions", "RFC 9110", "permanent"),
    ("every other 3xx and 4xx", "R4 section 3.1.0, RFC 9110", "permanent"),
)
_CURES = {
    400: "it does not take our resources: see its log",
    401: "configure user and password, or token",
    403: "allow this user to store",
    404: "correct the url",
    412: "it has several resources under one of our identifiers: remove all but one",
    422: "it does not take our resources: see its log",
    501: "it does not support transactions: enable them there",
}


@dataclass(frozen=True)
class FhirServer(HttpServer):
    """A FHIR R4 server; `url` is its base."""


def echo(server: FhirServer) -> float:
    """Ask for the server's capabilities: seconds from the connection to the answer.

    Raises:
        PeerError: no connection, or the server is not well.
        PeerRejectedError: it wants other credentials, or there is no FHIR R4 service at the URL.
    """
    started = time.perf_counter()
    url = f"{server.url.rstrip('/')}/metadata"
    with server.client() as client:
        answer = bounded_http.ask(
            client,
            "GET",
            url,
            str(server),
            server.timeout_s,
            most_bytes=_MOST_CAPABILITIES,
            headers={"Accept": _FHIR_JSON},
        )
    _judge_status(server, answer.status, "the question for its capabilities")
    said = _json(answer)
    version = str(said.get("fhirVersion"))[:8] if said.get("resourceType") == "CapabilityStatement" else ""
    if not version.startswith("4."):
        what = f"FHIR version {version!r}" if version else "no FHIR service"
        raise PeerRejectedError(f"{server}: {what} at this url, and R4 is needed: correct the url")
    return time.perf_counter() - started


def submit(server: FhirServer, transaction: bytes, entries: int) -> None:
    """Have a transaction of so many entries stored.

    Raises:
        PeerError: a failure in passing; it may have been stored nevertheless.
        PeerRejectedError: a refusal for good.
    """
    with server.client() as client:
        answer = bounded_http.ask(
            client,
            "POST",
            server.url.rstrip("/"),
            str(server),
            server.timeout_s,
            content=transaction,
            headers={"Accept": _FHIR_JSON, "Content-Type": _FHIR_JSON, "Prefer": "return=minimal"},
        )
    _judge_status(server, answer.status, "the result")
    statuses = _entry_statuses(_json(answer))
    if len(statuses) != entries:
        raise PeerError(f"{server} answered {answer.status} with no transaction-response: not known whether it stored")
    for status in sorted(statuses, reverse=True):
        _judge_status(server, status, "a resource of the result")


def _judge_status(server: FhirServer, status: int, what: str) -> None:
    if 200 <= status < 300:
        return
    text = f"{server} answered {what} with HTTP status {status} ({phrase(status)})"
    passing = status in PASSING_STATUSES or status == _CONFLICT or status >= 500
    if passing and status != _NOT_IMPLEMENTED:
        raise PeerError(f"{text}: temporarily unavailable")
    _refused(text, status)


def _refused(text: str, status: int) -> NoReturn:
    is_redirect = 300 <= status < 400
    cure = "correct the url: redirects are not followed" if is_redirect else _CURES.get(status, "see its log")
    raise PeerRejectedError(f"{text}: {cure}")


def _json(answer: HttpAnswer) -> dict[str, Any]:
    """Return the answer's resource; empty where it is none. It is the server's text, and not repeated."""
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _entry_statuses(said: dict[str, Any]) -> Sequence[int]:
    """Return the status of each entry; none where this is no transaction-response."""
    entries = said.get("entry")
    if (
        said.get("resourceType") != "Bundle"
        or said.get("type") != "transaction-response"
        or not isinstance(entries, list)
    ):
        return ()
    found = []
    for entry in entries:
        response = entry.get("response") if isinstance(entry, dict) else None
        status = str(response.get("status") if isinstance(response, dict) else "")[:3]
        if not (status.isascii() and status.isdigit()):
            return ()
        found.append(int(status))
    return found
