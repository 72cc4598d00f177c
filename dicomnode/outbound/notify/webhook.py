"""A message as a signed HTTP request.

The receiver computes HMAC-SHA256 (RFC 2104) with the shared key over `timestamp + "." + body`, compares it with
`X-Dicomnode-Signature: sha256=<hex>`, and refuses old timestamps; `Idempotency-Key` tells it what it has had already.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping

import httpx

from dicomnode.config import NotifyTable
from dicomnode.errors import PeerError, PeerRejectedError
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
        answer = httpx.post(to.url, content=body, headers=headers, timeout=to.timeout_s, follow_redirects=False)
    except (httpx.TransportError, httpx.InvalidURL) as e:
        raise PeerError(f"the webhook {to.name!r} cannot be reached ({type(e).__name__})") from None
    if answer.is_success:
        return
    text = f"the webhook {to.name!r} answered {answer.status_code}"
    if answer.status_code in _PASSING or answer.is_server_error:
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
        httpx.head(to.url, timeout=to.timeout_s, follow_redirects=False)
    except (httpx.TransportError, httpx.InvalidURL) as e:
        raise PeerError(f"no connection ({type(e).__name__}): check url, proxy and certificate") from None
