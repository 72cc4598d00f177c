"""A message as a signed HTTP request.

The receiver computes HMAC-SHA256 (RFC 2104) with the shared key over `timestamp + "." + body`, compares it with
`X-Dicomnode-Signature: sha256=<hex>`, and refuses old timestamps; `Idempotency-Key` tells it what it has had already.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from dicomnode.config import NotifyTable
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.bounded_http import HttpAnswer, ask
from dicomnode.outbound.notify.message import Message
from dicomnode.outbound.notify.secret import secret

#: Besides 5xx, what a server says of the moment: time-out, too early, too many requests (RFC 9110, 8470, 6585).
_PASSING = frozenset({408, 425, 429})


def send(to: NotifyTable, message: Message) -> None:
    """POST the message as JSON: its fields, and its text.

    Raises:
        PeerError: no connection, no answer, 408, 425, 429 or 5xx.
        PeerRejectedError: any other answer than 2xx. Redirections are not followed: the signature is for this address.
        ConfigurationError: the key is not there.
    """
    body = json.dumps({**message.fields, "text": message.text}, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": message.key}
    headers |= signature(secret(to), body, str(int(time.time())))
    try:
        answer = _ask(to, "POST", content=body, headers=headers)
    except PeerError as e:
        # The message of a failure may hold the address, and an address a key.
        cause = type(e.__cause__).__name__ if e.__cause__ is not None else "the answer is too large, or cannot be read"
        raise PeerError(f"the webhook {to.name!r} cannot be reached ({cause})") from None
    if answer.is_success:
        return
    text = f"the webhook {to.name!r} answered {answer.status}"
    if answer.status in _PASSING or answer.is_server_error:
        raise PeerError(text)
    raise PeerRejectedError(f"{text}: correct its url or its key")


def signature(key: bytes, body: bytes, timestamp: str) -> Mapping[str, str]:
    """Return the two headers by which the receiver knows that we sent this, and when."""
    digest = hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"X-Dicomnode-Timestamp": timestamp, "X-Dicomnode-Signature": f"sha256={digest}"}


def reachable(to: NotifyTable) -> None:
    """Whether the server answers at all, whatever it says. Raises PeerError, ConfigurationError."""
    secret(to)
    try:
        _ask(to, "HEAD")
    except PeerError as e:
        cause = type(e.__cause__ or e).__name__
        raise PeerError(f"no connection ({cause}): check url, proxy and certificate") from None


def _ask(to: NotifyTable, method: str, **arguments: Any) -> HttpAnswer:
    # A site may reach its webhooks through a proxy of the environment, unlike a destination of patients' images.
    with httpx.Client(timeout=to.timeout_s, follow_redirects=False) as client:
        return ask(client, method, to.url, f"the webhook {to.name!r}", to.timeout_s, **arguments)
