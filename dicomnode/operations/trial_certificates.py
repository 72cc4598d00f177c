"""A CA and certificates for trials: what a hospital's own CA does in routine."""

import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from dicomnode.errors import UsageError
from dicomnode.files import write_whole

KeyKind = Literal["rsa", "ec"]
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
#: Clocks of a hospital's devices are not all right.
_EARLIER = timedelta(hours=1)
_SECRET, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: Path
    key: Path


def make_ca(folder: Path, name: str, days: int, kind: KeyKind = "rsa") -> Issued:
    """Make `ca.crt` and `ca.key` (mode 0600) in a folder.

    Raises:
        UsageError: there is a CA already.
    """
    made = Issued(folder / "ca.crt", folder / "ca.key")
    _refuse_if_there(made)
    key, subject = _new_key(kind), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    _write(made, key, builder.sign(key, SHA256()))
    return made


def issue(folder: Path, name: str, hosts: Sequence[str], days: int, kind: KeyKind = "rsa") -> Issued:
    """Make `NAME.crt` and `NAME.key` (mode 0600), signed by the folder's CA, for a server and a client.

    `hosts`: the names and addresses at which its holder is called.

    Raises:
        UsageError: no CA, a certificate of this name is there, or the name does not suit a file.
    """
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name in ("ca", ".", ".."):
        raise UsageError(f"{name!r}: give a name of letters, digits, '-', '_' and '.', other than 'ca'")
    made = Issued(folder / f"{name}.crt", folder / f"{name}.key")
    _refuse_if_there(made)
    ca, ca_key = _ca(folder)
    key = _new_key(kind)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = _builder(subject, ca.subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
    _write(made, key, builder.sign(ca_key, SHA256()))
    return made


def _refuse_if_there(made: Issued) -> None:
    for path in (made.certificate, made.key):
        if path.exists():
            raise UsageError(f"{path} is there already: remove it, or choose another folder or name")


def _ca(folder: Path) -> tuple[x509.Certificate, _PrivateKey]:
    try:
        ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no ca.crt and ca.key: run `dicomnode tls ca {folder}` first") from None
    except (ValueError, TypeError):
        raise UsageError(f"{folder}/ca.crt or ca.key cannot be read as PEM without a password") from None
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return ca, key


def _new_key(kind: KeyKind) -> _PrivateKey:
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 3072)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise UsageError(f"{text!r} is neither a host name nor an address") from None


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: _PrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _EARLIER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _write(made: Issued, key: _PrivateKey, certificate: x509.Certificate) -> None:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_whole(made.key, _with_mode(_SECRET, secret))
    write_whole(made.certificate, _with_mode(_PUBLIC, certificate.public_bytes(Encoding.PEM)))


def _with_mode(mode: int, content: bytes) -> Callable[[BinaryIO], object]:
    """Write with these rights from the first byte, whatever the umask."""

    def write(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), mode)
        file.write(content)

    return write
