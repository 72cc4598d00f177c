"""An OpenID provider that answers as a test wants it to: the user, the token, the keys, and every kind of nonsense."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jws
from joserfc.jwk import ECKey

CLIENT, SECRET = "dicomnode", "a+secret/of the client"


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Provider:
    """What it answers can be changed while it runs."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.key = ECKey.generate_key("P-256", {"kid": "first"})
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.nonce = ""
        self.user: dict[str, Any] = {"sub": "1", "preferred_username": "anna", "groups": ["ct-operators"]}
        self.more: dict[str, Any] = {}  # of the ID token, over what is right
        self.metadata: dict[str, Any] = {}
        self.userinfo: dict[str, Any] | None = None
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        #: Bytes instead of an answer, by path; or its status with them.
        self.instead: dict[str, bytes | tuple[int, bytes]] = {}

    def claims(self) -> dict[str, Any]:
        now = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.nonce, **self.user}
        return {name: value for name, value in {**right, **self.more}.items() if value is not None}

    def signed(self, claims: dict[str, Any], key: ECKey | None = None, header: Mapping[str, Any] | None = None) -> str:
        used = key or self.key
        head = {"alg": "ES256", "kid": used.kid, **(header or {})}
        return jws.serialize_compact(head, json.dumps(claims).encode(), used)

    def unsigned(self, claims: dict[str, Any]) -> str:
        return f"{segment({'alg': 'none'})}.{segment(claims)}."

    def answer(self, path: str) -> object:
        if path == "/.well-known/openid-configuration":
            ends = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
            ends |= {} if self.userinfo is None else {"userinfo_endpoint": "/me"}
            found = {"issuer": self.issuer, **{name: self.issuer + end for name, end in ends.items()}}
            return {**found, **self.metadata}
        if path == "/keys":
            return {"keys": [self.key.as_dict(private=False)]}
        if path == "/token":
            return {"access_token": "access", "token_type": "Bearer", "id_token": self.sign(self.claims())}
        return self.userinfo


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider on this machine that ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            made.asked.append((self.path, form, {name.lower(): value for name, value in self.headers.items()}))
            given = made.instead.get(self.path)
            status, content = given if isinstance(given, tuple) else (200, given)
            if content is None:
                content = json.dumps(made.answer(self.path)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Provider(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
