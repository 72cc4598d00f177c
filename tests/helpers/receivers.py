"""A mail server and a webhook on this machine, which take, refuse, drop or wait as a test wants it."""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | None


class MailServer:
    """SMTP (RFC 5321) as far as a client needs it. `answers` maps a command to another reply, or None: hang up."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.recipients: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.logins: list[str] = []
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                owner._talk(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _talk(self, peer: socketserver.StreamRequestHandler) -> None:
        usual = {
            "": "220 ready",
            "EHLO": "250-here\r\n250 AUTH PLAIN",
            "AUTH": "235 in",
            "DATA": "354 go on",
            ".": "250 taken",
            "QUIT": "221 bye",
        }
        command, line = "", ""
        while True:
            reply = self.answers.get(command, usual.get(command, "250 ok"))
            if reply is None:
                return
            peer.wfile.write(f"{reply}\r\n".encode())
            if command == "DATA" and reply.startswith("354"):
                lines = []
                while (text := peer.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                if (self.answers.get(".") or "250").startswith("250"):
                    self.mails.append("\n".join(lines))
                command = "."
                continue
            if command == "QUIT":
                return
            line = peer.rfile.readline().decode().rstrip("\r\n")
            if not line:
                return
            command = line.split(" ")[0].upper()
            if command == "RCPT":
                self.recipients.append(line.partition(":")[2])
            if command == "AUTH":
                self.logins.append(line)


class Webhook:
    """HTTP that answers `status` to each POST and keeps what came: headers and body."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.came: list[tuple[dict[str, str], bytes]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(owner.status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.send_response(405)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
