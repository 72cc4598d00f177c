"""Receivers of reports: a FHIR server that stores by identifier, and an HL7 receiver that acknowledges over MLLP."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FhirStore:
    """Takes transactions: conditional creates and updates, all or nothing. `answers` may refuse before it stores.

    Attributes:
        resources: by kind and identifier, as they are now.
        came: the identifiers of the reports of each transaction that was stored.
        requests: method, path and headers of each request.
        before_answer: called when a transaction has been stored and nothing has been said of it.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}
        self.came: list[str] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.answers: Callable[[], tuple[int, bytes] | None] = lambda: None
        self.before_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._port, self._context = port, context
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> "FhirStore":
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._note()
                self._say(200, json.dumps({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}).encode())

            def do_POST(self) -> None:
                self._note()
                content = self.rfile.read(int(self.headers["Content-Length"]))
                refused = store.answers()
                if refused is not None:
                    return self._say(*refused)
                said = store.store(json.loads(content))
                store.before_answer()
                return self._say(200, json.dumps(said).encode())

            def _note(self) -> None:
                store.requests.append((self.command, self.path, dict(self.headers)))

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/fhir+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        if self._context is not None:
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._port}/fhir"

    def store(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """Store a transaction and return its response."""
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
        with self._lock:
            statuses = [self._store(entry) for entry in bundle["entry"]]
            reports = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"]
            self.came += [report["identifier"][1]["value"] for report in reports]
        return {
            "resourceType": "Bundle",
            "type": "transaction-response",
            "entry": [{"response": {"status": status}} for status in statuses],
        }

    def _store(self, entry: dict[str, Any]) -> str:
        request, resource = entry["request"], entry["resource"]
        query = request["ifNoneExist"] if request["method"] == "POST" else urlsplit(request["url"]).query
        [identifier] = parse_qs(query)["identifier"]
        known = (resource["resourceType"], identifier) in self.resources
        if request["method"] == "POST" and known:
            return "200 OK"
        self.resources[resource["resourceType"], identifier] = resource
        return "200 OK" if known else "201 Created"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [resource for (name, _), resource in self.resources.items() if name == kind]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class MllpReceiver:
    """Keeps each message by its number (MSH-10), as interface engines do, and acknowledges it.

    Attributes:
        held: the messages by their numbers.
        came: the number of each message that came, as often as it came.
        acknowledges: what MSA-1 is, and ERR-3 behind it, for a message; "" for silence.
        before_answer: called when a message is held and nothing has been said of it.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.held: dict[str, str] = {}
        self.came: list[str] = []
        self.acknowledges: Callable[[str], tuple[str, str]] = lambda _message: ("AA", "")
        self.before_answer: Callable[[], None] = lambda: None
        self.port, self._context = port, context
        self._server: socket.socket | None = None

    def start(self) -> "MllpReceiver":
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()
        return self

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(caller,), daemon=True).start()

    def _talk(self, caller: socket.socket) -> None:
        try:
            with caller if self._context is None else self._context.wrap_socket(caller, server_side=True) as wire:
                wire.settimeout(20)
                content = b""
                while not content.endswith(b"\x1c\r"):
                    piece = wire.recv(65536)
                    if not piece:
                        return
                    content += piece
                answer = self._take(content.strip(b"\x0b\x1c\r").decode("utf-8"))
                self.before_answer()
                wire.sendall(answer)
        except OSError:
            return

    def _take(self, message: str) -> bytes:
        number = message.partition("\r")[0].split("|")[9]
        code, error = self.acknowledges(message)
        if code == "AA":
            self.came.append(number)
            self.held[number] = message
        said = f"MSH|^~\\&|RIS||DICOMNODE||20260102||ACK^R01^ACK|1|P|2.5.1\rMSA|{code}|{number}\r"
        said += f"ERR|||{error}^words|E\r" if error else ""
        return b"\x0b" + said.encode() + b"\x1c\r"

    def stop(self) -> None:
        if self._server is not None:
            # A thread that waits in accept would keep the port.
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
