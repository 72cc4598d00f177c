"""DICOM TLS by PS3.15 annex B.12: BCP 195 (RFC 8996, RFC 9325), both sides with certificates.

TLS 1.3, and 1.2 with ECDHE and AEAD; no renegotiation, no compression, no resumption: every connection proves its
certificate anew, so that a certificate that was revoked, or a CA that was removed, counts from the next connection on.

Certificates are read again when their files have changed. Files that cannot be used leave the former ones in place.
What a peer's certificate must show beyond a trusted CA: `dicomnode.network.identities`. The socket:
`dicomnode.network.tls_socket`.
"""

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dicomnode.errors import ConfigurationError
from dicomnode.network.identities import CertificateIdentity
from dicomnode.network.tls_socket import MISMATCH, TlsContext

log = logging.getLogger(__name__)

#: RFC 9325 section 4.2, and ChaCha20-Poly1305 (RFC 7905) for peers without AES in hardware. Level 2 refuses RSA keys
#: below 2048 bits and SHA-1. The suites of TLS 1.3 are all AEAD.
CIPHERS = (
    *(f"ECDHE-{key}-{cipher}" for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384") for key in ("ECDSA", "RSA")),
    *(f"ECDHE-{key}-CHACHA20-POLY1305" for key in ("ECDSA", "RSA")),
)
LOWEST = ssl.TLSVersion.TLSv1_2
_CIPHERS = ":".join([*CIPHERS, "@SECLEVEL=2"])
_OPTIONS = (
    ssl.OP_NO_COMPRESSION
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_TICKET
    | ssl.OP_SINGLE_ECDH_USE
    | ssl.OP_CIPHER_SERVER_PREFERENCE
)


@dataclass(frozen=True)
class TlsFiles:
    """What one side of TLS needs, all PEM.

    Attributes:
        certificate: our own, followed by intermediate CAs if there are any.
        key: its private key, without a password.
        ca_file: the CAs whose certificates are trusted; a peer's own certificate, if it alone is to be trusted.
        crl_file: revocation lists of these CAs; None = no revocation is checked.
    """

    certificate: Path
    key: Path
    ca_file: Path
    crl_file: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(p for p in (self.certificate, self.key, self.ca_file, self.crl_file) if p is not None)


@dataclass(frozen=True)
class Security:
    """TLS towards one peer: our files, and what its certificate must be. Without `expected` it must name the host."""

    files: TlsFiles
    expected: tuple[CertificateIdentity, ...] = ()


class ReloadingContext:
    """The context of some files: made anew when they have changed, the former one where that fails."""

    def __init__(self, files: TlsFiles, *, server: bool, expected: tuple[CertificateIdentity, ...] = ()) -> None:
        self._files, self._server, self._expected = files, server, expected
        self._context: TlsContext | None = None
        self._seen: object = None
        self._lock = threading.Lock()

    def current(self) -> TlsContext:
        """Return the context for the next connection.

        Raises:
            ConfigurationError: the files cannot be used, and never could.
        """
        with self._lock:
            seen = [_state(path) for path in self._files.paths]
            if self._context is None:
                self._context = self._make()
            elif seen != self._seen:
                self._renew()
            self._seen = seen
            return self._context

    def _make(self) -> TlsContext:
        return _context(self._files, self._expected, server=self._server)

    def _renew(self) -> None:
        try:
            self._context = self._make()
        except ConfigurationError as error:
            log.warning("the former certificate stays in use: %s", error)
        else:
            log.info("TLS: loaded %s again", self._files.certificate)


class _PageContext(ReloadingContext):
    """The context of a server whose callers show no certificate."""

    def __init__(self, files: TlsFiles, table: str) -> None:
        super().__init__(files, server=True)
        self._table = table

    def _make(self) -> TlsContext:
        context = _profile(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        _load_pair(context, self._files, self._table)
        return context


def page_context(files: TlsFiles, table: str) -> ssl.SSLContext:
    """Return the context of a server of web pages: the same profile, and no certificate of its callers.

    Each handshake is done with the certificate that the files hold by then.

    Args:
        files: its certificate and key; `ca_file` is not used.
        table: of the configuration, which names these files.

    Raises:
        ConfigurationError: certificate or key cannot be used.
    """
    reloading = _PageContext(files, table)
    first = reloading.current()

    def take_newest(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = reloading.current()

    # Not loaded anew into a context in use: OpenSSL forbids that while another thread shakes hands with it.
    first.sni_callback = take_newest
    return first


_clients: dict[Security, ReloadingContext] = {}
_clients_lock = threading.Lock()


def client_context(security: Security) -> TlsContext:
    """Return the context for a connection of our own. Raises ConfigurationError as `ReloadingContext.current`."""
    with _clients_lock:
        found = _clients.setdefault(
            security, ReloadingContext(security.files, server=False, expected=security.expected)
        )
    return found.current()


def _state(path: Path) -> tuple[int, ...] | str:
    """Return what changes when the file, its rights or what stands behind a link do."""
    try:
        found = path.stat()
    except OSError as error:
        return type(error).__name__
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _profile(side: int) -> TlsContext:
    context = TlsContext(side)
    context.minimum_version = LOWEST
    context.set_ciphers(_CIPHERS)
    context.options |= _OPTIONS
    return context


def _context(files: TlsFiles, expected: tuple[CertificateIdentity, ...], *, server: bool) -> TlsContext:
    context = _profile(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        context.num_tickets = 0
    else:
        context.check_hostname = not expected
        context.hostname_checks_common_name = False
    context.expected = expected
    context.verify_mode = ssl.CERT_REQUIRED
    # What stands in ca_file is trusted, also a CA that is not the last one, or a single device's own certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, files)
    return context


def _load(context: TlsContext, files: TlsFiles) -> None:
    _load_pair(context, files, "tls")
    _load_authorities(context, files.ca_file)
    if files.crl_file is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        _load_authorities(context, files.crl_file)


def _load_pair(context: TlsContext, files: TlsFiles, table: str) -> None:
    def no_password() -> NoReturn:
        raise ConfigurationError(f"{files.key}: the key has a password: store it without (`openssl pkey -in … -out …`)")

    for path in files.paths:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"{path}: cannot be read ({error.strerror}): correct the path in [{table}], or the file's owner"
            ) from None
    try:
        context.load_cert_chain(files.certificate, files.key, password=no_password)
    except (ssl.SSLError, OSError) as error:
        why = "the key is not the one of this certificate" if _reason(error) == "KEY_VALUES_MISMATCH" else "no PEM pair"
        if _reason(error) in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            why = "the key or its signature is too weak (RSA of 2048 bits and SHA-256 at least)"
        raise ConfigurationError(f"{files.certificate} and {files.key}: {why}; see `dicomnode tls show`") from None


def _load_authorities(context: TlsContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise ConfigurationError(f"{path}: holds no PEM certificates or revocation lists") from None


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or "")


#: X.509 verification errors of OpenSSL (x509_vfy.h), in words and with the cure. They are about the peer's certificate.
_VERIFICATION = {
    MISMATCH: "its certificate is none of those in `certificates`: correct them, or find out who answers there",
    3: "there is no revocation list of its certificate's CA: add it to tls.crl_file",
    9: "its certificate is not valid yet: compare both clocks",
    10: "its certificate has expired: renew it there",
    12: "the revocation list in tls.crl_file has expired: fetch a new one",
    18: "its certificate is self-signed and not in tls.ca_file: give it a certificate of your CA, or add it there",
    19: "its certificate comes from a CA that is not in tls.ca_file",
    20: "its certificate comes from a CA that is not in tls.ca_file (or it does not send its intermediate CA)",
    21: "its certificate comes from a CA that is not in tls.ca_file (or it does not send its intermediate CA)",
    23: "its certificate has been revoked",
    26: "its certificate is not meant for this use (extended key usage)",
    62: "its certificate does not name the configured host: correct host, or pin it by `certificates`",
    64: "its certificate does not name the configured address: give the host's name, or pin it by `certificates`",
    66: "its certificate's key is too short (RSA of 2048 bits at least)",
    68: "its certificate is signed with a hash that is too weak (SHA-256 at least)",
}
_OURS = "see its log, and whether it trusts the CA of our certificate"
#: Reasons of OpenSSL. Those with ALERT were said by the peer: most are about our certificate.
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: switch TLS on there, or call the other port",
    "HTTP_REQUEST": "it speaks HTTP, not DICOM TLS",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS version from 1.2 on: update it, or change its TLS profile to BCP 195",
    "NO_SHARED_CIPHER": "it offers no cipher suite of BCP 195 (ECDHE with AES-GCM): change its TLS profile",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "it offers no signature algorithm that fits our certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate: configure one there",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it got no certificate from us that it asks for: see tls.certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the CA of our certificate: add the CA there",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"it refuses our certificate: {_OURS}",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": f"it cannot use our certificate: {_OURS}",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"it refuses our certificate: {_OURS}",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired: renew tls.certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that our certificate has been revoked: replace tls.certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": f"it could not verify our certificate: {_OURS}",
    "TLSV1_ALERT_ACCESS_DENIED": f"it refuses our certificate: {_OURS}",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it has no TLS version from 1.2 on: update it, or change its TLS profile",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it accepts none of our cipher suites (BCP 195), or wants another certificate",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "it accepts none of our cipher suites (BCP 195)",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the TLS handshake: it may not speak TLS there",
}


def explain(error: OSError) -> str:
    """Say what a failed handshake, or an alert, means and what to do. `it` is the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(error.verify_code, f"its certificate is not accepted ({error.verify_message})")
    if isinstance(error, TimeoutError):
        return "it did not finish the TLS handshake in time"
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(_reason(error), f"the TLS connection failed ({_reason(error) or 'no reason given'})")
    return f"it closed the connection during the TLS handshake ({error.strerror or type(error).__name__})"


def speaks_tls(start: bytes) -> bool:
    """Say whether these first bytes are a TLS handshake (RFC 8446 section 5.1), no PDU."""
    return start[:2] == b"\x16\x03"


_listeners: list[Callable[[str, str], None]] = []


def tell_failures(listener: Callable[[str, str], None]) -> None:
    """Call `listener` with the address and the reason of each connection that TLS refuses: the audit trail's alert."""
    _listeners[:] = [listener]


def report_failure(address: str, why: str) -> None:
    """Tell of a connection that TLS has refused: the one place for all of them."""
    log.warning("TLS: refused %s: %s", address, why)
    for listener in _listeners:
        listener(address, why)
