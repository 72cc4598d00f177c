"""A web server on this machine with one file, which can be slow of wit: it cuts answers off, or knows no ranges."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `content` under /files/`name`. `cut` ends the next answer after so many bytes."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.content = content
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != f"/files/{self.server.name}":
            return self.send_error(404)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if first >= len(self.server.content):
            return self.send_error(416)
        body = self.server.content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{first + len(body)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])
        self.server.cut = None
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(name: str, content: bytes) -> Iterator[Server]:
    """A server that answers until the end of the block."""
    with Server(name, content) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
