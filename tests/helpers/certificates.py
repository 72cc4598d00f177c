"""Certificates for tests: of one CA, of another, expired, self-signed, revoked."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from dicomnode.network.certificates import read
from dicomnode.network.tls import TlsFiles
from dicomnode.operations.trial_certificates import Issued, KeyKind, issue, make_ca

HOSTS = ("localhost", "127.0.0.1")


class Authority:
    """A CA in a folder, and what it issues for 127.0.0.1. P-256 by default: quickly made."""

    def __init__(self, folder: Path, kind: KeyKind = "ec") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._kind = folder, kind
        self.certificate = make_ca(folder, f"CA {folder.name}", 1000, kind).certificate

    def issue(self, name: str, days: int = 100, hosts: tuple[str, ...] = HOSTS) -> Issued:
        return issue(self.folder, name, hosts, days, self._kind)

    def files(self, name: str, days: int = 100, hosts: tuple[str, ...] = HOSTS) -> TlsFiles:
        """A new certificate, as one side of TLS needs it."""
        made = self.issue(name, days, hosts)
        return TlsFiles(made.certificate, made.key, self.certificate)

    def expired(self, name: str) -> TlsFiles:
        return self.files(name, days=-1)

    def revocations(self, *revoked: Issued, days: int = 1) -> Path:
        """A revocation list of these certificates."""
        ca = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
        builder = builder.last_update(now - timedelta(days=5)).next_update(now + timedelta(days=days))
        for one in revoked:
            serial = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        path = self.folder / "revoked.pem"
        path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))  # type: ignore[arg-type]
        return path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """As Python's own server needs it; who calls shows a certificate of the same CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def fingerprint(certificate: Path) -> str:
    """As `certificates` in the configuration takes it."""
    return f"sha256:{read(certificate)[0].sha256}"


def self_signed(folder: Path, name: str = "lonely") -> TlsFiles:
    """A certificate that no CA has signed."""
    made = make_ca(folder / name, name, 100, "ec")
    return TlsFiles(made.certificate, made.key, made.certificate)


def toml(files: TlsFiles) -> str:
    """The table [tls]."""
    crl = "" if files.crl_file is None else f'crl_file = "{files.crl_file}"\n'
    return f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\nca_file = "{files.ca_file}"\n{crl}'
