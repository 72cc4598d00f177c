"""Who a certificate says its holder is, and who it has to be: `sha256:…`, `DNS:…`, `IP:…`, `URI:…` or `CN:…`.

`dicomnode tls show` prints a certificate's identities in this form.
"""

import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

Kind = Literal["sha256", "DNS", "IP", "URI", "CN"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The kinds of names by Python's words for them.
_ALTERNATIVE_NAMES: dict[str, Kind] = {"DNS": "DNS", "IP Address": "IP", "URI": "URI"}
_SHA256_DIGITS = 64


@dataclass(frozen=True)
class CertificateIdentity:
    """One property of a certificate, normalised so that two equal ones compare equal."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def identity(text: str) -> CertificateIdentity:
    """Parse an identity. Raises ValueError with what is wrong."""
    word, colon, value = text.partition(":")
    kind = next((k for k in KINDS if k.lower() == word.strip().lower()), None)
    if kind is None or not colon or not value.strip():
        raise ValueError(f"{text!r} is not of the form sha256:…, DNS:…, IP:…, URI:… or CN:…")
    return CertificateIdentity(kind, _normal(kind, value.strip()))


def _normal(kind: Kind, value: str) -> str:
    if kind == "sha256":
        digits = value.replace(":", "").replace(" ", "").lower()
        if len(digits) != _SHA256_DIGITS or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"sha256:{value} does not have the 64 hexadecimal digits of a SHA-256 fingerprint")
        return digits
    if kind == "DNS":
        return value.lower().rstrip(".")
    if kind == "IP":
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError(f"IP:{value} is not an address") from None
    return value


def identities_of(sock: ssl.SSLSocket) -> frozenset[CertificateIdentity]:
    """Return what the peer's verified certificate shows: fingerprint, alternative names, common name."""
    der = sock.getpeercert(binary_form=True)
    if der is None:
        return frozenset()
    found = {CertificateIdentity("sha256", hashlib.sha256(der).hexdigest())}
    shown = cast("dict[str, Any]", sock.getpeercert() or {})
    named = [(_ALTERNATIVE_NAMES.get(kind), value) for kind, value in shown.get("subjectAltName", ())]
    named += [("CN", value) for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    for kind, value in named:
        if kind is not None:
            try:
                found.add(CertificateIdentity(kind, _normal(kind, value)))
            except ValueError:
                continue  # an odd name identifies nobody
    return frozenset(found)
