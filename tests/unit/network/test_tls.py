"""TLS by files: who is let in, who is called, what is said of what went wrong, and certificates that change."""

import logging
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from dicomnode.errors import ConfigurationError, PeerError
from dicomnode.network import tls
from dicomnode.network.association import Peer, echo
from dicomnode.network.identities import CertificateIdentity, identity
from dicomnode.network.tls import ReloadingContext, Security, TlsFiles
from dicomnode.network.tls_socket import TlsSocket
from dicomnode.network.transport import has_request
from tests.helpers.certificates import Authority, fingerprint, self_signed
from tests.helpers.waiting import until


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def server(hospital: Authority) -> TlsFiles:
    return hospital.files("server")


@pytest.fixture(scope="module")
def client(hospital: Authority) -> TlsFiles:
    return hospital.files("client")


class Pair:
    """Both ends of a TLS connection."""

    def __init__(self, server: ReloadingContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        ours = server.current().wrap_socket(far, server_side=True, do_handshake_on_connect=False)
        assert isinstance(ours, TlsSocket)
        self.ours = ours
        self.ours.settimeout(20)
        self.failure: OSError | None = None
        thread = threading.Thread(target=self._handshake)
        thread.start()
        near.settimeout(20)
        try:
            self.theirs = client.wrap_socket(near, server_hostname="localhost", session=session)
        except OSError:
            near.close()
            thread.join()
            self.ours.close()
            raise
        thread.join()

    def _handshake(self) -> None:
        try:
            self.ours.do_handshake()
        except OSError as error:
            self.failure = error

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(server: TlsFiles | ReloadingContext, client: TlsFiles | ssl.SSLContext) -> Pair:
        listening = server if isinstance(server, ReloadingContext) else ReloadingContext(server, server=True)
        calling = client if isinstance(client, ssl.SSLContext) else tls.client_context(Security(client))
        made.append(Pair(listening, calling))
        return made[-1]

    yield make
    for one in made:
        one.close()


# The profile


def test_modern_tls_with_aead_alone(server: TlsFiles, client: TlsFiles, connect: Callable[..., Pair]) -> None:
    assert connect(server, client).theirs.version() == "TLSv1.3"
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    older.load_cert_chain(client.certificate, client.key)
    older.load_verify_locations(client.ca_file)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = connect(server, older)
    cipher = pair.theirs.cipher()
    assert cipher is not None and "GCM" in cipher[0] and cipher[0].startswith("ECDHE")
    assert pair.theirs.compression() is None
    assert pair.theirs.session is None or not pair.theirs.session.has_ticket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(server: TlsFiles, client: TlsFiles, version: ssl.TLSVersion) -> None:
    """A certificate that was revoked since, or has expired, would come in by an old session."""
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.load_cert_chain(client.certificate, client.key)
    calling.load_verify_locations(client.ca_file)
    calling.maximum_version = version
    listening = ReloadingContext(server, server=True)
    session = None
    for _ in range(2):
        pair = Pair(listening, calling, session)
        pair.ours.sendall(b"x")
        assert pair.theirs.recv(1) == b"x"
        assert not pair.theirs.session_reused
        session = pair.theirs.session
        pair.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"set_ciphers": "ECDHE-ECDSA-AES256-SHA@SECLEVEL=0"}, "no cipher suite of BCP 195"),
        ({"version": ssl.TLSVersion.TLSv1_1}, "no TLS version from 1.2 on"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_profiles_are_refused_and_named(
    server: TlsFiles, client: TlsFiles, change: dict[str, object], words: str
) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_cert_chain(client.certificate, client.key)
    old.load_verify_locations(client.ca_file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    if "version" in change:
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = change["version"]  # type: ignore[assignment]
    else:
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers(str(change["set_ciphers"]))
    failures = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    ours = (
        ReloadingContext(server, server=True)
        .current()
        .wrap_socket(far, server_side=True, do_handshake_on_connect=False)
    )

    def serve() -> None:
        try:
            ours.do_handshake()
        except OSError as error:
            failures.append(tls.explain(error))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ssl.SSLError):
        old.wrap_socket(near, server_hostname="localhost")
    thread.join()
    near.close()
    ours.close()
    assert words in failures[0]


def test_no_certificate_no_connection(server: TlsFiles, connect: Callable[..., Pair]) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(server.ca_file)
    pair = connect(server, bare)
    assert pair.failure is not None
    assert "showed no certificate" in tls.explain(pair.failure)


def _callers(hospital: Authority, stranger: Authority, tmp_path: Path) -> dict[str, tuple[TlsFiles, str]]:
    foreign = replace(stranger.files(f"foreign-{tmp_path.name}"), ca_file=hospital.certificate)
    lonely = replace(self_signed(tmp_path), ca_file=hospital.certificate)
    return {
        "expired": (hospital.expired(f"expired-{tmp_path.name}"), "has expired"),
        "foreign": (foreign, "a CA that is not in tls.ca_file"),
        "self-signed": (lonely, "self-signed"),
    }


@pytest.mark.parametrize("which", ["expired", "foreign", "self-signed"])
def test_bad_certificates_are_named_on_our_side(
    which: str,
    hospital: Authority,
    stranger: Authority,
    server: TlsFiles,
    tmp_path: Path,
    connect: Callable[..., Pair],
) -> None:
    files, words = _callers(hospital, stranger, tmp_path)[which]
    pair = connect(server, files)
    assert isinstance(pair.failure, ssl.SSLCertVerificationError)
    assert words in tls.explain(pair.failure)


def test_a_revoked_certificate(hospital: Authority, server: TlsFiles, connect: Callable[..., Pair]) -> None:
    revoked, good = hospital.issue("revoked"), hospital.files("not-revoked")
    careful = replace(server, crl_file=hospital.revocations(revoked))
    assert connect(careful, good).failure is None
    pair = connect(careful, TlsFiles(revoked.certificate, revoked.key, hospital.certificate))
    assert pair.failure is not None
    assert "revoked" in tls.explain(pair.failure)
    pair = connect(replace(careful, crl_file=hospital.revocations(days=-1)), good)
    assert pair.failure is not None
    assert "crl_file has expired" in tls.explain(pair.failure)


# Identities


def test_what_a_certificate_shows(hospital: Authority, server: TlsFiles, connect: Callable[..., Pair]) -> None:
    files = hospital.files("CT-1", hosts=("CT1.hospital.example", "10.1.2.3", "::1"))
    shown = connect(server, files).ours.identities
    wanted = [fingerprint(files.certificate), "DNS:ct1.hospital.example", "IP:10.1.2.3", "IP:::1", "CN:CT-1"]
    assert shown == {identity(one) for one in wanted}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SHA256:" + ":".join(["AB"] * 32), CertificateIdentity("sha256", "ab" * 32)),
        ("dns:Host.Example.", CertificateIdentity("DNS", "host.example")),
        ("IP:2001:DB8::0001", CertificateIdentity("IP", "2001:db8::1")),
        ("CN: CT 1 ", CertificateIdentity("CN", "CT 1")),
        ("URI:urn:x:y", CertificateIdentity("URI", "urn:x:y")),
    ],
)
def test_identities_are_compared_by_what_they_mean(text: str, wanted: CertificateIdentity) -> None:
    assert identity(text) == wanted


@pytest.mark.parametrize("text", ["", "ab", "sha256:ab", "sha256:" + "g" * 64, "CN:", "IP:host", "OU:x", "host"])
def test_other_texts_are_no_identities(text: str) -> None:
    with pytest.raises(ValueError, match="sha256|IP|form"):
        identity(text)


# Reading


def test_a_look_takes_nothing_away(server: TlsFiles, client: TlsFiles, connect: Callable[..., Pair]) -> None:
    pair = connect(server, client)
    assert not pair.ours.readable(0.0)
    pair.theirs.sendall(b"0123456789")
    assert pair.ours.readable(20)
    assert pair.ours.peek(4, 20) == b"0123"
    assert pair.ours.pending() == 10
    assert pair.ours.recv(2) == b"01"
    into = bytearray(8)
    count = pair.ours.recv_into(memoryview(into))
    while count < 8:
        count += pair.ours.recv_into(memoryview(into)[count:])
    assert into == b"23456789"
    assert pair.ours.peek(1, 0.0) == b""
    pair.theirs.close()
    assert pair.ours.readable(20)
    assert pair.ours.recv(1) == b""


def test_a_message_of_tls_itself_is_nothing_to_read(client: TlsFiles, server: TlsFiles) -> None:
    """TLS 1.3 servers send tickets behind the handshake: the descriptor is readable, a read would block."""
    usual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    usual.load_cert_chain(server.certificate, server.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.settimeout(20)
    ours: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: ours.append(usual.wrap_socket(far, server_side=True)))
    thread.start()
    calling = tls.client_context(Security(client)).wrap_socket(near, server_hostname="localhost")
    thread.join()
    assert isinstance(calling, TlsSocket)
    until("the tickets are here", lambda: _has_bytes(calling), 20)
    assert not calling.readable(0.0)
    ours[0].sendall(b"x")
    assert calling.readable(20)
    calling.close()
    ours[0].close()


def _has_bytes(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])


def test_reads_end_in_time(server: TlsFiles, client: TlsFiles, connect: Callable[..., Pair]) -> None:
    pair = connect(server, client)
    pair.ours.settimeout(0.2)
    with pytest.raises(TimeoutError):
        pair.ours.recv_into(bytearray(6))


def test_a_request_is_waited_for_as_a_whole(server: TlsFiles, client: TlsFiles, connect: Callable[..., Pair]) -> None:
    pair = connect(server, client)
    request = struct.pack(">BxL", 1, 100) + bytes(100)
    pair.theirs.sendall(request[:50])
    assert not has_request(pair.ours, 0.2)
    pair.theirs.sendall(request[50:])
    assert has_request(pair.ours, 20)
    assert pair.ours.recv(106) == request


# Files that change


@pytest.fixture
def renewable(hospital: Authority, tmp_path: Path) -> TlsFiles:
    made = hospital.issue(f"renewable-{tmp_path.name}")
    for path, name in ((made.certificate, "own.crt"), (made.key, "own.key")):
        shutil.copy(path, tmp_path / name)
    return TlsFiles(tmp_path / "own.crt", tmp_path / "own.key", hospital.certificate)


def _shown(pair: Pair) -> str:
    der = pair.theirs.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def test_a_renewed_certificate_counts_from_the_next_connection(
    renewable: TlsFiles, client: TlsFiles, hospital: Authority, connect: Callable[..., Pair], tmp_path: Path
) -> None:
    listening = ReloadingContext(renewable, server=True)
    first = connect(listening, client)
    new = hospital.issue(f"renewed-{tmp_path.name}")
    for ours, theirs in ((new.certificate, renewable.certificate), (new.key, renewable.key)):
        shutil.copy(ours, tmp_path / "new").replace(theirs)
    second = connect(listening, client)
    assert _shown(second) == new.certificate.read_text() != _shown(first)
    first.theirs.sendall(b"still open")
    assert first.ours.recv(20) == b"still open"


@pytest.mark.parametrize(
    ("which", "content", "words"),
    [("certificate", "no PEM", "no PEM pair"), ("key", "", "no PEM pair"), ("certificate", None, "cannot be read")],
)
def test_broken_files_leave_the_former_certificate_in_place(
    renewable: TlsFiles,
    client: TlsFiles,
    connect: Callable[..., Pair],
    caplog: pytest.LogCaptureFixture,
    which: str,
    content: str | None,
    words: str,
) -> None:
    listening = ReloadingContext(renewable, server=True)
    before = _shown(connect(listening, client))
    path: Path = getattr(renewable, which)
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_text(content)
    with caplog.at_level(logging.INFO):
        assert _shown(connect(listening, client)) == before
        assert _shown(connect(listening, client)) == before
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert words in told and "former certificate stays" in told
    path.write_bytes(whole)
    with caplog.at_level(logging.INFO):
        assert _shown(connect(listening, client)) == before
    assert "again" in caplog.records[-1].getMessage()


def test_a_ca_that_is_removed_lets_nobody_in(
    hospital: Authority, stranger: Authority, connect: Callable[..., Pair], client: TlsFiles, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    shutil.copy(hospital.certificate, trusted)
    listening = ReloadingContext(replace(hospital.files(f"s-{tmp_path.name}"), ca_file=trusted), server=True)
    assert connect(listening, client).failure is None
    shutil.copy(stranger.certificate, trusted)
    assert connect(listening, client).failure is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, o: replace(f, key=o.key), "the key is not the one of this certificate"),
        (lambda f, o: replace(f, key=f.ca_file), "no PEM pair"),
        (lambda f, o: replace(f, ca_file=f.key), "holds no PEM certificates"),
        (lambda f, o: replace(f, crl_file=f.key), "holds no PEM certificates or revocation lists"),
        (lambda f, o: replace(f, certificate=f.certificate / "x"), "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    server: TlsFiles, client: TlsFiles, change: Callable[[TlsFiles, TlsFiles], TlsFiles], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ReloadingContext(change(server, client), server=True).current()


def test_a_key_with_a_password_asks_nobody(server: TlsFiles, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(server.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigurationError, match="has a password"):
        ReloadingContext(replace(server, key=locked), server=True).current()


# Calling


class TlsPacs:
    """pynetdicom's own server behind TLS, which answers an echo."""

    def __init__(self, files: TlsFiles, *, mutual: bool = True) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        if mutual:
            context.load_verify_locations(files.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        self.entity = AE("PACS")
        self.entity.add_supported_context(Verification)
        server = self.entity.start_server(
            ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0)]
        )
        assert server is not None
        self.port = int(server.server_address[1])


@pytest.fixture
def pacs() -> Iterator[Callable[[TlsFiles], int]]:
    made: list[TlsPacs] = []

    def start(files: TlsFiles) -> int:
        made.append(TlsPacs(files))
        return made[-1].port

    yield start
    for one in made:
        one.entity.shutdown()


def peer(port: int, files: TlsFiles, *expected: str, host: str = "127.0.0.1") -> Peer:
    security = Security(files, tuple(map(identity, expected)))
    return Peer("pacs", "PACS", host, port, "NODE", 5, 5, 5, 5, security=security)


def test_an_echo_over_tls(server: TlsFiles, client: TlsFiles, pacs: Callable[[TlsFiles], int]) -> None:
    port = pacs(server)
    assert echo(peer(port, client)) > 0
    assert echo(peer(port, client, host="localhost")) > 0
    assert echo(peer(port, client, fingerprint(server.certificate), "CN:other")) > 0


def test_who_answers_has_to_be_who_was_called(
    hospital: Authority, stranger: Authority, server: TlsFiles, client: TlsFiles, pacs: Callable[[TlsFiles], int]
) -> None:
    port = pacs(server)
    with pytest.raises(PeerError, match="none of those in `certificates`"):
        echo(peer(port, client, fingerprint(client.certificate)))
    elsewhere = hospital.files("elsewhere", hosts=("elsewhere.example",))
    port = pacs(elsewhere)
    with pytest.raises(PeerError, match="does not name the configured address"):
        echo(peer(port, client))
    with pytest.raises(PeerError, match="does not name the configured host"):
        echo(peer(port, client, host="localhost"))
    assert echo(peer(port, client, "DNS:elsewhere.example")) > 0
    port = pacs(replace(stranger.files("pacs"), ca_file=hospital.certificate))
    with pytest.raises(PeerError, match="a CA that is not in tls.ca_file"):
        echo(peer(port, client))
    port = pacs(hospital.expired("late"))
    with pytest.raises(PeerError, match="its certificate has expired"):
        echo(peer(port, client))


def test_what_the_peer_says_of_our_certificate(
    stranger: Authority, hospital: Authority, server: TlsFiles, pacs: Callable[[TlsFiles], int]
) -> None:
    port = pacs(server)
    foreign = replace(stranger.files("us"), ca_file=hospital.certificate)
    with pytest.raises(PeerError, match="does not trust the CA of our certificate|closed the connection"):
        echo(peer(port, foreign))
    with pytest.raises(PeerError, match="our certificate has expired|closed the connection"):
        echo(peer(port, hospital.expired("us-late")))


def test_our_broken_files_are_a_failure_in_passing(client: TlsFiles) -> None:
    with pytest.raises(PeerError, match="no TLS connection: .*cannot be read"):
        echo(peer(1, replace(client, key=Path("/nonexistent/key"))))


def test_tls_to_a_port_without(client: TlsFiles) -> None:
    entity = AE("PACS")
    entity.add_supported_context(Verification)
    listening = entity.start_server(("127.0.0.1", 0), block=False)
    assert listening is not None
    try:
        with pytest.raises(PeerError, match="TLS"):
            echo(peer(int(listening.server_address[1]), client))
    finally:
        entity.shutdown()


def test_no_answer_to_a_handshake_ends_in_time(client: TlsFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(PeerError, match="speaks TLS on this port"):
            echo(replace(peer(int(silent.getsockname()[1]), client), connect_timeout_s=0.3))
        assert time.monotonic() - start < 10
