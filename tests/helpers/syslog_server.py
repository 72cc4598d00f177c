"""Debian's rsyslog as the audit trail's server, with certificates made for it."""

import datetime
import ipaddress
import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.ports import free_port
from tests.helpers.waiting import until

_DAY = datetime.timedelta(days=1)


def make_certificates(folder: Path, name: str = "ca") -> None:
    """A CA, and a certificate for 127.0.0.1 under it: `ca.pem`, `peer.pem`, `peer.key`."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(name, name, ca_key, ca_key, is_ca=True)
    peer = _certificate("peer", name, key, ca_key, is_ca=False)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "peer.pem").write_bytes(peer.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "peer.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))


def _certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(_usage(signs=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return made.sign(signer, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Without it Python 3.13 refuses a CA."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


class Rsyslog:
    """One server, over TLS and UDP, that writes each message as a line of `received`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tls_port, self.udp_port = folder, free_port(), free_port()
        make_certificates(folder)
        self.received = folder / "received.log"
        self._config = folder / "rsyslog.conf"
        self._config.write_text(
            f"""
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="ossl"
       defaultNetstreamDriverCAFile="{folder}/ca.pem" defaultNetstreamDriverCertFile="{folder}/peer.pem"
       defaultNetstreamDriverKeyFile="{folder}/peer.key" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
module(load="imudp")
input(type="imtcp" address="127.0.0.1" port="{self.tls_port}")
input(type="imudp" address="127.0.0.1" port="{self.udp_port}")
template(name="line" type="list") {{
  property(name="syslogseverity-text") constant(value="|") property(name="syslogfacility-text") constant(value="|")
  property(name="app-name") constant(value="|") property(name="msgid") constant(value="|")
  property(name="structured-data") constant(value="|") property(name="msg") constant(value="\\n")
}}
action(type="omfile" file="{self.received}" template="line" asyncWriting="off" flushOnTXEnd="on")
""",
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Rsyslog":
        program = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
        with (self.folder / "rsyslogd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-n", "-f", str(self._config), "-i", str(self.folder / "pid")], stdout=log, stderr=log
            )
        until("rsyslog listening", self._listens)
        return self

    def _listens(self) -> bool:
        text = Path("/proc/net/tcp").read_text()
        return f"0100007F:{self.tls_port:04X} 00000000:0000 0A" in text

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(240)
            self._process = None

    def lines(self) -> list[list[str]]:
        """[severity, facility, program, message ID, structured data, text] of each message."""
        text = self.received.read_text(encoding="utf-8") if self.received.exists() else ""
        return [line.split("|", 5) for line in text.split("\n")[:-1]]
