"""STOW-RS against a server that answers as the test says."""

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import stow
from tests.helpers import report_cases as cases

UID = "1.2.3.4.1"


def response(*, referenced: dict[str, int] | None = None, failed: dict[str, int] | None = None) -> bytes:
    """A store response (PS3.18 annex I) in DICOM JSON."""
    said = {}
    for tag, code, items in (("00081199", "00081196", referenced), ("00081198", "00081197", failed)):
        if items is not None:
            said[tag] = {
                "vr": "SQ",
                "Value": [
                    {"00081155": {"vr": "UI", "Value": [uid]}}
                    | ({code: {"vr": "US", "Value": [reason]}} if reason else {})
                    for uid, reason in items.items()
                ],
            }
    return json.dumps(said).encode()


@dataclass
class Archive:
    """`status` and `body` are its answer; `requests` what it was sent: method, path, headers, content."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


def serve(archive: Archive, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            archive.requests.append((self.command, self.path, dict(self.headers), content))
            self.send_response(archive.status)
            for name, value in {**archive.headers, "Content-Length": str(len(archive.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(archive.body)

        do_POST = do_GET = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    archive.url = f"http{'s' if context else ''}://localhost:{server.server_address[1]}/dicom-web/"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive(body=response(referenced={UID: 0}))
    server = serve(made)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    path.write_bytes(cases.to_bytes(cases.synthetic(1)[0]))
    return path


def send(archive: Archive, *paths: Path, **settings: str) -> list[stow.Sent]:
    return stow.send(stow.StowServer("archive", archive.url, **settings), paths)  # type: ignore[arg-type]


def test_the_file_goes_as_it_is(archive: Archive, image: Path) -> None:
    assert send(archive, image) == [stow.Sent(UID, 0, "stored")]
    ((method, path, headers, content),) = archive.requests
    assert (method, path, headers["Accept"]) == ("POST", "/dicom-web/studies", "application/dicom+json")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    preamble, part, end = content.split(b"--" + boundary)
    assert (preamble, end) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + image.read_bytes() + b"\r\n"
    assert "Authorization" not in headers


ACCEPTED = [
    (200, b"", 0, "stored"),
    (200, response(referenced={UID: 0}), 0, "stored"),
    (200, b"[" + response(referenced={UID: 0}) + b"]", 0, "stored"),
    (200, response(referenced={UID: 0xB000}), 0xB000, "warning"),
    (202, response(referenced={UID: 0}, failed={"9.9": 0xA700}), 0, "stored"),
]
PASSING = [
    (503, b""),
    (500, b""),
    (429, b""),
    (408, b""),
    (202, b""),
    (200, response(failed={UID: 0xA700})),
    (409, response(failed={UID: 0x0110})),
    (409, response(failed={UID: 0})),  # no reason given
    (200, b"<html><title>Log in</title></html>"),
    (202, b"\n<!DOCTYPE html>"),
]
FOR_GOOD = [
    (400, b"", "see its log"),
    (401, b"", "token"),
    (403, b"", "allow"),
    (404, b"", "correct the url"),
    (302, b"", "redirects are not followed"),
    (413, b"", "413"),
    (409, b"", "409"),
    (409, response(failed={UID: 0x0122}), "0x0122"),
    (200, response(failed={UID: 0xA900}), "0xA900"),
    (202, response(referenced={"9.9": 0}, failed={UID: 0xC000}), "0xC000"),
]


@pytest.mark.parametrize(("status", "body", "warning", "outcome"), ACCEPTED)
def test_stored(archive: Archive, image: Path, status: int, body: bytes, warning: int, outcome: str) -> None:
    archive.status, archive.body = status, body
    (sent,) = send(archive, image)
    assert (sent.status, sent.outcome) == (warning, outcome)


@pytest.mark.parametrize(("status", "body"), PASSING)
def test_refused_in_passing(archive: Archive, image: Path, status: int, body: bytes) -> None:
    archive.status, archive.body = status, body
    with pytest.raises(PeerError):
        send(archive, image)


@pytest.mark.parametrize(("status", "body", "says"), FOR_GOOD)
def test_refused_for_good(archive: Archive, image: Path, status: int, body: bytes, says: str) -> None:
    archive.status, archive.body, archive.headers = status, body, {"Location": "http://elsewhere.invalid/"}
    with pytest.raises(PeerRejectedError, match=says):
        send(archive, image)
    assert len(archive.requests) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "it asks who we are"),
        ({"user": "u", "password": "env:P"}, "refused the user and"),
        ({"token": "env:P"}, "refused"),
    ],
)
def test_a_refused_credential_is_not_called_a_missing_one(
    archive: Archive, image: Path, settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P", "s3cret")
    archive.status, archive.body = 401, b""
    with pytest.raises(PeerRejectedError, match=says):
        stow.send(stow.StowServer("a", archive.url, **settings), [image])


def test_the_first_failure_ends_it_and_what_was_stored_is_told(archive: Archive, image: Path, tmp_path: Path) -> None:
    told: list[Path] = []
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(PeerRejectedError, match=r"no\.dcm: not a readable DICOM file"):
        stow.send(
            stow.StowServer("a", archive.url), [image, tmp_path / "no.dcm", image], lambda path, _: told.append(path)
        )
    assert told == [image]


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"token": "env:STOW_SECRET"}, "Bearer s3cret"),
        ({"token": "file:{tmp}/secret"}, "Bearer s3cret"),
        ({"user": "node", "password": "file:{tmp}/secret"}, "Basic bm9kZTpzM2NyZXQ="),
    ],
)
def test_credentials_are_read_where_they_stand(
    archive: Archive,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    header: str,
) -> None:
    monkeypatch.setenv("STOW_SECRET", "s3cret")
    (tmp_path / "secret").write_text("s3cret\n")
    send(archive, image, **{key: value.format(tmp=tmp_path) for key, value in settings.items()})
    assert archive.requests[0][2]["Authorization"] == header
    assert "s3cret" not in repr(stow.StowServer("a", "u", **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["env:STOW_NOTHING", "file:/nonexistent/secret"])
def test_a_secret_that_is_not_there_is_a_failure_in_passing(archive: Archive, image: Path, where: str) -> None:
    with pytest.raises(PeerError, match="STOW_NOTHING|/nonexistent/secret"):
        send(archive, image, token=where)
    assert archive.requests == []


def test_a_server_that_is_away(image: Path) -> None:
    with pytest.raises(PeerError, match="no connection"):
        send(Archive("http://localhost:1/dicom-web"), image)


def test_echo_asks_for_nobody(archive: Archive) -> None:
    archive.body = b"[]"
    server = stow.StowServer("archive", archive.url)
    assert stow.echo(server) > 0
    assert archive.requests[0][:2] == ("GET", "/dicom-web/studies?StudyInstanceUID=2.25.0&limit=1")
    archive.status = 405
    assert stow.echo(server) > 0
    archive.status = 404
    with pytest.raises(PeerRejectedError, match="correct the url"):
        stow.echo(server)


@pytest.fixture
def certificate(tmp_path: Path, peer: Callable[[str, str], str]) -> Path:
    """A certificate for localhost that signs itself, with its key in the same file."""
    path = tmp_path / "localhost.pem"
    command = [peer("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-keyout", tmp_path / "key.pem", "-out", path, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return path


def test_only_a_trusted_certificate_is_talked_to(image: Path, tmp_path: Path, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    archive = Archive()
    server = serve(archive, context)
    try:
        with pytest.raises(PeerError, match="CERTIFICATE_VERIFY_FAILED"):
            send(archive, image)
        assert archive.requests == []
        assert send(archive, image, ca_file=str(certificate))[0].outcome == "stored"
        other = replace(archive, url=archive.url.replace("localhost", "127.0.0.1"))
        with pytest.raises(PeerError, match="CERTIFICATE_VERIFY_FAILED"):
            send(other, image, ca_file=str(certificate))
        with pytest.raises(PeerError, match="ca_file"):
            send(archive, image, ca_file="/nonexistent.pem")
    finally:
        server.shutdown()
        server.server_close()
