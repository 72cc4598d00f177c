"""What certificates say of themselves, and what is wrong, or will be soon, with the files of TLS."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from dicomnode.errors import ConfigurationError
from dicomnode.network.identities import KINDS, CertificateIdentity
from dicomnode.network.tls import ReloadingContext, TlsFiles
from dicomnode.words.numerals import plural

#: So long before a certificate expires it is told of.
AHEAD = timedelta(days=30)
_CRL_BEGIN = b"-----BEGIN X509 CRL-----"
_CRL_END = b"-----END X509 CRL-----"


@dataclass(frozen=True)
class CertificateFacts:
    """One certificate. `identities` are what a peer can be known by; times are UTC."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    key: str
    is_ca: bool
    identities: tuple[CertificateIdentity, ...]

    @property
    def sha256(self) -> str:
        """Its fingerprint."""
        return next(one.value for one in self.identities if one.kind == "sha256")


@dataclass(frozen=True)
class TlsFinding:
    """One file of TLS: whether all is well with it, and until when. `text` says what is wrong and what to do."""

    path: Path
    ok: bool
    text: str
    until: datetime | None = None


def read(path: Path) -> list[CertificateFacts]:
    """Return the certificates of a PEM file.

    Raises:
        ConfigurationError: it cannot be read, or holds none.
    """
    try:
        found = x509.load_pem_x509_certificates(_content(path))
    except ValueError:
        raise ConfigurationError(f"{path}: holds no PEM certificate") from None
    return [_facts(one) for one in found]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        words = f"RSA {key.key_size}"
    else:
        words = f"EC {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    return CertificateFacts(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        words,
        is_ca,
        tuple(sorted(_identities(certificate), key=lambda one: (KINDS.index(one.kind), one.value))),
    )


def _identities(certificate: x509.Certificate) -> Iterator[CertificateIdentity]:
    yield CertificateIdentity("sha256", certificate.fingerprint(SHA256()).hex())
    for one in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        yield CertificateIdentity("CN", str(one.value))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (
        CertificateIdentity("DNS", name.lower().rstrip(".")) for name in names.get_values_for_type(x509.DNSName)
    )
    yield from (CertificateIdentity("IP", str(address)) for address in names.get_values_for_type(x509.IPAddress))
    yield from (CertificateIdentity("URI", uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier))


def inspect(files: TlsFiles, now: datetime) -> list[TlsFinding]:
    """Look at the files of one side of TLS: readable, fitting together, valid, and for how long."""
    found = [
        *_certificates(files.certificate, "our certificate", now),
        *_key(files),
        *_certificates(files.ca_file, "a trusted CA", now),
        *_revocations(files.crl_file, now),
    ]
    if all(one.ok or one.until is not None for one in found):
        try:
            ReloadingContext(files, server=True).current()
        except ConfigurationError as error:
            found.append(TlsFinding(files.certificate, ok=False, text=str(error)))
    return found


def _certificates(path: Path, what: str, now: datetime) -> Iterator[TlsFinding]:
    try:
        certificates = read(path)
    except ConfigurationError as error:
        yield TlsFinding(path, ok=False, text=str(error))
        return
    for one in certificates:
        text = f"{what} ({one.subject}) in {path}"
        if one.not_before > now:
            yield TlsFinding(path, ok=False, text=f"{text} is valid from {one.not_before:%Y-%m-%d} only: see the clock")
        elif one.not_after <= now:
            text = f"{text} expired on {one.not_after:%Y-%m-%d}: replace it"
            yield TlsFinding(path, ok=False, text=text, until=one.not_after)
        elif one.not_after <= now + AHEAD:
            left = (one.not_after - now).days
            text = f"{text} expires on {one.not_after:%Y-%m-%d}, in {plural(left, 'day')}: replace it before"
            yield TlsFinding(path, ok=False, text=text, until=one.not_after)
        else:
            yield TlsFinding(path, ok=True, text=f"{text} is valid until {one.not_after:%Y-%m-%d}", until=one.not_after)


def _key(files: TlsFiles) -> Iterator[TlsFinding]:
    try:
        _content(files.key)
        mode = stat.S_IMODE(files.key.stat().st_mode)
    except (ConfigurationError, OSError) as error:
        yield TlsFinding(files.key, ok=False, text=str(error))
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        text = f"the private key {files.key} can be read by others (mode {mode:04o}): chmod 600"
        yield TlsFinding(files.key, ok=False, text=text)


def _revocations(path: Path | None, now: datetime) -> Iterator[TlsFinding]:
    if path is None:
        return
    try:
        pieces = _content(path).split(_CRL_BEGIN)[1:]
        lists = [x509.load_pem_x509_crl(_CRL_BEGIN + piece.partition(_CRL_END)[0] + _CRL_END) for piece in pieces]
    except ConfigurationError as error:
        yield TlsFinding(path, ok=False, text=str(error))
        return
    except ValueError:
        lists = []
    if not lists:
        yield TlsFinding(path, ok=False, text=f"{path}: holds no PEM revocation list")
    for one in lists:
        until, text = one.next_update_utc, f"the revocation list of {one.issuer.rfc4514_string()} in {path}"
        if until is not None and until <= now:
            text = f"{text} expired on {until:%Y-%m-%d %H:%M} UTC, and nobody is let in by TLS: fetch a new one"
            yield TlsFinding(path, ok=False, text=text, until=until)
        else:
            yield TlsFinding(path, ok=True, text=f"{text} can be used", until=until)
