"""The sender over DICOMweb: STOW-RS (PS3.18 section 10.5), beside C-STORE and with the same two kinds of failure.

`HANDLING` says what each answer is taken as. Each object is a request of its own: what a server says of one must not
stop the others.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicomnode import logs
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import bounded_http
from dicomnode.network.association import Sent, is_passing
from dicomnode.network.bounded_http import HttpAnswer
from dicomnode.network.http_server import PASSING_STATUSES, HttpServer, phrase

log = logging.getLogger(__name__)

_DICOM_JSON = "application/dicom+json"
#: An answer, where it is defined, and what it is taken as.
HANDLING: tuple[tuple[str, str, str], ...] = (
    ("200, or 202 that names the object as referenced", "PS3.18 table 10.5.3-1", "stored (also with a warning reason)"),
    ("no connection, certificate not trusted, time-out", "", "passing"),
    ("an answer that is too large, too slow, or not a store response by its form", "", "passing"),
    (f"{', '.join(map(str, sorted(PASSING_STATUSES)))}, 5xx", "RFC 9110, 6585, 8470", "passing"),
    ("200, 202 or 409 that names the object as failed", "PS3.18 table I.2-2", "as that status of a C-STORE"),
    ("every other 3xx and 4xx", "RFC 9110", "permanent"),
)
#: DICOM JSON (PS3.18 annex F): the response's two sequences, and what their items hold.
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _WARNING, _REASON = "00081155", "00081196", "00081197"
_PROCESSING_FAILURE = 0x0110
#: Nobody has it: asking for it shows that URL and credentials are right, and brings nobody's data.
_NO_STUDY = "2.25.0"


@dataclass(frozen=True)
class StowServer(HttpServer):
    """A DICOMweb server that takes our objects; `/studies` is appended to its `url`."""


def echo(server: StowServer) -> float:
    """Return a search for a study that nobody has (QIDO-RS): seconds from the connection to the answer.

    Raises:
        PeerError: no connection, or the server is not well.
        PeerRejectedError: it wants other credentials, or there is no DICOMweb service at the URL.
    """
    started = time.perf_counter()
    query = {"StudyInstanceUID": _NO_STUDY, "limit": "1"}
    with server.client() as client:
        answer = _request(server, client, "GET", params=query, headers={"Accept": _DICOM_JSON})
    if answer.status not in (405, 501):  # a server may take objects and answer no queries
        _judge_status(server, answer, "the query")
    return time.perf_counter() - started


def send(
    server: StowServer, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None
) -> list[Sent]:
    """Store files at a server, in their order, byte for byte; returns what it has stored.

    The first failure ends it; what was stored before has been told to `on_result`, one call for each object.

    Raises:
        PeerError: a failure in passing.
        PeerRejectedError: a refusal for good, or a path that is no DICOM file.
    """
    sent: list[Sent] = []
    with server.client() as client:
        for path in paths:
            result = _store(server, client, path)
            sent.append(result)
            if on_result is not None:
                on_result(path, result)
    return sent


def _store(server: StowServer, client: httpx.Client, path: Path) -> Sent:
    try:
        sop_instance_uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
        content = path.read_bytes()
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise PeerRejectedError(f"cannot send {path}: not a readable DICOM file ({type(error).__name__})") from error
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    answer = _request(
        server,
        client,
        "POST",
        content=b"".join((head, content, f"\r\n--{boundary}--\r\n".encode())),
        headers={
            "Accept": _DICOM_JSON,
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        },
    )
    return _judge(server, answer, sop_instance_uid)


def _judge(server: StowServer, answer: HttpAnswer, sop_instance_uid: str) -> Sent:
    shown = logs.uid(sop_instance_uid)
    try:
        said = _said(answer)
        reason = _of(said, _FAILED, sop_instance_uid, _REASON)
        warning = _of(said, _REFERENCED, sop_instance_uid, _WARNING)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # What stands in it is not repeated: it is the server's text.
        text = f"{server} answered {answer.status} with what is no store response ({type(error).__name__})"
        raise PeerError(f"{text}: not known whether it has stored {shown}") from None
    if reason is not None:
        text = f"{server} refused {shown} with failure reason 0x{reason:04X}"
        if is_passing(reason):
            raise PeerError(f"{text}: temporarily unable to store")
        raise PeerRejectedError(f"{text}: see its log for the reason")
    _judge_status(server, answer, shown)
    if warning is None and answer.status != httpx.codes.OK:
        raise PeerError(f"{server} answered {answer.status} without confirming that it stored {shown}")
    if warning:
        log.warning("%s stored %s with warning 0x%04X", server, shown, warning)
    return Sent(sop_instance_uid, warning or 0, "warning" if warning else "stored")


def _judge_status(server: StowServer, answer: HttpAnswer, what: str) -> None:
    status = answer.status
    if answer.is_success:
        return
    # The body is the server's free text and may name a patient.
    log.debug("%s, HTTP status %d: %s", server, status, answer.content[:500])
    text = f"{server} answered {what} with HTTP status {status} ({phrase(status)})"
    if status in PASSING_STATUSES or answer.is_server_error:
        raise PeerError(f"{text}: temporarily unavailable")
    refused = "it refused the user and password, or the token, that are configured: correct them"
    asked = "it asks who we are: configure user and password, or token"
    cures = {
        401: refused if server.user or server.token else asked,
        403: "allow this user to store",
        404: "correct the url",
    }
    cure = "correct the url: redirects are not followed" if answer.is_redirect else cures.get(status, "see its log")
    raise PeerRejectedError(f"{text}: {cure}")


def _said(answer: HttpAnswer) -> dict[str, Any]:
    """Return the store response's dataset; empty where the answer has none.

    Raises:
        ValueError, RecursionError: it says that it is JSON, or looks like it, and is not; or a proxy or a login page
            has said 200 in the server's place.
    """
    text = answer.content.strip()
    if answer.is_success and ("html" in answer.content_type or text[:5].lower() in (b"<html", b"<!doc")):
        raise ValueError("a page")
    if not text or ("json" not in answer.content_type and text[:1] not in (b"{", b"[")):
        return {}
    if "json" not in answer.content_type and not answer.is_success:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return {}
    else:
        said = json.loads(text)
    first = said[0] if isinstance(said, list) and said else said
    if first == [] or (not answer.is_success and not isinstance(first, dict)):
        return {}
    if not isinstance(first, dict):
        raise ValueError("no data set")  # noqa: TRY004  (of a value, not of an argument)
    return first


def _of(said: dict[str, Any], sequence: str, sop_instance_uid: str, tag: str) -> int | None:
    """Return a value of the object's item in a sequence of the response; None where the object is not in it."""
    items = (said.get(sequence) or {}).get("Value") or []
    for item in items:
        # One object was sent: an item that does not name it can only mean it.
        if _value(item, _INSTANCE) in (sop_instance_uid, None):
            default = _PROCESSING_FAILURE if sequence == _FAILED else 0
            value = _value(item, tag)
            return default if value is None else _status(value)
    return None


def _status(value: object) -> int:
    """Return a reason, VR US. Raises ValueError."""
    number = int(value) if isinstance(value, int | float | str) else -1
    if not 0 <= number <= 0xFFFF:
        raise ValueError("not an unsigned short")
    return number


def _value(item: dict[str, Any], tag: str) -> Any:
    values = (item.get(tag) or {}).get("Value") or [None]
    return values[0]


def _request(server: StowServer, client: httpx.Client, method: str, **arguments: Any) -> HttpAnswer:
    url = f"{server.url.rstrip('/')}/studies"
    return bounded_http.ask(client, method, url, str(server), server.timeout_s, **arguments)
